"""Requests that other workers pass on, at the worker they come to: checked before the gate,
which lets them in without a key, as the tenant that they are signed for."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from flashfeed.agents.service import Ownership
from flashfeed.models.errors import FlashfeedError
from flashfeed.models.ownership import encode_sessions

from .body import Body, ClientGone
from .errors import flashfeed_response
from .forwarded import FORWARDED, HEADER, NO_PARTITION, Admission, method_of, target_of, verify
from .peers import SESSIONS_PATH


class ClusterDoor:
    """ASGI middleware, before the gate: what a request says of having been passed on is
    checked, and put into its scope."""

    def __init__(
        self, app: ASGIApp, secret: bytes, ownership: Ownership, body_bytes_max: int
    ) -> None:
        self._app = app
        self._secret = secret
        self._ownership = ownership
        self._admission = Admission(ownership.worker)
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        asked = scope["type"] in ("http", "websocket")
        header = Headers(scope=scope).get(HEADER) if asked else None
        if header is None:
            await self._app(scope, receive, send)
            return
        body = Body(receive, self._body_bytes_max)
        try:
            whole = await body.whole() if scope["type"] == "http" else b""
            passed = verify(self._secret, header, method_of(scope), target_of(scope), whole)
            self._admission.admit(passed, int(time.time() * 1000))
            if passed.partition != NO_PARTITION:
                self._ownership.accept(passed.partition, passed.epoch)
        except FlashfeedError as error:
            await flashfeed_response(error)(scope, receive, send)
            return
        except ClientGone:
            return
        scope[FORWARDED] = passed
        await self._app(scope, body.receive, send)


def cluster_router(ownership: Ownership) -> APIRouter:
    """What only other workers may ask."""
    router = APIRouter(include_in_schema=False)

    @router.get(SESSIONS_PATH)
    async def sessions(request: Request) -> Response:
        """The sessions that this worker serves, of every tenant."""
        passed = request.scope.get(FORWARDED)
        if passed is None or passed.partition != NO_PARTITION:
            raise HTTPException(404)  # as if it were not there
        return Response(encode_sessions(ownership.owned_sessions()), media_type="application/json")

    return router
