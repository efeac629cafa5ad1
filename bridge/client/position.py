"""Where a reader is: what it has passed on each source, and the ids it has handled.

A position is saved after an event was handled, never before. So after a crash the event
that was being handled comes again, and no other: at least once, and once wherever the
handling and `save` are one transaction of the caller's own store.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

import msgspec

from .errors import MalformedPosition

SAVE_AFTER_PASSED = 500
"""Events passed over (repeats, not wanted) before the position is saved without one handled."""


class Position(msgspec.Struct, frozen=True):
    """The next offset to read by `topic/partition`, and the ids last handled, oldest first."""

    offsets: dict[str, int] = {}
    seen: tuple[str, ...] = ()


class PositionStore(Protocol):
    """Where a position is kept. Both may raise what they like: the reader passes it on."""

    def load(self) -> Position | None:
        """What was saved last; None where nothing was."""

    def save(self, position: Position) -> None:
        """Keep it; what was kept before may go."""


class PositionFile:
    """A position in a small JSON file, replaced as a whole: a crash leaves the old one or
    the new one."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)

    def load(self) -> Position | None:
        """Read it; raises MalformedPosition where the file holds something else."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Position)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedPosition(
                f"{self._path}: expected a position, {error}; remove the file to begin anew"
            ) from None

    def save(self, position: Position) -> None:
        """Write it beside the old one and put it in its place."""
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.write_bytes(msgspec.json.encode(position))
        os.replace(fresh, self._path)


class Progress:
    """What a reader knows of its way: which events are new, and what is saved when."""

    def __init__(self, store: PositionStore | None, seen_max: int) -> None:
        if seen_max < 1:
            raise ValueError(f"expected seen_max >= 1, got {seen_max}")
        self._store = store
        self._seen_max = seen_max
        stored = store.load() if store is not None else None
        self.resumes = stored is not None
        position = stored or Position()
        self.offsets = dict(position.offsets)
        self._seen: OrderedDict[str, None] = OrderedDict.fromkeys(position.seen)
        self._at_hand: tuple[str, str, int] | None = None
        self._passed = 0

    def is_new(self, event_id: str) -> bool:
        """Whether no event of that id was handled (of the last `seen_max`)."""
        return event_id not in self._seen

    def deliver(self, event_id: str, partition: str = "", offset: int = 0) -> None:
        """An event goes to the caller; `partition` "" where the source has no offsets."""
        self._at_hand = (event_id, partition, offset)

    def passed(self, partition: str, offset: int) -> None:
        """An event was read and not delivered."""
        self.offsets[partition] = offset + 1
        self._passed += 1
        if self._passed >= SAVE_AFTER_PASSED:
            self.save()

    def handled(self) -> None:
        """The caller is done with the event it had, if any: that is saved now."""
        if self._at_hand is None:
            return
        event_id, partition, offset = self._at_hand
        self._at_hand = None
        self.know(event_id)
        if partition:
            self.offsets[partition] = offset + 1
        self.save()

    def know(self, event_id: str) -> None:
        """An id counts as handled."""
        self._seen[event_id] = None
        self._seen.move_to_end(event_id)
        while len(self._seen) > self._seen_max:
            self._seen.popitem(last=False)

    def save(self) -> None:
        """Keep what was handled and passed, where there is a store."""
        self._passed = 0
        if self._store is not None:
            self._store.save(Position(dict(self.offsets), tuple(self._seen)))
