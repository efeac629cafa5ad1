"""A session's WebSocket in LayerScale's words: push in, events out.

Frames are {"type", "data"}. From the client: push, ping, close; from here: connected,
the session's events, push_ack, pong, error. A frame that is wrong is answered with an
error frame and nothing else happens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from flashfeed.agents.service import SessionService
from flashfeed.models.errors import FlashfeedError, SessionUnknown
from flashfeed.models.views import Fields, SessionEvent

from .errors import flashfeed_response
from .layerscale_answer_bodies import connected, session_event
from .layerscale_bodies import pushed
from .layerscale_requests import IDEMPOTENCY_KEY_CHARS_MAX, pushed_data
from .sse import ascii_json, run_until

log = logging.getLogger(__name__)

NORMAL = 1000
GOING_AWAY = 1001
TRY_AGAIN_LATER = 1013


class Push(msgspec.Struct, frozen=True, tag="push"):
    """Records and texts; `idempotency_key` as the HTTP header of that name."""

    data: str | list[Fields | str]
    idempotency_key: Annotated[str, msgspec.Meta(max_length=IDEMPOTENCY_KEY_CHARS_MAX)] = ""


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Asks for a pong."""


class Close(msgspec.Struct, frozen=True, tag="close"):
    """Ends the connection."""


CLOSE_REASON_BYTES_MAX = 100

_decoder = msgspec.json.Decoder(Push | Ping | Close)


async def serve_socket(
    websocket: WebSocket, service: SessionService, session_id: str, closing: asyncio.Event
) -> None:
    """Serve one connection to its end. A session that is not there is a plain HTTP error."""
    try:
        async with service.events(session_id) as events:
            view = service.get(session_id)
            n_queries = len(service.queries(session_id))
            await websocket.accept()
            socket = _Socket(websocket, service, session_id)
            data = connected(view, n_queries) | {"streaming": not view.failed}
            await socket.send("connected", data)
            await socket.serve(events, closing)
    except FlashfeedError as error:
        if websocket.application_state is WebSocketState.CONNECTED:
            await websocket.close(TRY_AGAIN_LATER, str(error)[:CLOSE_REASON_BYTES_MAX])
        else:
            await websocket.send_denial_response(flashfeed_response(error))
    except WebSocketDisconnect:
        return


class _Socket:
    """One open connection: a reader of frames and a writer of events.

    `_turn` is held from a push's arrival to its acknowledgement, and for each event:
    so push_ack precedes every event that the push causes.
    """

    def __init__(self, websocket: WebSocket, service: SessionService, session_id: str) -> None:
        self._websocket = websocket
        self._service = service
        self._session_id = session_id
        self._turn = asyncio.Lock()

    async def serve(self, events: AsyncIterator[SessionEvent], closing: asyncio.Event) -> None:
        """Serve until the client goes, the events end, or the server closes."""
        writer = asyncio.ensure_future(self._write_events(events))
        try:
            await run_until(self._read_frames(), writer, closing.wait())
            # run_until has cancelled or finished the writer: a failure of it is ours.
            events_ended = writer.done() and not writer.cancelled()
            if events_ended:
                writer.result()
        except WebSocketDisconnect:
            return
        if closing.is_set():
            await self._websocket.close(GOING_AWAY, "the worker is stopping")
        elif events_ended:
            await self._close_after_events()
        else:
            await self._websocket.close(NORMAL)

    async def send(self, kind: str, data: dict[str, Any] | None = None) -> None:
        """Send one frame."""
        message = {"type": kind} if data is None else {"type": kind, "data": data}
        await self._websocket.send_text(ascii_json(message))

    async def _write_events(self, events: AsyncIterator[SessionEvent]) -> None:
        async for event in events:
            async with self._turn:
                await self.send(*session_event(event))

    async def _read_frames(self) -> None:
        """Answer frames until the client closes; raises WebSocketDisconnect when it is gone."""
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", NORMAL))
            text = message.get("text")
            raw = text.encode(errors="replace") if text is not None else message.get("bytes") or b""
            if await self._answer(raw) == "close":
                return

    async def _answer(self, raw: bytes) -> Literal["close"] | None:
        try:
            frame = _decoder.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            await self._send_error(f"not a frame of this protocol: {error}", 400)
            return None
        match frame:
            case Push():
                await self._push(frame)
            case Ping():
                await self.send("pong", {})
            case Close():
                return "close"
        return None

    async def _push(self, push: Push) -> None:
        async with self._turn:
            try:
                ack = await self._service.push(
                    self._session_id, pushed_data(push.data), idempotency_key=push.idempotency_key
                )
            except FlashfeedError as error:
                await self._send_error(str(error), error.status)
                return
            except Exception:
                where = {"session": self._session_id}
                log.exception("session %s: a push failed", self._session_id, extra=where)
                message = "the push failed and may have been written all the same"
                await self._send_error(message, 500)
                return
            await self.send("push_ack", dict(pushed(ack)))

    async def _send_error(self, message: str, code: int) -> None:
        await self.send("error", {"message": message, "code": code})

    async def _close_after_events(self) -> None:
        """The events ended: with the session, or because this client read too slowly."""
        try:
            self._service.get(self._session_id)
        except SessionUnknown:
            await self._websocket.close(NORMAL, "the session is deleted")
        except FlashfeedError:
            await self._websocket.close(TRY_AGAIN_LATER, "the session is not here now")
        else:
            reason = "this client fell too far behind its events; connect again"
            await self._websocket.close(TRY_AGAIN_LATER, reason)
