"""What code computes of a record for a line: changes, streaks, levels, limits, the band.

All of it follows from the record and from the records before it in its block
(models/window.py), of the same symbol or sensor where the type has one. A fact that is not
there (no record before, no limit) is None.

    change      against the record before: percent of a candle's close, else the difference
    direction   up, down or same against the record before
    level       high or low: above the mean of the block's earlier values or not
    streak      how many times in a row it rose (3) or fell (-3) up to here; 0 it did neither
    zscore      (value - mean) / standard deviation of the block's earlier values, of which
                there must be ZSCORE_VALUES_MIN, not all the same; mean and deviation are
                kept as Welford (Technometrics 4, 1962) has it
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import msgspec

from ..models.records import Iot, Ohlcv, Record, Spatial, StreamType, Vitals
from .early_warning import early_warning

NAMES_MAX: Final = 64
"""So many symbols or sensors are remembered, those that came last."""
ZSCORE_VALUES_MIN: Final = 5
_DEVIATION_MIN: Final = 1e-9
_CHANGE_MAX: Final = 1e9
NONE_MISSING: Final = "none"

_MEASURED: Final[dict[str, dict[str, str]]] = {
    "ohlcv": {"c": "", "v": "v_", "range": "range_"},
    "iot": {"val": ""},
    "vitals": {name: f"{name}_" for name in ("hr", "bp_s", "bp_d", "spo2", "temp", "rr", "o2")},
    "spatial": {"spd": "spd_"},
    "event": {"sev": "sev_", "cnt": "cnt_"},
}
_NAMED_BY: Final = {"ohlcv": "sym", "iot": "sid"}
_SUMMED: Final = frozenset({"v", "range", "cnt"})
"""Of these a record has the more the longer its time is: of several merged into one, or of one
that is not over, they cannot be held against those of others."""
SECTORS: Final = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
UP, DOWN, SAME = "up", "down", "same"
HIGH, LOW = "high", "low"


def percent(value: float, before: float) -> float | None:
    """The change in percent against the value before, where that says something."""
    if before <= 0:
        return None
    change = (value - before) / before * 100
    return change if abs(change) < _CHANGE_MAX else None


class Course(msgspec.Struct, frozen=True, gc=False):
    """How a measured field went through the block up to here."""

    value: float
    streak: int = 0
    count: int = 1
    mean: float = 0.0
    squares: float = 0.0

    def then(self, value: float) -> Course:
        """The course with one more value."""
        count = self.count + 1
        off = value - self.mean
        mean = self.mean + off / count
        squares = self.squares + off * (value - mean)
        return Course(value, self.streak_with(value), count, mean, squares)

    def streak_with(self, value: float) -> int:
        """The streak once this value is there too."""
        streak = self.streak
        if value > self.value:
            return streak + 1 if streak > 0 else 1
        if value < self.value:
            return streak - 1 if streak < 0 else -1
        return 0

    def direction_of(self, value: float) -> str:
        """Which way a value is from the one before it."""
        return UP if value > self.value else DOWN if value < self.value else SAME

    def level_of(self, value: float) -> str:
        """Whether a value is above the mean of those before it."""
        return HIGH if value > self.mean else LOW

    def percent_of(self, value: float) -> float | None:
        """The change in percent against the value before, where that says something."""
        return percent(value, self.value)

    def zscore_of(self, value: float) -> float | None:
        """How many deviations a value is from what was before it."""
        if self.count < ZSCORE_VALUES_MIN or not math.isfinite(self.squares):
            return None
        deviation = math.sqrt(self.squares / (self.count - 1))
        if deviation <= _DEVIATION_MIN * abs(self.mean) or not deviation:
            return None
        return _finite((value - self.mean) / deviation)


class FactsMemory(msgspec.Struct, frozen=True):
    """Each name's courses, the newest last, and the record before."""

    courses: dict[str | None, dict[str, Course]]
    previous: Any


def remembered(memory: FactsMemory | None, record: Record, record_type: StreamType) -> FactsMemory:
    """The memory after a record."""
    name = _name_of(record, record_type)
    courses = memory.courses.copy() if memory is not None else {}
    known = courses.pop(name, None)
    went = known.copy() if known is not None else {}
    for field in _MEASURED[record_type]:
        value = measured(record, field)
        if value is not None:
            course = went.get(field)
            went[field] = course.then(value) if course is not None else Course(value, mean=value)
    courses[name] = went
    if len(courses) > NAMES_MAX:
        del courses[next(iter(courses))]
    return FactsMemory(courses, record)


def without_sums(memory: Any) -> Any:
    """A codec's memory as the line of a merged or open record may refer to it."""
    if not isinstance(memory, FactsMemory):
        return memory
    courses = {name: _parted(went)[0] for name, went in memory.courses.items()}
    return FactsMemory(courses, memory.previous)


def with_sums_of(before: Any, after: Any) -> Any:
    """A codec's memory after a merged or open record, its sums as they were before it."""
    if not isinstance(after, FactsMemory):
        return after
    known = before.courses if isinstance(before, FactsMemory) else {}
    courses = {
        name: _parted(went)[0] | _parted(known.get(name, {}))[1]
        for name, went in after.courses.items()
    }
    return FactsMemory(courses, after.previous)


def _parted(went: dict[str, Course]) -> tuple[dict[str, Course], dict[str, Course]]:
    """Courses that any record may be held against, and those of sums."""
    sums = {field: course for field, course in went.items() if field in _SUMMED}
    return {field: course for field, course in went.items() if field not in sums}, sums


Fact = float | int | str | None


def fact_kinds(record_type: StreamType) -> dict[str, str]:
    """The facts that a type has by name: number, integer or text each."""
    kinds: dict[str, str] = {}
    for prefix in _MEASURED[record_type].values():
        kinds |= {
            f"{prefix}change": "number",
            f"{prefix}direction": "text",
            f"{prefix}level": "text",
            f"{prefix}streak": "integer",
            f"{prefix}zscore": "number",
        }
    return kinds | {name: kind for name, (kind, _) in _OTHERS.get(record_type, {}).items()}


def fact(name: str, record: Any, memory: FactsMemory | None, record_type: StreamType) -> Fact:
    """A fact of a record, None where it is not there."""
    others = _OTHERS.get(record_type, {})
    if name in others:
        return others[name][1](record, memory)
    prefix, _, what = name.rpartition("_")
    field = prefix or next(iter(_MEASURED[record_type]))
    value = measured(record, field)
    course = _course(record, memory, record_type, field)
    if value is None or course is None:
        return None
    if what == "streak":
        return course.streak_with(value)
    if what == "zscore":
        return course.zscore_of(value)
    if what == "direction":
        return course.direction_of(value)
    if what == "level":
        return course.level_of(value)
    if record_type != "ohlcv":
        change: float = value - course.value
        return _finite(change)
    return course.percent_of(value)


def measured(record: Any, field: str) -> float | None:
    """A measured field: the record's own, or a candle's high above its low."""
    if field == "range":
        return _finite(record.h - record.l)
    value: float | None = getattr(record, field)
    return value


def _course(
    record: Record, memory: FactsMemory | None, record_type: StreamType, field: str
) -> Course | None:
    if memory is None:
        return None
    return memory.courses.get(_name_of(record, record_type), {}).get(field)


def _name_of(record: Record, record_type: StreamType) -> str | None:
    named_by = _NAMED_BY.get(record_type)
    return getattr(record, named_by) if named_by is not None else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _range(record: Ohlcv, memory: FactsMemory | None) -> float | None:
    """High above low, in percent of the close."""
    spread = (record.h - record.l) / record.c * 100 if record.c > 0 else math.inf
    return spread if spread < _CHANGE_MAX else None


def _to_high(record: Iot, memory: FactsMemory | None) -> float | None:
    return _finite(record.hi - record.val) if record.hi is not None else None


def _to_low(record: Iot, memory: FactsMemory | None) -> float | None:
    return _finite(record.val - record.lo) if record.lo is not None else None


def _limit(record: Iot, memory: FactsMemory | None) -> str | None:
    if record.hi is not None and record.val > record.hi:
        return HIGH
    if record.lo is not None and record.val < record.lo:
        return LOW
    return "within" if record.hi is not None or record.lo is not None else None


def heading_sector(heading: float) -> str:
    """The compass sector of a heading in degrees."""
    return SECTORS[round(heading % 360 / 45) % 8]


def _moved(record: Spatial, memory: FactsMemory | None) -> float | None:
    if memory is None:
        return None
    before: Spatial = memory.previous
    return _finite(math.dist((record.x, record.y, record.z), (before.x, before.y, before.z)))


def _turn(record: Spatial, memory: FactsMemory | None) -> float | None:
    """Degrees turned, clockwise positive, the shorter way."""
    if memory is None:
        return None
    before: Spatial = memory.previous
    return ((record.hdg % 360 - before.hdg % 360) % 360 + 180) % 360 - 180


def _missing(record: Vitals) -> str:
    return "+".join(early_warning(record).missing) or NONE_MISSING


_OTHERS: Final[dict[str, dict[str, tuple[str, Callable[[Any, FactsMemory | None], Fact]]]]] = {
    "ohlcv": {"range": ("number", _range)},
    "iot": {
        "to_high": ("number", _to_high),
        "to_low": ("number", _to_low),
        "limit": ("text", _limit),
    },
    "spatial": {
        "moved": ("number", _moved),
        "turn": ("number", _turn),
        "sector": ("text", lambda record, _: heading_sector(record.hdg)),
    },
    "vitals": {
        "score": ("integer", lambda record, _: early_warning(record).score),
        "score_name": ("text", lambda record, _: early_warning(record).name),
        "band": ("text", lambda record, _: early_warning(record).band),
        "band_confidence": ("number", lambda record, _: early_warning(record).confidence),
        "missing": ("text", lambda record, _: _missing(record)),
    },
}
"""What else a type has, by name: its kind, and what computes it."""
