"""Who comes in, and how much they may bring: before any route, for HTTP and WebSocket.

Everything wants a key where keys are set, but for the paths in OPEN_PATHS: a route
that somebody adds is closed until it is named here. Keys are never logged.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from flashfeed.agents.service import SessionService

from .caller import SELF_AUTHENTICATED, SERVICE, TENANT
from .errors import error_response
from .settings import BridgeSettings

OPEN_PATHS = frozenset({"/health", "/healthz", "/metrics", "/docs", "/redoc", "/openapi.json"})


class Gate:
    """ASGI middleware: the API key, a WebSocket's origin, and the size of a body."""

    def __init__(self, app: ASGIApp, settings: BridgeSettings, service: SessionService) -> None:
        self._app = app
        self._service = service
        self._keys = settings.keys
        self._body_bytes_max = settings.body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        tenant = self._tenant(headers)
        refusal = self._refusal(scope, headers, tenant)
        if refusal is None:
            if tenant is not None:
                scope[TENANT], scope[SERVICE] = tenant, self._service.of(tenant)
            elif scope["type"] == "http":  # one of OPEN_PATHS, which tell nothing of a tenant
                scope[TENANT], scope[SERVICE] = "", self._service
            if scope["type"] == "http":
                receive = self._bounded(receive)
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await refusal(scope, receive, send)
        else:
            await WebSocket(scope, receive, send).send_denial_response(refusal)

    def _tenant(self, headers: Headers) -> str | None:
        """Whose the request is: "" where no keys are set, None where no key is right."""
        if not self._keys:
            return ""
        found = (self._keys.authenticate(key) for key in _given_keys(headers))
        tenants = {tenant for tenant in found if tenant is not None}
        return tenants.pop() if len(tenants) == 1 else None

    def _refusal(self, scope: Scope, headers: Headers, tenant: str | None) -> Response | None:
        if tenant is None and not _needs_no_key(scope):
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


def _needs_no_key(scope: Scope) -> bool:
    if scope["type"] == "websocket":  # its first message has the key
        return bool(scope["path"] == SELF_AUTHENTICATED)
    return scope["path"] in OPEN_PATHS


def _given_keys(headers: Headers) -> list[bytes]:
    """Every key of the headers. Latin-1 gives back the bytes as they came."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    given = [headers.get("x-api-key", ""), headers.get("api-key", "")]
    if scheme.lower() == "bearer":
        given.append(bearer.strip())
    return [key.encode("latin-1") for key in given if key]


def same_origin(headers: Headers) -> bool:
    """Whether a WebSocket comes from a program, or from a page of this very host.

    Browsers do not guard WebSockets by origin, so that any page a user opens could
    reach a bridge on their machine; programs send no Origin.
    """
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")
