r"""Any record as its difference to the one before: `delta`.

    sym=AAPL o=118.56 h=132.06 l=118.5 c=130.31 v=9.6M     the first line of a block
    o+8.44 h-4.12 l+2.19 c-8.31 v=2.8M                     what changed, and by how much
    same                                                   nothing did

`=` says a value, `+` and `-` a change. A field that is as it was is left out; one that the
record no longer has is written `hi=-`. Candles and readings are compared with the last one
of their own symbol or sensor, whose name opens the line where it is another one than before.

A number is counted in units of its last decimal, which it keeps while 5 significant digits
fit in it: so changes add up to the value exactly, however many lines there are. Where they
no longer fit, or are more than two decimals too many, the value is written again.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from ..models.records import Record, StreamType
from .text import (
    NAME,
    NUMBER,
    SHORT,
    Written,
    decimals,
    name_text,
    name_value,
    number_text,
    rounding,
    short_text,
    short_tolerance,
    short_value,
    tolerance,
)
from .text_fields import NOUNS, Column, columns, legend_of

NAMES_MAX: Final = 64
"""So many symbols or sensors are remembered, those that came last."""
_DECIMALS_SPARE: Final = 2
_TICKS_FROM: Final = 1e15
_NAMED_BY: Final = {"ohlcv": "sym", "iot": "sid"}
_SHORT_FIELDS: Final = {"ohlcv": ("v",)}
_SAME: Final = "same"
_TOKEN: Final = re.compile(rf"(\w+?)([=+-])(-|{NAME}|{SHORT}|{NUMBER})(?: |\n)")


class _Ticks(msgspec.Struct, frozen=True):
    """A number as it was written: so many units of its last decimal."""

    count: int
    places: int

    @property
    def value(self) -> float:
        return self.count / 10**self.places if self.places else self.count

    def plus(self, change: int) -> _Ticks:
        return _Ticks(self.count + change, self.places)


class _Whole(msgspec.Struct, frozen=True):
    """A number that is always written as a value: too large for ticks, or a short one."""

    text: str

    @property
    def value(self) -> float:
        return short_value(self.text)


_Said = str | _Ticks | _Whole
"""What the lines up to here say of a field: a text, or a number."""


class DeltaMemory(msgspec.Struct, frozen=True):
    """The name of the record before, and of each name what its lines have said."""

    name: str | None
    said: dict[str | None, dict[str, _Said]]


class DeltaLine:
    """What changed since the record before."""

    name = "delta"
    leaves_out = "the time; what did not change"

    def __init__(self, record_type: StreamType) -> None:
        self.record_type: StreamType = record_type
        self._named_by = _NAMED_BY.get(record_type)
        self._short = _SHORT_FIELDS.get(record_type, ())
        self._columns = tuple(
            sorted(
                (one for one in columns(record_type) if one.name != "timestamp"),
                key=lambda one: one.name != self._named_by,
            )
        )
        self._kinds = {one.name: one.kind for one in self._columns}
        against = f"the last one of the same {self._columns[0].words}" if self._named_by else "it"
        self.legend = (
            f"Each line is what changed since the {NOUNS[record_type]} before: = is a value, + or "
            f"- a change against {against}; what is left out is as it was. "
            f"{legend_of(record_type, self._columns)}."
        )
        self.precision = {one.name: self._precision(one) for one in self._columns}

    def _precision(self, column: Column) -> str:
        if column.kind != "number":
            return "exact"
        if column.name in self._short:
            return "2 significant digits"
        return "5 significant digits, at least 2 decimals"

    def remember(self, memory: DeltaMemory | None, record: Record) -> DeltaMemory:
        """The memory after this record."""
        name = self._name_of(record)
        before = self._before(memory, name)
        said = {**memory.said} if memory is not None else {}
        said.pop(name, None)
        said[name] = {
            one.name: told
            for one in self._columns
            if (told := self._told(one, record, before)) is not None
        }
        if len(said) > NAMES_MAX:
            del said[next(iter(said))]
        return DeltaMemory(name, said)

    def render(self, record: Record, memory: DeltaMemory | None) -> str:
        """The record's line."""
        name = self._name_of(record)
        before = self._before(memory, name)
        parts = []
        for one in self._columns:
            if one.name == self._named_by:
                if name is not None and (memory is None or memory.name != name):
                    parts.append(f"{one.name}={name_text(name)}")
                elif name is None and memory is not None and memory.name is not None:
                    parts.append(f"{one.name}=-")
                continue
            told, was = self._told(one, record, before), before.get(one.name)
            if told != was:
                parts.append(one.name + _difference(told, was))
        return (" ".join(parts) or _SAME) + "\n"

    def parse(self, line: str, memory: DeltaMemory | None) -> dict[str, float | str]:
        """The fields that a line says together with those before it."""
        tokens = _tokens(line)
        if not tokens.keys() <= self._kinds.keys():
            raise ValueError(f"not a line of this codec: {line!r}")
        name = memory.name if memory is not None else None
        if self._named_by in tokens:
            text = tokens.pop(self._named_by)[1]
            name = None if text == "-" else name_value(text)
        values: dict[str, float | str] = {
            one: said if isinstance(said, str) else said.value
            for one, said in self._before(memory, name).items()
        }
        if self._named_by is not None:
            values.pop(self._named_by, None)
            if name is not None:
                values[self._named_by] = name
        for field, (sign, text) in tokens.items():
            if sign == "=" and text == "-":
                values.pop(field, None)
            elif sign == "=":
                values[field] = self._value(field, text, line)
            else:
                was = self._before(memory, name).get(field)
                if not isinstance(was, _Ticks):
                    raise ValueError(f"no value that {field} in {line!r} is a change of")
                change = _ticks_of(text, was.places, line)
                values[field] = was.plus(change if sign == "+" else -change).value
        return values

    def written(self, record: Record, memory: DeltaMemory | None) -> dict[str, Written]:
        """The fields that the record's line must say, with those before it."""
        before = self._before(memory, self._name_of(record))
        written = {}
        for one in self._columns:
            value = getattr(record, one.name)
            if value is None:
                continue
            within = 0.0
            if one.kind == "number":
                told = self._told(one, record, before)
                if isinstance(told, _Ticks):
                    within = rounding(10.0**-told.places, value)
                else:
                    within = short_tolerance(value) if one.name in self._short else tolerance(value)
            written[one.name] = Written(value, within)
        return written

    def _name_of(self, record: Record) -> str | None:
        return getattr(record, self._named_by) if self._named_by is not None else None

    def _before(self, memory: DeltaMemory | None, name: str | None) -> dict[str, _Said]:
        return memory.said.get(name, {}) if memory is not None else {}

    def _told(self, column: Column, record: Record, before: dict[str, _Said]) -> _Said | None:
        """What is said of a field once this record's line is read."""
        value: float | int | str | None = getattr(record, column.name)
        if value is None or isinstance(value, str):
            return value
        if column.kind == "integer":
            return _Ticks(int(value), 0)
        if column.name in self._short:
            return _Whole(short_text(value))
        if abs(value) >= _TICKS_FROM:
            return _Whole(number_text(value))
        was = before.get(column.name)
        places = decimals(value)
        if isinstance(was, _Ticks) and (value == 0 or _fits(places, was.places)):
            places = was.places
        return _Ticks(int(f"{value:.{places}f}".replace(".", "")), places)

    def _value(self, field: str, text: str, line: str) -> float | str:
        kind = self._kinds[field]
        try:
            if kind == "text":
                return name_value(text)
            return int(text) if kind == "integer" else short_value(text)
        except ValueError:
            raise ValueError(f"not a line of this codec: {line!r}") from None


def _fits(places: int, kept: int) -> bool:
    return kept - _DECIMALS_SPARE <= places <= kept


def _difference(told: _Said | None, was: _Said | None) -> str:
    if told is None:
        return "=-"
    if isinstance(told, str):
        return "=" + name_text(told)
    if isinstance(told, _Whole):
        return "=" + told.text
    if isinstance(was, _Ticks) and was.places == told.places:
        change = _ticks_text(told.count - was.count, told.places)
        return change if change[0] == "-" else "+" + change
    return "=" + _ticks_text(told.count, told.places)


def _ticks_text(count: int, places: int) -> str:
    digits = f"{abs(count):0{places + 1}d}"
    whole, fraction = digits[: len(digits) - places], digits[len(digits) - places :].rstrip("0")
    return f"{'-' if count < 0 else ''}{whole}{'.' + fraction if fraction else ''}"


def _ticks_of(text: str, places: int, line: str) -> int:
    whole, _, fraction = text.partition(".")
    digits = whole + fraction.ljust(places, "0")
    if len(fraction) > places or not digits.isdecimal():
        raise ValueError(f"not a line of this codec: {line!r}")
    return int(digits)


def _tokens(line: str) -> dict[str, tuple[str, str]]:
    """Each field's sign and text."""
    if line == _SAME + "\n":
        return {}
    found: dict[str, tuple[str, str]] = {}
    at = 0
    for match in _TOKEN.finditer(line):
        if match.start() != at or match[1] in found:
            break
        found[match[1]] = match[2], match[3]
        at = match.end()
    if not found or at != len(line) or not line.endswith("\n"):
        raise ValueError(f"not a line of this codec: {line!r}")
    return found
