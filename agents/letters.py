"""Dead letters as they lie on their topic: read back, told apart, chosen. Pure."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from .dead_letters import ALWAYS

OURS = "flashfeed_"

Place = tuple[str, int, int]
"""A source record: topic, partition, offset."""


class Letter(NamedTuple):
    """A dead letter, and where it lies. `part` is the part of the message that was at fault,
    None where it was the whole; `replays` is how often it was replayed before."""

    number: tuple[int, int]
    written_ms: int
    topic: str
    partition: int
    offset: int
    part: int | None
    reason: str
    path: str
    detail: str
    where: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    cut: bool
    timestamp_ms: int
    feed: str
    type: str
    template: str
    replays: int

    @property
    def id(self) -> str:
        """The letter's name for a person: partition and offset on its own topic."""
        return f"{self.number[0]}:{self.number[1]}"

    @property
    def place(self) -> Place:
        """The source record that it is of."""
        return self.topic, self.partition, self.offset

    @property
    def order(self) -> tuple[int, int, Place, int, tuple[int, int]]:
        """Its place among others: by time, what one fetch gave in its source's order."""
        part = -1 if self.part is None else self.part
        return self.written_ms, self.replays, self.place, part, self.number

    @property
    def from_session(self) -> bool:
        """Whether a session refused it: its value is what was mapped, not the original."""
        return self.where.startswith("session ") and bool(self.type)

    @property
    def bare(self) -> Letter:
        """The letter without the bytes of its record."""
        return self._replace(key=None, value=None, headers=())


def read_letter(raw: Any) -> Letter | None:
    """The letter in a record of the dead-letter topic; None where it is none."""
    ours = {
        name.removeprefix(OURS): (value or b"").decode(errors="replace")
        for name, value in raw.headers
        if name.startswith(OURS)
    }
    if any(name not in ours for name in ALWAYS):
        return None
    try:
        numbers = [int(ours[name]) for name in ("partition", "offset")]
        part = int(ours["index"]) if "index" in ours else None
        timestamp_ms, replays = (int(ours.get(name, 0)) for name in ("timestamp_ms", "replays"))
    except ValueError:
        return None
    where = ours["where"]
    feed = ours.get("feed") or where.removeprefix("feed ") * where.startswith("feed ")
    return Letter(
        (raw.partition, int(raw.offset)),
        raw.timestamp or 0,
        ours["topic"],
        numbers[0],
        numbers[1],
        part,
        ours["reason"],
        ours["path"],
        ours["detail"],
        where,
        raw.key,
        raw.value,
        tuple((name, value) for name, value in raw.headers if not name.startswith(OURS)),
        not {"cut_from_bytes", "left_out_bytes"}.isdisjoint(ours),
        timestamp_ms,
        feed,
        ours.get("type", ""),
        ours.get("template", ""),
        replays,
    )


@dataclass(frozen=True)
class Chosen:
    """Which letters are meant; what is empty leaves all through. Times of writing, in
    milliseconds since 1970: from `since_ms` to before `until_ms`."""

    ids: frozenset[str] = frozenset()
    feed: str = ""
    reason: str = ""
    topic: str = ""
    since_ms: int = 0
    until_ms: int = sys.maxsize

    def __contains__(self, letter: object) -> bool:
        """Whether the letter is meant."""
        assert isinstance(letter, Letter)
        return (
            (not self.ids or letter.id in self.ids)
            and self.feed in ("", letter.feed)
            and self.reason in ("", letter.reason)
            and self.topic in ("", letter.topic)
            and self.since_ms <= letter.written_ms < self.until_ms
        )


def newest_of_each(letters: Iterable[Letter]) -> list[Letter]:
    """One letter of each source record's part, the newest: a letter is written again after a
    crash, and after a replay that failed. Oldest first. Letters without an origin (records
    that were pushed) stand for themselves."""
    newest: dict[Any, Letter] = {}
    for one in sorted(letters, key=lambda one: one.order):
        known: Any = (*one.place, one.part) if one.topic else one.number
        newest.pop(known, None)
        newest[known] = one
    return list(newest.values())
