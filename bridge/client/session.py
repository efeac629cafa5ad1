"""One session's events over HTTP, for as long as the session lives.

The connection is made again whenever it is lost. The bridge begins each connection with
the events of the version that stands, so that the newest answers are never missed; what
came and went while nobody was connected is on the topics alone (`TopicEvents`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx
import msgspec

from .errors import Refused, Unreachable
from .event import Event, Wanted, read_data
from .position import PositionStore
from .reader import SEEN_MAX, Reader

log = logging.getLogger(__name__)

SILENCE_MAX_S: Final = 60.0  # the bridge says something every 15 s
CONNECT_TIMEOUT_S: Final = 10.0
RETRY_FIRST_S: Final = 0.2
RETRY_MAX_S: Final = 10.0
ERROR_BODY_MAX: Final = 10_000
AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Connected(msgspec.Struct, frozen=True):
    """The first frame: how many events of the standing version follow."""

    session_id: str
    standing: int


class SessionEvents(Reader):
    """A session's events at the bridge at `url`, until the session is deleted.

    A first reader, without a stored position, gets what happens from now on; with
    `standing` the answers that stand, too. Connects again until `give_up_s` seconds
    passed without a connection (None: for ever).

    Raises Refused where the bridge refuses (wrong key, no such session), Unreachable,
    MalformedPosition.
    """

    def __init__(
        self,
        url: str,
        session_id: str,
        *,
        api_key: str = "",
        wanted: Wanted | None = None,
        standing: bool = False,
        position: PositionStore | Path | str | None = None,
        give_up_s: float | None = 60.0,
        client: httpx.AsyncClient | None = None,
        seen_max: int = SEEN_MAX,
    ) -> None:
        super().__init__(position, seen_max)
        place = quote(session_id, safe="")
        self._url = f"{url.rstrip('/')}/flashfeed/v1/sessions/{place}/events"
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._wanted = wanted or Wanted()
        self._give_up_s = give_up_s
        self._client = client
        self._own_client = client is None
        self._frames: AsyncGenerator[dict[str, str], None] | None = None
        self._connected_once = False
        # Without a position what stands is old news, unless it is asked for.
        self._standing_is_known = not (standing or self._progress.resumes)

    async def _open(self) -> None:
        if self._client is None:
            timeout = httpx.Timeout(SILENCE_MAX_S, connect=CONNECT_TIMEOUT_S)
            self._client = httpx.AsyncClient(timeout=timeout)
        try:
            await self._connect()
        except BaseException:
            await self._close()
            raise

    async def _next(self) -> Event:
        while True:
            if self._frames is None:
                await self._connect()
            assert self._frames is not None
            try:
                event = self._take(await anext(self._frames))
            except (StopAsyncIteration, httpx.TransportError) as error:
                log.info("%s: the connection ended (%r)", self._url, error)
                await self._hang_up()
                continue
            if event is not None:
                return event

    def _take(self, frame: dict[str, str]) -> Event | None:
        """The event in a frame where it is to be delivered."""
        try:
            data = read_data(frame.get("event", ""), frame.get("data", ""))
        except ValueError as error:
            log.warning("%s: an event is passed over: %s", self._url, error)
            return None
        event = Event(frame.get("id", ""), data, self._url)
        if not self._progress.is_new(event.id) or not self._wanted(data):
            return None
        self._progress.deliver(event.id)
        return event

    async def _connect(self) -> None:
        """Connect, again and again; returns behind the first frame."""
        loop = asyncio.get_running_loop()
        began, wait_s = loop.time(), RETRY_FIRST_S
        while True:
            try:
                self._frames = self._stream()
                await self._read_first(await anext(self._frames))
            except Refused as error:
                self._frames = None
                if error.status == 404 and self._connected_once:
                    raise StopAsyncIteration from None  # the session was deleted
                if error.status not in AGAIN:
                    raise
                why: Exception = error
            except (httpx.TransportError, StopAsyncIteration) as error:
                await self._hang_up()
                why = error
            else:
                self._connected_once = True
                return
            if self._give_up_s is not None and loop.time() - began + wait_s > self._give_up_s:
                raise Unreachable(f"{self._url}: no connection: {why!r}") from why
            # Not all readers of a worker that comes back at the same moment.
            await asyncio.sleep(wait_s * random.uniform(0.5, 1))
            wait_s = min(2 * wait_s, RETRY_MAX_S)

    async def _read_first(self, frame: dict[str, str]) -> None:
        try:
            connected = msgspec.json.decode(frame.get("data", ""), type=_Connected)
        except msgspec.DecodeError as error:
            raise Unreachable(f"{self._url}: no flashfeed bridge answers there: {error}") from None
        if not self._standing_is_known:
            return
        assert self._frames is not None
        for _ in range(connected.standing):
            self._progress.know((await anext(self._frames)).get("id", ""))
        self._standing_is_known = False
        self._progress.save()

    async def _stream(self) -> AsyncGenerator[dict[str, str], None]:
        """The frames of one connection."""
        assert self._client is not None
        headers = {"Accept": "text/event-stream", **self._headers}
        async with self._client.stream("GET", self._url, headers=headers) as response:
            if response.status_code != 200:
                raise Refused(await _reason(response), response.status_code)
            async for frame in read_frames(response.aiter_lines()):
                yield frame

    async def _hang_up(self) -> None:
        frames, self._frames = self._frames, None
        if frames is not None:
            with contextlib.suppress(httpx.TransportError):
                await frames.aclose()

    async def _close(self) -> None:
        await self._hang_up()
        if self._own_client and self._client is not None:
            await self._client.aclose()


async def read_frames(lines: AsyncIterator[str]) -> AsyncGenerator[dict[str, str], None]:
    """Server-sent events (WHATWG HTML, 9.2.6) as their fields; several `data` lines are one."""
    fields: dict[str, str] = {}
    async for line in lines:
        if not line:
            if fields:
                yield fields
            fields = {}
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data" and "data" in fields:
            value = f"{fields['data']}\n{value}"
        if name:  # a line that begins with a colon is a comment
            fields[name] = value


async def _reason(response: httpx.Response) -> str:
    """What a refusal says, in one line."""
    text = (await response.aread())[:ERROR_BODY_MAX].decode(errors="replace")
    with contextlib.suppress(msgspec.DecodeError, KeyError, TypeError):
        text = msgspec.json.decode(text)["error"]["message"]
    return f"{response.url}: {response.status_code}: {text}"
