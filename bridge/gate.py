"""Who comes in, and how much they may bring: before any route, for HTTP and WebSocket.

Everything wants a key where keys are set, but for the paths in OPEN_PATHS: a route
that somebody adds is closed until it is named here. The metrics' key is no tenant's: it
opens METRICS_PATH and nothing else, for a Prometheus, which has no other business here.
Keys are never logged.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from flashfeed.agents.service import SessionService
from flashfeed.models.config import LimitsConfig
from flashfeed.models.errors import LimitReached, Overloaded

from .caller import ALLOWANCE, HELD, SELF_AUTHENTICATED, SERVICE, TENANT
from .errors import error_response, flashfeed_response
from .forwarded import FORWARDED
from .keys import Keys
from .limits import Allowances, TenantAllowance
from .nesting import JSON_DEPTH_MAX, is_deeper
from .origins import is_own_host, origin_may
from .settings import BridgeSettings

OPEN_PATHS: Final = frozenset(
    {"/health", "/healthz", "/livez", "/readyz", "/docs", "/redoc", "/openapi.json"}
)
METRICS_PATH: Final = "/metrics"
STRANGERS_MAX: Final = 100
"""WebSockets that have not said yet who they are."""

_UNSAFE: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Gate:
    """ASGI middleware: origin, API key, the tenant's limits, and the size of what comes."""

    def __init__(
        self,
        app: ASGIApp,
        settings: BridgeSettings,
        service: SessionService,
        allowances: Allowances,
    ) -> None:
        self._app = app
        self._settings = settings
        self._service = service
        self._keys: Keys = settings.keys
        self._allowances = allowances
        strangers = LimitsConfig(connections=STRANGERS_MAX, requests_per_s=0)
        self._strangers = TenantAllowance("", strangers, time.monotonic)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        with ExitStack() as held:
            scope[HELD] = held
            if FORWARDED in scope:
                self._admit_forwarded(scope)
                await self._app(scope, receive, send)
                return
            refusal = self._refusal(scope, headers) or self._admission(scope, headers, held)
            if refusal is None:
                bounded = self._bounded if scope["type"] == "http" else self._paced
                await self._app(scope, bounded(scope, receive), send)
            elif scope["type"] == "http":
                await refusal(scope, receive, send)
            else:
                await WebSocket(scope, receive, send).send_denial_response(refusal)

    def _admit_forwarded(self, scope: Scope) -> None:
        """What another worker passes on (cluster.py): its gate let it in, counted it, and
        signed for whom."""
        tenant = scope[FORWARDED].tenant
        scope[TENANT], scope[SERVICE] = tenant, self._service
        if tenant:
            scope[ALLOWANCE] = allowance = self._allowances.of(tenant)
            scope[SERVICE] = self._service.of(tenant, allowance)

    # -- who ----------------------------------------------------------------------

    def _admission(self, scope: Scope, headers: Headers, held: ExitStack) -> Response | None:
        """Put the caller into the scope; the refusal where nobody may come in so."""
        if not self._keys:
            scope[TENANT], scope[SERVICE] = "", self._service
            return None
        tenant = self._tenant(headers)
        try:
            if tenant is not None:
                allowance = self._allowances.of(tenant)
                held.enter_context(allowance.connection())
                allowance.request()
                scope[TENANT], scope[ALLOWANCE] = tenant, allowance
                scope[SERVICE] = self._service.of(tenant, allowance)
            elif scope["type"] == "websocket" and scope["path"] == SELF_AUTHENTICATED:
                held.enter_context(self._strangers.connection())
            elif scope["type"] == "http" and self._is_open(scope["path"], headers):
                scope[TENANT], scope[SERVICE] = "", self._service
            else:
                message = "expected an API key: Authorization: Bearer KEY, or x-api-key: KEY"
                challenge = {"WWW-Authenticate": "Bearer"}
                return error_response(401, "invalid_api_key", message, headers=challenge)
        except LimitReached as reached:
            if tenant is None:
                return flashfeed_response(Overloaded("too many WebSockets wait to log in"))
            return flashfeed_response(reached)
        return None

    def _tenant(self, headers: Headers) -> str | None:
        """The tenant of the headers' keys; None where none is right, or they disagree."""
        found = (self._keys.authenticate(key) for key in _given_keys(headers))
        tenants = {tenant for tenant in found if tenant is not None}
        return tenants.pop() if len(tenants) == 1 else None

    def _is_open(self, path: str, headers: Headers) -> bool:
        """Whether a path is for whoever is no tenant: for everybody, or by the metrics' key."""
        if path != METRICS_PATH:
            return path in OPEN_PATHS
        known = self._settings.metrics_key
        return any(known.authenticate(key) is not None for key in _given_keys(headers))

    # -- how ----------------------------------------------------------------------

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """What is refused whoever asks."""
        header_bytes = sum(len(name) + len(value) for name, value in scope["headers"])
        header_bytes += len(scope.get("raw_path", b"")) + len(scope["query_string"])
        if header_bytes > self._settings.header_bytes_max:
            message = (
                f"expected at most {self._settings.header_bytes_max} bytes of headers, path "
                f"and query, got {header_bytes}"
            )
            return error_response(431, "headers_too_large", message)
        foreign = not origin_may(headers, self._settings.cors_origins)
        if scope["type"] == "websocket" and foreign:
            message = "a WebSocket of a page from another origin is refused"
            return error_response(403, "origin_refused", message)
        if not self._keys:
            # A browser is on this machine too, and what it shows may be anybody's.
            if foreign and scope.get("method") in _UNSAFE:
                message = "a request of a page from another origin is refused"
                return error_response(403, "origin_refused", message)
            if not is_own_host(headers):
                message = "without API keys the bridge is called by its address, or localhost"
                return error_response(403, "host_refused", message)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._settings.body_bytes_max:
            return error_response(413, "content_too_large", self._too_large)
        return None

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Receive, for a body: its size is counted while it comes (not every body says it
        before), its nesting when it is whole."""
        seen = 0
        parts: list[bytes] = []

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            body = message.get("body", b"")
            seen += len(body)
            if seen > self._settings.body_bytes_max:
                raise HTTPException(413, self._too_large)
            if message["type"] == "http.request":
                parts.append(body)
                if not message.get("more_body", False):
                    whole = b"".join(parts)
                    parts.clear()
                    if is_deeper(whole, JSON_DEPTH_MAX):
                        raise HTTPException(400, _TOO_DEEP)
            return message

        return counted

    def _paced(self, scope: Scope, receive: Receive) -> Receive:
        """Receive, for a WebSocket: its frames are requests, and those too many wait. Who
        authenticates itself counts its own, and has an error to say so."""
        allowance: TenantAllowance | None = scope.get(ALLOWANCE)
        if allowance is None or scope["path"] == SELF_AUTHENTICATED:
            return receive

        async def paced() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive":
                await asyncio.sleep(allowance.pace_s())
            return message

        return paced

    @property
    def _too_large(self) -> str:
        return f"expected a body of at most {self._settings.body_bytes_max} bytes; send it in parts"


_TOO_DEEP: Final = (
    f"expected JSON of arrays and objects nested at most {JSON_DEPTH_MAX} deep; got deeper"
)


def _given_keys(headers: Headers) -> list[bytes]:
    """Every key of the headers. Latin-1 gives back the bytes as they came."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    given = [headers.get("x-api-key", ""), headers.get("api-key", "")]
    if scheme.lower() == "bearer":
        given.append(bearer.strip())
    return [key.encode("latin-1") for key in given if key]
