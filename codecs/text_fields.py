"""A record type's fields as the codecs for every type see them: kinds, words, exact texts."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..models.records import RECORD_TYPES, StreamType
from .casts import record_fields

WORDS: Final[dict[str, dict[str, str]]] = {
    "ohlcv": {
        "o": "open",
        "h": "high",
        "l": "low",
        "c": "close",
        "v": "volume",
        "sym": "symbol",
    },
    "iot": {"sid": "sensor", "val": "value", "lo": "low limit", "hi": "high limit"},
    "vitals": {
        "hr": "heart rate",
        "bp_s": "systolic pressure",
        "bp_d": "diastolic pressure",
        "spo2": "oxygen saturation",
        "temp": "temperature in Celsius",
        "rr": "respiratory rate",
        "o2": "oxygen in L/min",
        "avpu": "consciousness",
    },
    "spatial": {"x": "x", "y": "y", "z": "z in metres", "spd": "m/s", "hdg": "heading"},
    "event": {"src": "source", "sev": "severity", "cat": "category", "cnt": "how often"},
}
NOUNS: Final = {
    "ohlcv": "candle",
    "iot": "reading",
    "vitals": "set of vitals",
    "spatial": "position",
    "event": "event",
}
TIME_WORDS: Final = "time in seconds since 1970"

_WHOLE_MAX: Final = 1e15


class Column(msgspec.Struct, frozen=True):
    """A field: its name, what it is called in a legend, whether it is a number, an integer
    or a text, and whether a record must have it."""

    name: str
    words: str
    kind: str
    required: bool


def columns(record_type: StreamType) -> tuple[Column, ...]:
    """The fields of a type in its own order."""
    fields = record_fields(record_type)
    found = []
    for name in RECORD_TYPES[record_type].__struct_fields__:
        if name == "timestamp":
            found.append(Column(name, TIME_WORDS, "number", False))
            continue
        expected = fields[name].expected
        kind = expected if expected in ("number", "integer") else "text"
        found.append(Column(name, WORDS[record_type][name], kind, fields[name].required))
    return tuple(found)


def legend_of(record_type: StreamType, named: tuple[Column, ...]) -> str:
    """The fields' names with what they are: `c close, v volume`."""
    return ", ".join(
        one.words if one.name == one.words else f"{one.name} {one.words}" for one in named
    )


def exact_number(value: float) -> float | int:
    """The same number, a whole one without its `.0`."""
    return int(value) if value.is_integer() and abs(value) < _WHOLE_MAX else value


def exact_fields(record: Any) -> dict[str, float | int | str]:
    """The fields that a record has, each exact."""
    fields: dict[str, Any] = msgspec.to_builtins(record)
    return {
        name: exact_number(value) if isinstance(value, float) else value
        for name, value in fields.items()
    }


def escaped(text: str) -> str:
    """The text with what does not print written as JSON writes it, so that it is one line."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escape(one) for one in text)


def _escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
