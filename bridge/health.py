"""Whether the worker can serve, as every dialect's health check answers it."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from flashfeed.agents.service import SessionService


def health_response(service: SessionService) -> Response:
    """200 where the worker serves its sessions, else 503."""
    if service.ready:
        return JSONResponse({"status": "ok", "model": service.model_id})
    return JSONResponse({"status": "unavailable"}, 503, {"Retry-After": "1"})
