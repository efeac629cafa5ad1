"""A record's place in a session's window: at the end, in place of another, or nowhere. Pure.

A candle is known by its symbol and its start. The same one again with the same values is a
duplicate; with other values it is a correction and takes the place of the first; one that
was missing comes where it belongs; one that is older than all that the window holds of its
symbol is late, and so is one within a candle that was merged. Whatever stands after such a
place is written again, because a line may refer to those before it in its block: the step
rewinds the window by so many items first. Bars that are complete by the number or size of
their trades have no start of their own: they are known by nothing, and follow one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import chain, islice
from operator import itemgetter
from typing import NamedTuple

from flashfeed.codecs.coalesce import Group, coalesce, merge_key
from flashfeed.codecs.text import TextCodec
from flashfeed.codecs.text_facts import with_sums_of, without_sums
from flashfeed.codecs.text_live import live_line
from flashfeed.codecs.text_merged import render_line
from flashfeed.models.records import Ohlcv, Record, make_record, record_fields
from flashfeed.models.state import Item
from flashfeed.models.window import block_start, window_length

from .session_step import MERGED_LINES_MAX, LastRecord, Step, last_of


class Fate(Enum):
    """What became of a record."""

    ADDED = "added"
    SHOWN = "shown"
    CLOSED = "closed"
    SAME = "same"
    CORRECTED = "corrected"
    DUPLICATE = "duplicate"
    LATE = "late"


MOVING = frozenset({Fate.ADDED, Fate.SHOWN, Fate.CLOSED, Fate.CORRECTED})
"""After these the window is another."""


class Place(NamedTuple):
    """The item that a record becomes, counted from the window's first, and whether it takes
    the place of the one that stands there."""

    number: int
    replaces: bool


def add_record(step: Step, held: Sequence[Item], record: Record, item: Item) -> Fate:
    """Give the record its place in the step; `held` are the window's items before the step,
    `item` has its fields and its offset. Its line comes last (`write_lines`)."""
    if _is_next(step, record):
        step.items.append(item)
        return Fate.ADDED
    place = _place(step, held, record)
    if isinstance(place, Fate):
        return place
    if place.number == len(held) - step.rewind + len(step.items):
        step.items.append(item)
        return Fate.ADDED
    put_item(step, held, place, item)
    return Fate.CORRECTED


def put_item(step: Step, held: Sequence[Item], place: Place, item: Item) -> None:
    """Put an item in its place; what stands after it is to be written again."""
    kept = len(held) - step.rewind
    if place.number < kept:
        step.items = [*islice(held, place.number, kept), *step.items]
        step.rewind = len(held) - place.number
        kept = place.number
    at = place.number - kept
    step.items[at : at + place.replaces] = [item]


def _is_next(step: Step, record: Record) -> bool:
    """Whether the record is a candle that follows on the step's newest one: the usual case,
    told without a look at the window."""
    if not step.items or not isinstance(record, Ohlcv):
        return False
    newest = step.items[-1]
    if newest.fields is None or newest.merged is not None or record.timestamp is None:
        return False
    start = newest.fields.get("timestamp")
    return (
        start is not None
        and start < record.timestamp
        and bool(newest.fields.get("sym") == record.sym)
    )


def write_lines(step: Step, held: Sequence[Item], codec: TextCodec) -> None:
    """The lines of the step's items, those that the window holds after it: what slides out
    in the same step is never read."""
    window, stream_type = step.head.window, step.head.spec.type
    first = step.head.count - step.rewind
    length = window_length(window, first + len(step.items))
    at = max(0, len(step.items) - length)
    last = step.last if not (step.rewind or at) else _last_before(step, held, codec, at)
    block = block_start(window, first + at)
    memory = last.memory if last is not None and last.number >= block else None
    lines: list[Item] = []
    render, remember = codec.render, codec.remember
    record, newest = None, -1
    for number, item in enumerate(islice(step.items, at, None), start=first + at):
        if block != (begins := block_start(window, number)):
            block, memory = begins, None
        fields = item.fields
        if fields is None:
            lines.append(item)
            continue
        record = make_record(stream_type, fields)
        if item.whole:
            line = render(record, memory)
            memory = remember(memory, record)
        else:
            line = render_line(codec, record, without_sums(memory), item.merged)
            memory = with_sums_of(memory, remember(memory, record))
        if item.live:
            line = live_line(line)
        lines.append(Item(line.removesuffix("\n"), fields, item.offset, item.merged, item.live))
        newest = number
    step.items[at:] = lines
    step.last = LastRecord(record, newest, memory) if record is not None else last


def merge_items(step: Step, since: int) -> None:
    """Merge what came with offsets from `since` on into as many items as the window and
    MERGED_LINES_MAX allow, where it is more."""
    spec = step.head.spec
    window = step.head.window
    lines_max = MERGED_LINES_MAX if window.mode == "grow" else min(MERGED_LINES_MAX, window.items)
    # Those before the last older one are corrections, each in its place.
    first = next(
        (place for place in range(len(step.items), 0, -1) if step.items[place - 1].offset < since),
        0,
    )
    came = step.items[first:]
    if len(came) > lines_max:
        keyed = [
            (merge_key(spec.type, item.fields), make_record(spec.type, item.fields))
            if item.fields is not None
            else None
            for item in came
        ]
        lines = [
            (group.places[-1], _merged_item(came, group)) for group in coalesce(keyed, lines_max)
        ]
        texts = [(place, item) for place, item in enumerate(came) if item.fields is None]
        step.items[first:] = [item for _, item in sorted([*lines, *texts], key=itemgetter(0))]
        step.coalesced += sum(item.merged.n for _, item in lines if item.merged is not None)


def _merged_item(came: Sequence[Item], group: Group) -> Item:
    if group.line.merged is None:
        return came[group.places[-1]]
    newest = max(came[place].offset for place in group.places)
    return Item("", record_fields(group.line.record), newest, group.line.merged)


def _place(step: Step, held: Sequence[Item], record: Record) -> Place | Fate:
    total = len(held) - step.rewind + len(step.items)
    if not isinstance(record, Ohlcv) or record.timestamp is None or _bars_share_starts(step):
        return Place(total, False)
    place = total
    for index, item in backwards(step, held):
        fields = item.fields
        if fields is None or fields.get("sym") != record.sym:
            continue
        start = fields.get("timestamp")
        until = item.merged.until if item.merged is not None else None
        if start is not None and until is not None and start <= record.timestamp <= until:
            return Fate.LATE  # it is merged with others, or should have been
        if start is None or start < record.timestamp:
            return Place(place, False)
        if start == record.timestamp:
            same = not item.live and make_record("ohlcv", fields) == record
            return Fate.DUPLICATE if same else Place(index, True)
        place = index
    return Place(total, False) if place == total else Fate.LATE


def _bars_share_starts(step: Step) -> bool:
    """Whether the session makes bars of trades by their number or size: two that follow one
    another may begin at the same moment, and each comes once and in order."""
    bars = step.head.spec.bars
    return bars is not None and bars.by != "time"


def backwards(step: Step, held: Sequence[Item]) -> Iterator[tuple[int, Item]]:
    """The window's items as the step leaves them, the newest first, each with its place."""
    total = len(held) - step.rewind + len(step.items)
    items = chain(reversed(step.items), islice(reversed(held), step.rewind, None))
    return ((total - back, item) for back, item in enumerate(items, start=1))


def _last_before(step: Step, held: Sequence[Item], codec: TextCodec, at: int) -> LastRecord | None:
    """The newest record before the step's item `at` in the same block."""
    number = step.head.count - step.rewind + at
    before = chain(reversed(step.items[:at]), islice(reversed(held), step.rewind, None))
    block = [*islice(before, number - block_start(step.head.window, number))][::-1]
    return last_of(codec, step.head.spec.type, block, number)
