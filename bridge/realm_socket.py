"""The Realm WebSocket, at `/`: one connection, several calls at a time.

STRANGER  keys are set and none came yet: only an auth frame does something, and soon
CALLER    known by its key, or no keys are set: calls are run, each in a task of its own

A frame that is wrong is answered with an error and nothing else happens. When the client
goes, what it asked for ends.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from flashfeed.agents.service import SessionService
from flashfeed.models.errors import FlashfeedError, LimitReached, Overloaded, RequestError

from . import realm_frames as frames
from .answers import closing_of
from .caller import SELF_AUTHENTICATED, admit, allowance_of, is_known, service_of, tenant_of
from .keys import Keys
from .realm_functions import VERSION, Caller, call
from .sse import ascii_json, run_until

log = logging.getLogger(__name__)

CALLS_MAX: Final = 16
AUTH_S: Final = 10.0
SEND_S: Final = 30.0
KEEP_ALIVE_S: Final = 10.0
"""A client gives a call up after 30 s without a frame for it."""

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
POLICY_VIOLATION: Final = 1008

router = APIRouter()


@router.websocket(SELF_AUTHENTICATED)
async def realm(websocket: WebSocket) -> None:
    """Serve one connection to its end."""
    await websocket.accept()
    connection = _Connection(websocket)
    try:
        closing = closing_of(websocket)
        await run_until(connection.serve(), closing.wait(), connection.lost.wait())
        if closing.is_set():
            await connection.cancel_all()
            await websocket.close(GOING_AWAY, "the worker is stopping")
    except WebSocketDisconnect:
        pass
    finally:
        await connection.end_all()


class _Refused(Exception):
    """The connection is to be closed: it said who it is, and is nobody."""


class _Connection:
    """One open connection. `lost`: the client does not read what it is sent."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._tenant_id = str(uuid.uuid4())
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._last_sent_s: dict[str, float] = {}
        self._sending = asyncio.Lock()
        self.lost = asyncio.Event()

    async def serve(self) -> None:
        """Serve until the client goes, or is refused."""
        try:
            await self._login()
            await run_until(self._answer_all(), self._keep_alive())
        except _Refused:
            await self.end_all()
            await self._websocket.close(POLICY_VIOLATION, "not authenticated")

    async def cancel_all(self) -> None:
        """Tell the client of every call that still runs that it will not be answered."""
        running = list(self._calls)
        await self.end_all()
        for call_id in running:
            await self._send(frames.reply(call_id, "cancelled"))

    async def end_all(self) -> None:
        """End every call."""
        tasks = list(self._calls.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- who ----------------------------------------------------------------------

    async def _login(self) -> None:
        if not is_known(self._websocket):
            message = 'send {"type": "auth", "api_key": KEY} first'
            await self._send({"type": "auth_required", "message": message})
            try:
                async with asyncio.timeout(AUTH_S):
                    while not is_known(self._websocket):
                        await self._meet(await self._receive())
            except TimeoutError:
                await self._refuse(f"expected an auth frame within {AUTH_S:g} s, got none")
        welcome = {"status": "connected", "version": VERSION, "tenant_id": self._tenant_id}
        await self._send(welcome)

    async def _meet(self, raw: bytes) -> None:
        """Answer a stranger's frame."""
        try:
            frame = frames.read_frame(raw)
        except frames.MalformedFrame as error:
            await self._send(frames.error_reply(error.call_id, error))
            return
        if isinstance(frame, frames.Auth):
            await self._authenticate(frame)
        else:
            error_ = frames.Unauthorized("send an auth frame with an API key before any call")
            await self._send(frames.error_reply(frame.id, error_))

    async def _authenticate(self, auth: frames.Auth) -> None:
        keys: Keys = self._websocket.app.state.keys
        try:
            if not is_known(self._websocket):
                known = admit(self._websocket, auth.api_key) is not None
            else:  # by a header, by an earlier frame, or there is nobody to tell apart
                tenant = tenant_of(self._websocket)
                known = not keys or keys.authenticate(auth.api_key) == tenant
        except LimitReached as reached:
            await self._send({"type": "auth_failed", "error": frames.error_info(reached)})
            raise _Refused from None
        if not known:
            await self._refuse("this API key is nobody's")
        await self._send({"type": "auth_success", "tenant_id": self._tenant_id})

    async def _refuse(self, why: str) -> None:
        info = frames.error_info(frames.Unauthorized(why))
        await self._send({"type": "auth_failed", "error": info})
        raise _Refused

    # -- what ---------------------------------------------------------------------

    async def _answer_all(self) -> None:
        while True:
            await self._answer(await self._receive())

    async def _answer(self, raw: bytes) -> None:
        """Answer a caller's frame, or begin to."""
        call_id = ""
        try:
            frame = frames.read_frame(raw)
            if isinstance(frame, frames.Auth):
                await self._authenticate(frame)
                return
            call_id = frame.id
            if (allowance := allowance_of(self._websocket)) is not None:
                allowance.request()
            self._begin(frame)
        except frames.MalformedFrame as error:
            await self._send(frames.error_reply(error.call_id, error))
        except FlashfeedError as error:
            await self._send(frames.error_reply(call_id, error))

    def _begin(self, asked: frames.Call) -> None:
        if asked.id in self._calls:
            raise RequestError(f"a call of id {asked.id!r} is running; ids are used once")
        if len(self._calls) >= CALLS_MAX:
            raise Overloaded(f"expected at most {CALLS_MAX} calls at a time on a connection")
        self._last_sent_s[asked.id] = asyncio.get_running_loop().time()
        self._calls[asked.id] = asyncio.create_task(self._run(asked))

    async def _run(self, asked: frames.Call) -> None:
        """Run a call to its last frame."""
        try:
            async with aclosing(call(self._caller(asked), asked.function, asked.params)) as replies:
                async for status, data in replies:
                    await self._send(frames.reply(asked.id, status, data))
        except FlashfeedError as error:
            if error.status >= 500 and not error.retriable:
                log.error("%s failed", asked.function, exc_info=error)
            await self._send(frames.error_reply(asked.id, error))
        except WebSocketDisconnect:
            return  # the reader notices too
        except Exception:
            log.exception("%s failed", asked.function)
            failed = FlashfeedError("the bridge failed; its log says why")
            await self._send(frames.error_reply(asked.id, failed))
        finally:
            self._calls.pop(asked.id, None)
            self._last_sent_s.pop(asked.id, None)

    def _caller(self, asked: frames.Call) -> Caller:
        state = self._websocket.app.state
        sessions: SessionService = service_of(self._websocket)
        return Caller(
            sessions=sessions,
            # A client's own tenant id keeps its chats apart from others of the same key.
            chats=sessions.of(asked.tenant_id or self._tenant_id),
            pipelines=state.settings.pipelines,
            started_s=state.started_s,
        )

    # -- how ----------------------------------------------------------------------

    async def _receive(self) -> bytes:
        """The next frame; raises WebSocketDisconnect when the client is gone."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", NORMAL))
        text = message.get("text")
        return text.encode(errors="replace") if text is not None else message.get("bytes") or b""

    async def _send(self, frame: Mapping[str, Any]) -> None:
        """Send a frame. A client that does not read for SEND_S is given up."""
        try:
            async with asyncio.timeout(SEND_S), self._sending:
                await self._websocket.send_text(ascii_json(frame))
        except TimeoutError:
            self.lost.set()
            raise WebSocketDisconnect(POLICY_VIOLATION) from None
        if frame.get("id") in self._last_sent_s:
            self._last_sent_s[frame["id"]] = asyncio.get_running_loop().time()

    async def _keep_alive(self) -> None:
        """Say of every call that was silent for long that it still runs."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(KEEP_ALIVE_S / 2)
            late = loop.time() - KEEP_ALIVE_S
            for call_id in [one for one, sent_s in self._last_sent_s.items() if sent_s < late]:
                still_at_it = frames.token("", 0, is_final=False)
                await self._send(frames.reply(call_id, "streaming", still_at_it))
