"""Outcome rules over a session's own window: which answers have their labels now. Pure.

What has slid out of the window cannot be asked any more, and the label is unknown. A candle
that is not final is not there yet; readings that were merged into one line are one record.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

from flashfeed.heads.outcome_expression import Course
from flashfeed.heads.outcome_rule import OutcomeRule
from flashfeed.models.errors import ConfigError, RequestError
from flashfeed.models.learning import Waits
from flashfeed.models.records import Record, StreamType, make_record
from flashfeed.models.session import FlashQuery
from flashfeed.models.state import Head, Item

TEXTS_MAX: Final = 64
"""So many items that are no records may stand among those that a rule looks back at."""


@lru_cache(maxsize=256)
def rule_of(query: FlashQuery, stream_type: StreamType) -> OutcomeRule:
    """The question's compiled rule. Raises RequestError where it is none."""
    assert query.outcome is not None
    try:
        return OutcomeRule(query.outcome.after, query.outcome.label, stream_type, query.choices)
    except ConfigError as error:
        raise RequestError(str(error)) from None


class Window:
    """The records of the session's window by their places, read from the newest back as far as
    they are asked for."""

    def __init__(self, head: Head, newest_first: Iterable[Item]) -> None:
        self._type = head.spec.type
        places = range(head.written - 1, -1, -1)
        limited = islice(newest_first, head.items)
        self._items: Iterator[tuple[int, Item]] = zip(places, limited, strict=False)
        self._places: deque[int] = deque()
        self._records: deque[Record] = deque()
        self._read_to = head.written

    def newest(self) -> tuple[int, float | None]:
        """The place of the newest record, and its event time; -1 where there is none."""
        while not self._places and self._read_one():
            pass
        if not self._places:
            return -1, None
        return self._places[-1], self._records[-1].timestamp

    def since(self, place: int, before: int) -> tuple[list[int], list[Record]]:
        """The records from a place on and so many before it, and their places."""
        last = place - before - TEXTS_MAX
        while self._read_to > place or (
            self._read_to > last and bisect_left(self._places, place) < before
        ):
            if not self._read_one():
                break
        return list(self._places), list(self._records)

    def _read_one(self) -> bool:
        place, item = next(self._items, (-1, None))
        if item is None:
            return False
        self._read_to = place
        if item.fields is not None and not item.live:
            self._places.appendleft(place)
            self._records.appendleft(make_record(self._type, item.fields))
        return True


def due(
    rule: OutcomeRule, waiting: Iterable[Waits], window: Window
) -> Iterator[tuple[Waits, int | None]]:
    """The answers whose outcomes are known now, in their order, with the choice (None: cannot
    be known)."""
    newest, time = window.newest()
    records: list[Record] | None = None
    for waits in waiting:
        if waits.place < 0:
            continue
        if rule.records is not None and newest - waits.place < rule.records:
            return
        if rule.records is None and (
            waits.time is not None and (time is None or time < waits.time + rule.seconds)
        ):
            continue  # one clock that was ahead holds up no answer but its own
        if records is None:  # the oldest one reaches back furthest
            places, records = window.since(waits.place, rule.rule.earliest)
        answered = _place_of(waits, places, records)
        if answered is None:
            yield waits, None
            continue
        end = rule.end_of(records, answered)
        if end is None:
            continue
        yield waits, None if end < 0 else rule.rule.label(Course(records, answered, end))


def _place_of(waits: Waits, places: Sequence[int], records: Sequence[Record]) -> int | None:
    """Where the answered record stands. One that came late may have pushed it on."""
    at = bisect_left(places, waits.place)
    if at == len(places) or places[0] > waits.place:
        return None
    return next((n for n in range(at, len(records)) if records[n].timestamp == waits.time), None)
