"""Which partitions stand still though they have records, told apart by why. Pure.

silent   nothing that was handed out waits to be done, the broker has records behind the
         position, and none of them comes: the fetching stopped
held     what was handed out is not done: the engine is behind, or a feed waits for a schema.
         That is slow, not stuck, and goes on by itself
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, NamedTuple, TypeVar

Place = TypeVar("Place", bound=Hashable)


class Seen(NamedTuple):
    """A partition now: the offset that is fetched next (None: nobody knows), the one behind
    the broker's last record, and the first that is handed out and not done, if any."""

    position: int | None
    end: int
    undone: int | None

    @property
    def silent_at(self) -> int | None:
        """Where it would be silent, if it stayed there; -1 at no offset, None nowhere."""
        if self.undone is not None:
            return None
        if self.position is None:
            return -1 if self.end else None
        return self.position if self.end > self.position else None


class StallDetector(Generic[Place]):
    """Told what is seen, says what stands still for `after_s`. It knows no clock: each look
    brings the time."""

    def __init__(self, after_s: float) -> None:
        self._silent: _Still[Place] = _Still(after_s)
        self._held: _Still[Place] = _Still(after_s)

    @property
    def silent(self) -> frozenset[Place]:
        """What was found silent and did not move since."""
        return frozenset(self._silent.found)

    @property
    def held(self) -> frozenset[Place]:
        """What was found held and did not move since."""
        return frozenset(self._held.found)

    def look(self, now_s: float, seen: Mapping[Place, Seen]) -> tuple[list[Place], list[Place]]:
        """What is silent, said again after as long where a heal did not help; and what came
        to be held. What is not seen any more (revoked) is forgotten."""
        before = self.held
        silent = self._silent.look(now_s, {place: one.silent_at for place, one in seen.items()})
        held = self._held.look(now_s, {place: one.undone for place, one in seen.items()})
        return silent, [place for place in held if place not in before]


class _Still(Generic[Place]):
    """Which places have stood at the same offset for `after_s`."""

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._since: dict[Place, tuple[int, float]] = {}
        self.found: set[Place] = set()

    def look(self, now_s: float, at: Mapping[Place, int | None]) -> list[Place]:
        due = []
        for place in self._since.keys() | at.keys():
            offset = at.get(place)
            known = self._since.get(place)
            if offset is None:
                self._since.pop(place, None)
                self.found.discard(place)
            elif known is None or known[0] != offset:
                self._since[place] = (offset, now_s)
                self.found.discard(place)
            elif now_s - known[1] >= self._after_s:
                self._since[place] = (offset, now_s)
                self.found.add(place)
                due.append(place)
        return due
