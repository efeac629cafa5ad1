"""Server-sent events: frames, heartbeats, and a response that ends when it should.

An `event:` line where the frame has a name, one space after each colon, JSON in ASCII
only: a raw U+2028 ends a line for some clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flashfeed.models.errors import Unavailable

HEARTBEAT: Final = b": heartbeat\n\n"
LAST_WORDS_S: Final = 0.5

T = TypeVar("T")
E = TypeVar("E")


def ascii_json(value: Any) -> str:
    """Compact JSON with everything outside ASCII escaped; what is not finite becomes null."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)


def frame(data: Any, event: str | None = None, event_id: str | None = None) -> bytes:
    """One server-sent event."""
    identity = f"id: {event_id}\n" if event_id else ""
    name = f"event: {event}\n" if event else ""
    return f"{identity}{name}data: {ascii_json(data)}\n\n".encode("ascii")


class EncodedOnce(Generic[E]):
    """An event's bytes, encoded for the first of its readers and kept for the others.

    A session's readers get the same object within moments, so the newest few are enough.
    An object's id is its own for as long as it is kept here.
    """

    def __init__(self, encode: Callable[[E], bytes], kept_max: int = 64) -> None:
        self._encode = encode
        self._kept_max = kept_max
        self._kept: dict[int, tuple[E, bytes]] = {}

    def __call__(self, event: E) -> bytes:
        """The event's bytes."""
        kept = self._kept.get(id(event))
        if kept is None:
            kept = self._kept[id(event)] = (event, self._encode(event))
            if len(self._kept) > self._kept_max:
                del self._kept[next(iter(self._kept))]
        return kept[1]


async def run_until(main: Coroutine[Any, Any, T], *stops: Awaitable[Any]) -> T | None:
    """The result of `main`, or None when one of `stops` ended first; `main` is cancelled
    then, and has released what it held when this returns."""
    task = asyncio.ensure_future(main)
    watchers = [asyncio.ensure_future(stop) for stop in stops]
    try:
        await asyncio.wait([task, *watchers], return_when=asyncio.FIRST_COMPLETED)
    finally:
        finished = task.done()
        for other in (task, *watchers):
            other.cancel()
        # The results are asked for so that no exception is reported as never retrieved.
        await asyncio.gather(task, *watchers, return_exceptions=True)
    return task.result() if finished else None


async def disconnected(receive: Receive) -> None:
    """Returns when the client is gone. For requests whose body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A response of server-sent events.

    The headers go out with the first frame, so that an error before it is an ordinary
    HTTP error. The frames' generator is closed as soon as the client is gone or the
    server closes. Nothing is buffered here: a client that reads slowly slows the
    generator.
    """

    media_type = "text/event-stream"

    def __init__(
        self, frames: AsyncGenerator[bytes, None], heartbeat_s: float, closing: asyncio.Event
    ) -> None:
        # Proxies would otherwise collect frames before they pass them on.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._frames = frames
        self._heartbeat_s = heartbeat_s
        self._closing = closing
        self._started = False
        self._ended = False
        self._last_sent = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._beating: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the frames until they end, the client goes or the server closes."""
        try:
            await run_until(self._send_frames(send), disconnected(receive), self._closing.wait())
        finally:
            await self._frames.aclose()
        if self._closing.is_set() and not self._ended:
            if not self._started:
                raise Unavailable("the worker is stopping; try again")
            # A client that does not read must not hold up the server's end.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await self._end(send)

    async def _send_frames(self, send: Send) -> None:
        first = await anext(self._frames, b"")
        self._started = True
        headers = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(headers)
        lock = asyncio.Lock()
        try:
            await self._send(first, send, lock)
            self._beat_in(self._heartbeat_s, send, lock)
            async for data in self._frames:
                await self._send(data, send, lock)
        finally:
            self._stop_beating()
        await self._end(send)

    async def _end(self, send: Send) -> None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self._ended = True

    async def _send(self, data: bytes, send: Send, lock: asyncio.Lock) -> None:
        async with lock:
            await send({"type": "http.response.body", "body": data, "more_body": True})
            self._last_sent = asyncio.get_running_loop().time()

    # A timer, not a task that sleeps: a thousand quiet streams hold a thousand of them.

    def _beat_in(self, seconds: float, send: Send, lock: asyncio.Lock) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._beat, send, lock)

    def _beat(self, send: Send, lock: asyncio.Lock) -> None:
        loop = asyncio.get_running_loop()
        silent_s = loop.time() - self._last_sent
        if silent_s < self._heartbeat_s:
            self._beat_in(self._heartbeat_s - silent_s, send, lock)
            return
        # Where the lock is held a frame is on its way to a client that does not read.
        if not lock.locked():
            self._beating = loop.create_task(self._send(HEARTBEAT, send, lock))
        self._beat_in(self._heartbeat_s, send, lock)

    def _stop_beating(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._beating is not None:
            self._beating.cancel()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
