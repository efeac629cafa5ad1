"""The deleted sessions of a partition, for as long as a message of theirs may come again.

What a session has done its head knows; of a deleted one there is none. Without a grave, what is
read again before the partition's committed offset (another session there takes long, a worker
joins) would make the session anew and publish its versions once more, and a `delete` that is
written again by the control topic's next owner would end the session's next life.

A grave is erased KEEP_S after everything before it in its partition was settled: the offset is
long committed then, and so is the control topic's, whose owner commits as often. Time counts
while a worker looks on: where all are away nobody makes the session anew.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from flashfeed.models.state import Grave, grave_key

from .kafka_writer import Write

KEEP_S = 600.0
ERASED_MAX = 64
"""With one step: a feed may end its sessions by the thousand."""


class Graves:
    """The graves of one partition, in the order of their offsets. Holds no more than were deleted
    in KEEP_S, and since the partition's oldest message that is not settled."""

    def __init__(
        self, graves: Iterable[Grave] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        in_order = sorted(graves, key=lambda grave: grave.records_offset)
        self._graves = {grave.session_id: grave for grave in in_order}
        self._waiting = deque(in_order)
        self._passed: deque[tuple[float, Grave]] = deque()

    def of(self, session_id: str) -> Grave | None:
        """What is left of the session; None where it never was, or ended long ago."""
        return self._graves.get(session_id)

    def bury(self, grave: Grave) -> None:
        """A session was deleted."""
        self._graves[grave.session_id] = grave
        self._waiting.append(grave)

    def settled(self, before: int) -> None:
        """All of the partition's messages before that offset are settled."""
        while self._waiting and self._waiting[0].records_offset < before:
            self._passed.append((self._clock(), self._waiting.popleft()))

    def erased(self) -> list[str]:
        """The sessions whose graves go now, some at a time: to be written with the next step."""
        gone: list[str] = []
        until = self._clock() - KEEP_S
        while self._passed and self._passed[0][0] <= until and len(gone) < ERASED_MAX:
            _, grave = self._passed.popleft()
            if self._graves.get(grave.session_id) is grave:  # else it was deleted once more
                del self._graves[grave.session_id]
                gone.append(grave.session_id)
        return gone


def grave_erasures(topic: str, partition: int, sessions: Iterable[str]) -> list[Write]:
    """What takes graves out of the changelog."""
    return [Write(topic, grave_key(one), None, partition=partition) for one in sessions]
