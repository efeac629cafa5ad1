"""What `flashfeed.records` says of dead letters' records: which of them sessions took after
all. Pure.

A letter's record may have come to its session meanwhile: by a replay, or because the feed was
read again after its mapping was mended. Its session's watermark does not tell, since it is
past the record either way. The history does: folded as the session folds it, from before the
letter was written. A record that the session then refused has a newer letter, which says so.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from flashfeed.models.errors import DecodeFault
from flashfeed.models.messages import Delete, Records, decode_message

from .letters import Letter


class Position(NamedTuple):
    """A part of a source record, and the session (by its key) that it is for."""

    session: str
    topic: str
    partition: int
    offset: int
    part: int

    @property
    def record(self) -> tuple[str, int, int, int]:
        """Of which record, whoever it is for."""
        return self[1:]


class Taken:
    """Which of the wanted positions went into their sessions, message by message."""

    def __init__(self, wanted: Collection[Position]) -> None:
        self._wanted = frozenset(wanted)
        self._sessions = {one.session.encode() for one in wanted}
        self._marks: dict[tuple[bytes, str, int], tuple[int, int]] = {}
        self._newest: dict[bytes, int] = {}
        self.tries: dict[Position, int] = {}
        """By position how often it was replayed when it last went in; 0: by its feed."""

    def take(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        """Note one message of `flashfeed.records`, in its partition's order."""
        if key is None or key not in self._sessions:
            return
        try:
            message = decode_message(value)
        except DecodeFault:
            return
        newest, self._newest[key] = self._newest.get(key, -1), offset
        if isinstance(message, Delete):
            if message.idle_since is None or newest <= message.idle_since:
                self._marks = {mark: at for mark, at in self._marks.items() if mark[0] != key}
            return
        if not isinstance(message, Records) or not message.topic:
            return
        mark = (key, message.topic, message.partition)
        for one in message.records:
            at = (one.offset, one.index)
            if not message.replays:
                if at <= self._marks.get(mark, (-1, -1)):
                    continue  # the session dropped it as a repeat
                self._marks[mark] = at
            position = Position(key.decode(), message.topic, message.partition, *at)
            if position in self._wanted:
                self.tries[position] = max(message.replays, self.tries.get(position, 0))

    def applied(self, letters: Collection[Letter]) -> set[Position]:
        """Those that sessions have: what went in, but for what a session refused, of which
        there is a letter among `letters` (all there are)."""
        refused: dict[tuple[str, int, int, int], int] = {}
        for one in letters:
            if one.from_session and one.part is not None:
                record = (*one.place, one.part)
                refused[record] = max(one.replays, refused.get(record, 0))
        return {
            position
            for position, tries in self.tries.items()
            if refused.get(position.record, -1) < tries
        }
