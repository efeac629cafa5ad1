"""A record's place in a session's window: at the end, in place of another, or nowhere. Pure.

A candle is known by its symbol and its start. The same one again with the same values is a
duplicate; with other values it is a correction and takes the place of the first; one that
was missing comes where it belongs; one that is older than all that the window holds of its
symbol is late. Whatever stands after such a place is written again, because a line may
refer to the one before it: the step rewinds the window by so many items first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import chain, islice
from typing import NamedTuple

from flashfeed.codecs.text import TextCodec
from flashfeed.models.records import Ohlcv, Record, make_record
from flashfeed.models.state import Item
from flashfeed.models.window import block_start

from .session_step import LastRecord, Step


class Fate(Enum):
    """What became of a record."""

    ADDED = "added"
    CORRECTED = "corrected"
    DUPLICATE = "duplicate"
    LATE = "late"


class _Place(NamedTuple):
    """The item that a record becomes, counted from the window's first, and whether it takes
    the place of the one that stands there."""

    number: int
    replaces: bool


def add_record(
    step: Step, held: Sequence[Item], codec: TextCodec, record: Record, item: Item
) -> Fate:
    """Give the record its place in the step; `held` are the window's items before the step,
    `item` has its fields and its offset. Raises RecordError where its line cannot be written.
    """
    place = _place(step, held, record)
    if isinstance(place, Fate):
        return place
    kept = len(held) - step.rewind
    if place.number == kept + len(step.items):
        step.items.append(item)
        _write_lines(step, codec, len(step.items) - 1, step.last)
        return Fate.ADDED
    if place.number < kept:
        step.items = [*islice(held, place.number, kept), *step.items]
        step.rewind = len(held) - place.number
        kept = place.number
    at = place.number - kept
    step.items[at : at + place.replaces] = [item]
    _write_lines(step, codec, at, _last_before(step, held, at))
    return Fate.CORRECTED


def _place(step: Step, held: Sequence[Item], record: Record) -> _Place | Fate:
    total = len(held) - step.rewind + len(step.items)
    if not isinstance(record, Ohlcv) or record.timestamp is None:
        return _Place(total, False)
    place = total
    for index, item in _backwards(step, held, total):
        fields = item.fields
        if fields is None or fields.get("sym") != record.sym:
            continue
        start = fields.get("timestamp")
        if start is None or start < record.timestamp:
            return _Place(place, False)
        if start == record.timestamp:
            same = make_record("ohlcv", fields) == record
            return Fate.DUPLICATE if same else _Place(index, True)
        place = index
    return _Place(total, False) if place == total else Fate.LATE


def _backwards(step: Step, held: Sequence[Item], total: int) -> Iterator[tuple[int, Item]]:
    """The window's items as the step leaves them, the newest first, each with its place."""
    items = chain(reversed(step.items), islice(reversed(held), step.rewind, None))
    return ((total - back, item) for back, item in enumerate(items, start=1))


def _last_before(step: Step, held: Sequence[Item], at: int) -> LastRecord | None:
    """The newest record before the step's item `at`."""
    first = step.head.count - step.rewind
    before = chain(reversed(step.items[:at]), islice(reversed(held), step.rewind, None))
    for back, item in enumerate(before, start=1):
        if item.fields is not None:
            return LastRecord(make_record(step.head.spec.type, item.fields), first + at - back)
    return None


def _write_lines(step: Step, codec: TextCodec, at: int, last: LastRecord | None) -> None:
    """The lines of the step's items from `at` on; `last` is the newest record before them."""
    first = step.head.count - step.rewind
    lines: list[Item] = []
    for number, item in enumerate(step.items[at:], start=first + at):
        if item.fields is None:
            lines.append(item)
            continue
        record = make_record(step.head.spec.type, item.fields)
        begins = block_start(step.head.window, number)
        before = last.record if last is not None and last.number >= begins else None
        line = codec.render(record, before).removesuffix("\n")
        lines.append(Item(line, item.fields, item.offset))
        last = LastRecord(record, number)
    step.items[at:] = lines
    step.last = last
