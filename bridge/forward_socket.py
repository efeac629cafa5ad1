"""A WebSocket passed on: frames go both ways until one side ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from dataclasses import dataclass
from typing import Final

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
GOING_AWAY: Final = 1001
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
    upstream: Upstream, scope: Scope, receive: Receive, send: Send, closing: asyncio.Event
) -> None:
    """Connect to the owner and relay, or refuse as the owner does. The client's handshake
    has been read, and not answered."""
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
        # A client that goes while a frame is on its way to it is no error.
        with contextlib.suppress(OSError):
            await run_until(_to_client(owner, send), _to_owner(owner, receive), closing.wait())
            if closing.is_set():
                await send(_close(GOING_AWAY, "the worker is stopping"))


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


async def _to_client(owner: ClientConnection, send: Send) -> None:
    """Pass the owner's frames on, at last its close; a lost owner is a reason to come back."""
    try:
        while True:
            frame = await owner.recv()
            kind = "text" if isinstance(frame, str) else "bytes"
            await send({"type": "websocket.send", kind: frame})
    except ConnectionClosed as closed:
        code, reason = TRY_AGAIN_LATER, "the session's worker was lost; connect again"
        if closed.rcvd is not None and closed.rcvd.code not in _NEVER_SENT:
            code, reason = closed.rcvd.code, closed.rcvd.reason
        elif closed.rcvd is not None and closed.rcvd.code == 1005:
            code, reason = NORMAL, ""
        await send(_close(code, reason))


async def _to_owner(owner: ClientConnection, receive: Receive) -> None:
    """Pass the client's frames on until it goes."""
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.connect":  # where the refusing dialect did not read it
            continue
        text = message.get("text")
        try:
            await owner.send(text if text is not None else message.get("bytes") or b"")
        except ConnectionClosed:  # the other direction says so to the client
            await asyncio.Event().wait()
    code = message.get("code") or NORMAL
    await owner.close(NORMAL if code in _NEVER_SENT else code)


def _close(code: int, reason: str) -> Message:
    return {"type": "websocket.close", "code": code, "reason": reason}
