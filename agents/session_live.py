"""A live session's candles that are not final: the window's last lines. Pure.

A record may close some of them, change them, and begin others. What comes out of it takes
the places of the lines that were open, in their order, so that each is written once and a
text between them stays where it is; what is more goes to the end. So the final lines are
those of a session that is not live.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from flashfeed.models.records import Ohlcv, Record, record_fields
from flashfeed.models.state import Item

from .session_items import Fate, Place, add_record, backwards, put_item
from .session_step import Step


def add_candles(
    step: Step,
    held: Sequence[Item],
    final: Sequence[Record],
    live: Sequence[Ohlcv],
    offset: int,
) -> list[Fate]:
    """Give the final candles and then the live ones their places in the step; `held` are the
    window's items before it, `offset` is of the message that brought them."""
    open_lines = (place for place in backwards(step, held) if place[1].live)
    # The window's last ones: what is not found among them has slid out.
    places = [*islice(open_lines, step.head.assembly.live)][::-1]
    fates = []
    for number, record in enumerate((*final, *live)):
        is_live = number >= len(final)
        item = Item("", record_fields(record), offset, live=is_live)
        if number >= len(places):
            fate = add_record(step, held, record, item)
            fates.append(Fate.SHOWN if is_live and fate is Fate.ADDED else fate)
            continue
        place, there = places[number]
        if (there.fields, there.live) == (item.fields, item.live):
            fates.append(Fate.SAME)
            continue
        put_item(step, held, Place(place, True), item)
        fates.append(Fate.SHOWN if is_live else Fate.CLOSED)
    return fates
