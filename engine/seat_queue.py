"""Who waits for a seat, and what each of them may take now.

They are served in the order in which they came, but one that cannot be served now does not
hold up those behind it. So that it is not overtaken for ever, they take nothing that it could
use once it has waited for `_OVERTAKEN_S`: neither memory nor the seats of idle sessions, only
a seat that is free in a context of another kind, with as many left as stand before them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .seats import Kind

_OVERTAKEN_S: Final = 2.0
_LOOK_AGAIN_S: Final = 0.1


@dataclass(eq=False)
class Waiting:
    """A session that waits for a seat of a kind, since when (time.monotonic()); `looked` and
    `saw`: when it looked last whether there is one, and what had changed until then."""

    kind: Kind
    since: float
    looked: float = 0.0
    saw: int = -1


@dataclass(frozen=True)
class Turn:
    """What one may take: a seat that is free, if so many more are (`leaves`); and `any_seat`,
    for which a context is made or sessions are evicted."""

    leaves: int
    any_seat: bool


class SeatQueue:
    """The sessions that wait for a seat; the engine's thread only."""

    def __init__(self) -> None:
        self._waiting: Final[list[Waiting]] = []
        self._changes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, kind: Kind, now: float) -> Waiting:
        """One more, behind all others."""
        waiting = Waiting(kind, now)
        self._waiting.append(waiting)
        return waiting

    def leave(self, waiting: Waiting) -> None:
        """It waits no longer, with a seat or without."""
        self._waiting.remove(waiting)
        self.changed()

    def changed(self) -> None:
        """A job ended: a seat may have become free, or a session idle."""
        self._changes += 1

    def turn(self, waiting: Waiting, now: float) -> Turn | None:
        """What it may take now; None where it stands behind one of its kind, or where it
        looked before and nothing happened since."""
        ahead = list(self._ahead(waiting))
        if any(one.kind == waiting.kind for one in ahead):
            return None
        # What ends outside of this thread, an idle model's unloading say, tells nobody here.
        if waiting.saw == self._changes and now - waiting.looked < _LOOK_AGAIN_S:
            return None
        waiting.saw, waiting.looked = self._changes, now
        return Turn(len(ahead), all(now - one.since < _OVERTAKEN_S for one in ahead))

    def _ahead(self, waiting: Waiting) -> Iterator[Waiting]:
        for one in self._waiting:
            if one is waiting:
                return
            yield one
