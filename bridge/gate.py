"""Who comes in, and how much they may bring: before any route, for HTTP and WebSocket.

Everything wants a key where keys are set, but for the paths in OPEN_PATHS: a route
that somebody adds is closed until it is named here. Keys are never logged.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from flashfeed.agents.service import SessionService

from .caller import SERVICE, TENANT
from .errors import error_response
from .forwarded import FORWARDED
from .settings import BridgeSettings

OPEN_PATHS = frozenset({"/health", "/healthz", "/metrics", "/docs", "/redoc", "/openapi.json"})


class Gate:
    """ASGI middleware: the API key, a WebSocket's origin, and the size of a body."""

    def __init__(self, app: ASGIApp, settings: BridgeSettings, service: SessionService) -> None:
        self._app = app
        self._service = service
        self._keys = tuple(key.encode() for key in settings.api_keys)
        self._body_bytes_max = settings.body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if FORWARDED in scope:  # another worker's gate let it in, and signed for whom
            tenant = scope[FORWARDED].tenant
            scope[TENANT], scope[SERVICE] = tenant, self._service.of(tenant)
            await self._app(scope, receive, send)
        elif refusal is None:
            scope[TENANT], scope[SERVICE] = "", self._service
            if scope["type"] == "http":
                receive = self._bounded(receive)
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await refusal(scope, receive, send)
        else:
            await WebSocket(scope, receive, send).send_denial_response(refusal)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if self._keys and scope["path"] not in OPEN_PATHS and not self._has_key(headers):
            message = "expected an API key: Authorization: Bearer KEY, or x-api-key: KEY"
            challenge = {"WWW-Authenticate": "Bearer"}
            return error_response(401, "invalid_api_key", message, headers=challenge)
        if scope["type"] == "websocket" and not same_origin(headers):
            message = "a WebSocket of a page from another origin is refused"
            return error_response(403, "origin_refused", message)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._body_bytes_max:
            return self._too_large()
        return None

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = [headers.get("x-api-key", "")]
        if scheme.lower() == "bearer":
            given.append(bearer.strip())
        # Latin-1 gives back the bytes as they came. No early end: the time does not tell
        # which key came close.
        matches = [
            hmac.compare_digest(candidate.encode("latin-1"), key)
            for candidate in given
            for key in self._keys
        ]
        return any(matches)

    def _bounded(self, receive: Receive) -> Receive:
        """Receive, for bodies that come without their length: count while they come."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._body_bytes_max:
                raise HTTPException(413, self._too_large_text)
            return message

        return counted

    @property
    def _too_large_text(self) -> str:
        return f"expected a body of at most {self._body_bytes_max} bytes; send it in parts"

    def _too_large(self) -> Response:
        return error_response(413, "content_too_large", self._too_large_text)


def same_origin(headers: Headers) -> bool:
    """Whether a WebSocket comes from a program, or from a page of this very host.

    Browsers do not guard WebSockets by origin, so that any page a user opens could
    reach a bridge on their machine; programs send no Origin.
    """
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")
