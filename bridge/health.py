"""How the worker is, over HTTP.

/health    whether the worker serves its sessions, as every dialect's health check answers it
/livez     whether anything but a restart helps
/readyz    whether requests are answered and records applied: the brokers, the partitions,
           their sessions, the engine
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import JSONResponse, Response

from flashfeed.agents.service import SessionService
from flashfeed.models.health import Check

RETRY = {"Retry-After": "1"}


def health_response(service: SessionService) -> Response:
    """200 where the worker serves its sessions, else 503."""
    if service.ready:
        return JSONResponse({"status": "ok", "model": service.model_id})
    return JSONResponse({"status": "unavailable"}, 503, RETRY)


def checks_response(checks: Sequence[Check], *, reasons: bool) -> Response:
    """200 where all checks hold, else 503. `reasons`: they name brokers and topics, which is
    nothing for whoever may come in without a key."""
    ok = all(check.ok for check in checks)
    said = [
        {"name": check.name, "ok": check.ok} | ({"reason": check.reason} if reasons else {})
        for check in checks
    ]
    body = {"status": "ok" if ok else "unavailable", "checks": said}
    return JSONResponse(body, 200 if ok else 503, {} if ok else RETRY)


class ServiceHealth:
    """The health of a session service that nobody knows more of."""

    def __init__(self, service: SessionService) -> None:
        self._service = service

    def alive(self) -> list[Check]:
        """It answers."""
        return []

    def ready(self) -> list[Check]:
        """Whether it serves its sessions."""
        ready = self._service.ready
        return [Check("sessions", ready, "served" if ready else "not served yet")]
