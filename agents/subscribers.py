"""Who listens to a session's events in this process, each behind a queue of its own.

A reader that falls behind by a whole queue is let go: it may subscribe again. Nobody
waits for a reader (invariant 6).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from flashfeed.models.views import SessionEvent

EVENTS_MAX = 1000

_Queue: TypeAlias = asyncio.Queue[SessionEvent | None]


class Subscribers:
    """The queues of every session's readers. None in a queue is its end."""

    def __init__(self) -> None:
        self._queues: defaultdict[str, set[_Queue]] = defaultdict(set)

    @contextmanager
    def reader(self, session_id: str) -> Iterator[AsyncIterator[SessionEvent]]:
        """The session's events from now on, in order, for the time of the block."""
        queue: _Queue = asyncio.Queue(EVENTS_MAX)
        self._queues[session_id].add(queue)
        try:
            yield _drain(queue)
        finally:
            readers = self._queues.get(session_id)
            if readers is not None:
                readers.discard(queue)
                if not readers:
                    del self._queues[session_id]

    def publish(self, event: SessionEvent) -> int:
        """Pass an event to who reads its session; returns how many readers it let go."""
        return sum(_offer(queue, event) for queue in self._queues.get(event.session_id, set()))

    def end(self, gone: Callable[[str], bool]) -> None:
        """End the readers of every session of which `gone` says that it is no more here."""
        for session_id in [one for one in self._queues if gone(one)]:
            for queue in self._queues.pop(session_id):
                _offer(queue, None)


def _offer(queue: _Queue, event: SessionEvent | None) -> bool:
    """Put without waiting; a reader that fell behind by the whole queue is let go: True."""
    full = queue.full()
    if full:
        while not queue.empty():
            queue.get_nowait()
    queue.put_nowait(None if full else event)
    return full


async def _drain(queue: _Queue) -> AsyncIterator[SessionEvent]:
    while (event := await queue.get()) is not None:
        yield event
