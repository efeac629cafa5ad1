"""A WebSocket passed on: frames go both ways until one side ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from flashfeed.models.errors import Unavailable

from .errors import flashfeed_response
from .sse import run_until

log = logging.getLogger(__name__)

CONNECT_S: Final = 5.0
NORMAL: Final = 1000
TRY_AGAIN_LATER: Final = 1013
# Codes that say how a connection ended and are never sent.
_NEVER_SENT: Final = frozenset({1005, 1006, 1015})
# A handshake's own headers: the next hop has others.
_HANDSHAKE: Final = "sec-websocket-"


@dataclass(frozen=True)
class Upstream:
    """Where a WebSocket goes on: the owner's URL with path and query, what to say there."""

    url: str
    headers: list[tuple[str, str]]
    tls: ssl.SSLContext | None
    frame_bytes_max: int


async def pass_socket_on(
    upstream: Upstream,
    scope: Scope,
    receive: Receive,
    send: Send,
    ends: Callable[[], tuple[Coroutine[Any, Any, object], ...]],
) -> None:
    """Connect to the owner and relay, until one of `ends` is over; or refuse as the owner
    does. The client's handshake has been read, and not answered."""
    try:
        owner = await _connect(upstream, scope)
    except InvalidStatus as refused:
        answer = refused.response
        told = ("content-type", "retry-after", "www-authenticate")
        headers = {name: answer.headers[name] for name in told if name in answer.headers}
        await Response(bytes(answer.body), answer.status_code, headers)(scope, receive, send)
        return
    except (OSError, TimeoutError, InvalidHandshake) as error:
        log.warning("WebSocket %s: cannot reach the session's worker: %r", scope["path"], error)
        unavailable = Unavailable("the session's worker cannot be reached; try again")
        await flashfeed_response(unavailable)(scope, receive, send)
        return
    async with owner:
        await send({"type": "websocket.accept", "subprotocol": owner.subprotocol})
        relay = _Relay(owner, receive, send)
        # A client that goes while a frame is on its way to it is no error.
        with contextlib.suppress(OSError):
            await run_until(relay.to_client(), relay.to_owner(), *ends())
            if not relay.ended:
                reason = "the session moves, or this worker stops; connect again"
                await send(_close(TRY_AGAIN_LATER, reason))


async def _connect(upstream: Upstream, scope: Scope) -> ClientConnection:
    return await connect(
        "ws" + upstream.url.removeprefix("http"),
        additional_headers=[one for one in upstream.headers if _HANDSHAKE not in one[0]],
        subprotocols=[Subprotocol(one) for one in scope.get("subprotocols", ())] or None,
        ssl=upstream.tls,
        max_size=upstream.frame_bytes_max,
        open_timeout=CONNECT_S,
        compression=None,
        user_agent_header=None,
        proxy=None,
    )


class _Relay:
    """Both directions; `ended`: the owner or the client has closed."""

    def __init__(self, owner: ClientConnection, receive: Receive, send: Send) -> None:
        self._owner = owner
        self._receive = receive
        self._send = send
        self.ended = False

    async def to_client(self) -> None:
        """Pass the owner's frames on, at last its close; a lost owner is a reason to come
        back."""
        try:
            while True:
                frame = await self._owner.recv()
                kind = "text" if isinstance(frame, str) else "bytes"
                await self._send({"type": "websocket.send", kind: frame})
        except ConnectionClosed as closed:
            code, reason = TRY_AGAIN_LATER, "the session's worker was lost; connect again"
            if closed.rcvd is not None:
                code, reason = _sendable(closed.rcvd.code), closed.rcvd.reason
            self.ended = True
            await self._send(_close(code, reason))

    async def to_owner(self) -> None:
        """Pass the client's frames on until it goes."""
        while (message := await self._receive())["type"] != "websocket.disconnect":
            if message["type"] == "websocket.connect":  # the refusing dialect did not read it
                continue
            text = message.get("text")
            try:
                await self._owner.send(text if text is not None else message.get("bytes") or b"")
            except ConnectionClosed:
                await asyncio.Event().wait()  # `to_client` says so, and ends both
        self.ended = True
        await self._owner.close(_sendable(message.get("code") or NORMAL))


def _sendable(code: int) -> int:
    """A close code as it may be sent: some only say that none came."""
    return NORMAL if code in _NEVER_SENT else code


def _close(code: int, reason: str) -> Message:
    return {"type": "websocket.close", "code": code, "reason": reason}
