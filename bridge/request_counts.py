"""Counts what the bridge answers: requests by route and code, and the streams that are open.

Outside of everything else, so that what is refused counts too. A route is its template
(`/v1/sessions/{session_id}`), never the path; what no route took is `none`.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import BridgeMetrics

METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
NO_ROUTE: Final = "none"
UNANSWERED: Final = 499
"""The client went before there was an answer, as nginx calls it."""
SWITCHED: Final = 101
FAILED: Final = 500


def route_of(scope: Scope) -> str:
    """The template of the route that took a request. FastAPI's `route` lacks the prefixes of
    the routers that it was included by; the context that it matched in has them."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    for one in (getattr(context, "starlette_route", None), context, scope.get("route")):
        path = getattr(one, "path_format", None)
        if path:
            return str(path)
    return NO_ROUTE


class RequestCounts:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, metrics: BridgeMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, and count it by its first answer."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        seen = _Seen(scope, self._metrics)

        async def watched(message: Message) -> None:
            seen.take(message)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except BaseException:
            seen.code = seen.code or FAILED
            raise
        finally:
            seen.end()


class _Seen:
    """One request: what was answered, and whether it is a stream that is open."""

    def __init__(self, scope: Scope, metrics: BridgeMetrics) -> None:
        self._scope = scope
        self._metrics = metrics
        self._stream = ""
        self.code = 0

    def take(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self.code = int(message["status"])
            types = [value for name, value in message.get("headers", ()) if name == b"content-type"]
            if any(one.startswith(b"text/event-stream") for one in types):
                self._open("sse")
        elif kind == "websocket.accept":
            self.code = SWITCHED
            self._open("websocket")
        elif kind == "websocket.close" and not self.code:
            self.code = 403  # refused before it was accepted, as ASGI has it

    def end(self) -> None:
        if self._stream:
            self._metrics.stream(self._stream, -1)
        method = self._scope.get("method", "WEBSOCKET")
        self._metrics.answered(
            method if method in METHODS or method == "WEBSOCKET" else "other",
            route_of(self._scope),
            self.code or UNANSWERED,
        )

    def _open(self, kind: str) -> None:
        self._stream = kind
        self._metrics.stream(kind, 1)
