"""Records that wait, merged into fewer: what is kept of each type. Pure.

    candles    coarser candles: the first open, the last close, the extremes, the volumes' sum
    readings   by sensor: the last one, with min, mean and max
    vitals     the last value of each sign, with its extremes: a worst value is never averaged
               away
    positions  the last one, with the distance travelled and the highest speed
    events     by source and category: their counts' sum and the highest severity

Counts and volumes are never lost: records whose sum is more than a field takes stay apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeVar, cast

from ..models.merged import Merged
from ..models.records import VITAL_FIELDS, Event, Iot, Ohlcv, Record, Spatial, Vitals

CONSCIOUSNESS: Final = "ACVPU"
"""From alert to unresponsive."""
COUNT_MAX: Final = 2**53

_KEY_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "ohlcv": ("sym",),
    "trade": ("sym",),
    "iot": ("sid",),
    "event": ("src", "cat"),
}


class Line(NamedTuple):
    """A record that is to be a line, and of how many it is made (None: of itself)."""

    record: Record
    merged: Merged | None = None


class Group(NamedTuple):
    """Places of a sequence that become one line, which stands at the last of them."""

    places: tuple[int, ...]
    line: Line


def merge_key(record_type: str, fields: dict[str, Any]) -> Hashable:
    """What records must have in common to be merged."""
    return tuple(map(str, map(fields.get, _KEY_FIELDS.get(record_type, ()))))


def coalesce(keyed: Sequence[tuple[Hashable, Record] | None], lines_max: int) -> list[Group]:
    """Merge records into at most `lines_max` lines where that can be; in the order of the
    lines. Each comes with its key; a None is something else, which counts as a line and
    across which nothing is merged.

    Neighbours of a key are merged, as many into each line as there have to be.
    """
    runs = _runs(keyed)
    places = lines_max - sum(one is None for one in keyed)
    size = _size([len(run) for run in runs], places)
    groups = []
    for run in runs:
        for first in range(0, len(run), size):
            together = run[first : first + size]
            groups += _merged(keyed, together)
    return sorted(groups, key=lambda group: group.places[-1])


def _runs(keyed: Sequence[tuple[Hashable, Record] | None]) -> list[list[int]]:
    """The places of each key, between two of what cannot be merged."""
    done: list[list[int]] = []
    runs: dict[Hashable, list[int]] = {}
    for place, one in enumerate(keyed):
        if one is None:
            done += runs.values()
            runs = {}
        else:
            runs.setdefault(one[0], []).append(place)
    return [*done, *runs.values()]


def _size(lengths: Sequence[int], lines_max: int) -> int:
    """How many records a line has to take for all to have a place, the fewest; where there
    are more keys than places, one line for each."""
    longest = max(lengths, default=1)
    low, high = 1, longest
    while low < high:
        size = (low + high) // 2
        if sum(-(-length // size) for length in lengths) <= lines_max:
            high = size
        else:
            low = size + 1
    return low


def _merged(keyed: Sequence[tuple[Hashable, Record] | None], places: Sequence[int]) -> list[Group]:
    """One line of the records at these places, or two of its halves where that cannot be."""
    records = [one[1] for place in places if (one := keyed[place]) is not None]
    line = merge(records)
    if line is not None:
        return [Group(tuple(places), line)]
    half = len(places) // 2
    return _merged(keyed, places[:half]) + _merged(keyed, places[half:])


def merge(records: Sequence[Record]) -> Line | None:
    """One line of records of a type and key, in their order. None where their sum is more
    than the type takes."""
    if len(records) == 1:
        return Line(records[0])
    return _MERGE[type(records[0])](records)


_Kind = TypeVar("_Kind")


def _of(kind: type[_Kind], records: Sequence[Record]) -> list[_Kind]:
    assert all(isinstance(one, kind) for one in records)
    return cast(list[_Kind], list(records))


def _newest(records: Sequence[Record]) -> float | None:
    return max((one.timestamp for one in records if one.timestamp is not None), default=None)


def _candles(records: Sequence[Record]) -> Line | None:
    candles = _of(Ohlcv, records)
    # Summed in order: fsum raises where an intermediate sum is too large.
    volume = sum(one.v for one in candles)
    if not math.isfinite(volume):
        return None
    whole = Ohlcv(
        o=candles[0].o,
        h=max(one.h for one in candles),
        l=min(one.l for one in candles),
        c=candles[-1].c,
        v=volume,
        sym=candles[-1].sym,
        timestamp=candles[0].timestamp,
    )
    return Line(whole, Merged(len(candles), _newest(records)))


def _readings(records: Sequence[Record]) -> Line:
    values = [one.val for one in _of(Iot, records)]
    least, most = min(values), max(values)
    # Each share by itself: the sum of two large values may be too large.
    mean = math.fsum(value / len(values) for value in values)
    return Line(
        records[-1],
        Merged(
            len(values),
            _newest(records),
            {"val": least},
            {"val": most},
            min(max(mean, least), most),
        ),
    )


def _vitals(records: Sequence[Record]) -> Line:
    sets = _of(Vitals, records)
    last: dict[str, Any] = {}
    least: dict[str, float] = {}
    most: dict[str, float] = {}
    worst = ""
    for one in sets:
        for name in VITAL_FIELDS:
            value = getattr(one, name)
            if value is None:
                continue
            last[name] = value
            if name == "avpu":
                worst = max(worst or value, value, key=CONSCIOUSNESS.index)
            else:
                least[name] = min(least.get(name, value), value)
                most[name] = max(most.get(name, value), value)
    newest = _newest(records)
    merged = Merged(len(sets), newest, least, most, worst=worst)
    return Line(Vitals(**last, timestamp=newest), merged)


def _positions(records: Sequence[Record]) -> Line | None:
    positions = _of(Spatial, records)
    path = sum(math.dist((a.x, a.y, a.z), (b.x, b.y, b.z)) for a, b in pairwise(positions))
    if not math.isfinite(path):
        return None
    most = {"spd": max(one.spd for one in positions)}
    return Line(positions[-1], Merged(len(positions), _newest(records), {}, most, path=path))


def _events(records: Sequence[Record]) -> Line | None:
    events = _of(Event, records)
    count = sum(one.cnt for one in events)
    if abs(count) > COUNT_MAX:
        return None
    last = events[-1]
    whole = Event(
        src=last.src,
        sev=max(one.sev for one in events),
        cat=last.cat,
        cnt=count,
        timestamp=_newest(records),
    )
    return Line(whole, Merged(len(events), whole.timestamp))


_MERGE: Final[dict[type[Record], Callable[[Sequence[Record]], Line | None]]] = {
    Ohlcv: _candles,
    Iot: _readings,
    Vitals: _vitals,
    Spatial: _positions,
    Event: _events,
}
