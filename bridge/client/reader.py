"""What every reader is: an iterator of events, sync or async, that delivers each once.

Asking for the next event says that the one before is handled. Whoever leaves the loop
in the middle of an event gets that event again, unless `handled()` was called.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from .errors import ClientError
from .event import Event
from .position import PositionFile, PositionStore, Progress

SEEN_MAX = 1000

T = TypeVar("T")


class Reader(ABC):
    """Events from one source. Use it with `with` and `for`, or `async with` and `async for`;
    one reader is one loop's, and is opened once."""

    def __init__(self, position: PositionStore | Path | str | None, seen_max: int) -> None:
        store = PositionFile(position) if isinstance(position, str | Path) else position
        self._progress = Progress(store, seen_max)
        self._loop: asyncio.AbstractEventLoop | None = None

    @abstractmethod
    async def _open(self) -> None:
        """Connect."""

    @abstractmethod
    async def _next(self) -> Event:
        """The next event that is new and wanted; StopAsyncIteration where there is no more."""

    @abstractmethod
    async def _close(self) -> None:
        """Disconnect."""

    def handled(self) -> None:
        """The last event is handled: the position is saved now, not with the next event."""
        self._progress.handled()

    # -- async ----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            self._progress.save()
        finally:
            await self._close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        self._progress.handled()
        return await self._next()

    # -- sync: a loop of its own, which runs while the caller waits ---------------------

    def __enter__(self) -> Self:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._loop = asyncio.new_event_loop()
        else:
            raise ClientError("an event loop runs here already: use `async with` and `async for`")
        try:
            self._run(self.__aenter__())
        except BaseException:
            self._end_loop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._run(self.__aexit__())
        finally:
            self._end_loop()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        try:
            return self._run(self.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise ClientError("the reader is not open: use it in a `with` block")
        task = self._loop.create_task(work)
        try:
            return self._loop.run_until_complete(task)
        except BaseException:
            if not task.done():  # Ctrl-C: the work must not go on behind the caller's back
                task.cancel()
                self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            raise

    def _end_loop(self) -> None:
        if self._loop is not None:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
            self._loop = None
