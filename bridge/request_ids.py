"""Every request has an id: in its answer's headers, in its errors, and in nobody else's.

Clients show it in what they log: `request-id` is Anthropic's name of the header,
`x-request-id` the others'.
"""

from __future__ import annotations

import uuid
from contextvars import ContextVar

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = ("request-id", "x-request-id")
_current: ContextVar[str] = ContextVar("request id", default="")


def current_request_id() -> str:
    """The id of the request that is served here; "" outside of one."""
    return _current.get()


class RequestIds:
    """ASGI middleware: gives each request and each WebSocket an id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request under an id of its own."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = f"req_{uuid.uuid4().hex}"
        # Never reset: a failure's answer is written further out, in the same task.
        _current.set(request_id)

        async def named(message: Message) -> None:
            if message["type"] in _STARTS:
                headers = MutableHeaders(raw=list(message.get("headers", ())))
                for name in HEADERS:  # an answer of another worker has one already
                    headers.setdefault(name, request_id)
                message = {**message, "headers": headers.raw}
            await send(message)

        await self._app(scope, receive, named)


_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
