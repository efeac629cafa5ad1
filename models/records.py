"""Typed records, with the field names of the wire (one or two letters where it has them).

Units: prices and volumes in the feed's own unit; `timestamp` in seconds since 1970,
the event's own time (a candle's start). NaN and infinities are refused everywhere.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

import msgspec

from .errors import ValidationFault

# What a datetime and a JSON number take; names stand in lines, so they are short.
TIMESTAMP_MIN_S: Final = -6.2e10
TIMESTAMP_MAX_S: Final = 1e11
Name = Annotated[str, msgspec.Meta(max_length=200)]
Int = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]

StreamType: TypeAlias = Literal["ohlcv", "iot", "vitals", "spatial", "event"]
"""What a session holds."""
RecordType: TypeAlias = StreamType | Literal["trade"]
"""What a feed's mapping makes; trades become an ohlcv session's candles."""


class _Record(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """What every record has."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"expected a finite number, got {value} in field {name}")
        time: float | None = getattr(self, "timestamp", None)
        if time is not None and not TIMESTAMP_MIN_S <= time <= TIMESTAMP_MAX_S:
            raise ValueError(
                f"expected a timestamp in seconds since 1970, got {time:g} (milliseconds?)"
            )


def _plainly_good(total: float, time: float | None) -> bool:
    """Whether the sum of a record's numbers and its time show that the general check, which
    reads each field by its name and is half of a candle's cost, would pass."""
    # A sum is finite only where all of its terms are.
    return total - total == 0.0 and (time is None or TIMESTAMP_MIN_S <= time <= TIMESTAMP_MAX_S)


class Ohlcv(_Record, frozen=True, kw_only=True):
    """One candle: open, high, low, close, volume, and the symbol where it is known."""

    o: float
    h: float
    l: float
    c: float
    v: float
    sym: Name | None = None
    timestamp: float | None = None

    def __post_init__(self) -> None:
        high, low, volume, time = self.h, self.l, self.v, self.timestamp
        total = self.o + high + low + self.c + volume
        # As _plainly_good, written out: this is the record there are most of.
        if total - total != 0.0 or not (time is None or TIMESTAMP_MIN_S <= time <= TIMESTAMP_MAX_S):
            _Record.__post_init__(self)
        if high < low:
            raise ValueError(f"expected high >= low, got h={high} l={low}")
        if volume < 0:
            raise ValueError(f"expected volume >= 0, got v={volume}")


class Trade(_Record, frozen=True, kw_only=True):
    """One trade: price, size, who took the initiative, and the symbol where it is known.
    No session holds trades: their owner builds candles of them."""

    p: float
    q: float
    side: Literal["buy", "sell"] | None = None
    sym: Name | None = None
    timestamp: float | None = None

    def __post_init__(self) -> None:
        if not _plainly_good(self.p + self.q, self.timestamp):
            _Record.__post_init__(self)
        if self.q < 0:
            raise ValueError(f"expected size >= 0, got q={self.q}")


class Iot(_Record, frozen=True, kw_only=True):
    """One reading of one sensor, with its limits where they are known."""

    sid: Name
    val: float
    lo: float | None = None
    hi: float | None = None
    timestamp: float | None = None

    def __post_init__(self) -> None:
        total = self.val + (self.lo or 0.0) + (self.hi or 0.0)
        if not _plainly_good(total, self.timestamp):
            _Record.__post_init__(self)


class Vitals(_Record, frozen=True, kw_only=True):
    """A patient's vitals; any of them may be missing, but not all.

    hr heart rate 1/min, bp_s and bp_d mmHg, spo2 %, temp Cel, rr respiratory rate
    1/min, o2 supplemental oxygen L/min (0 = air), avpu consciousness.
    """

    hr: float | None = None
    bp_s: float | None = None
    bp_d: float | None = None
    spo2: float | None = None
    temp: float | None = None
    rr: float | None = None
    o2: float | None = None
    avpu: Literal["A", "C", "V", "P", "U"] | None = None
    timestamp: float | None = None

    def __post_init__(self) -> None:
        _Record.__post_init__(self)
        if all(getattr(self, name) is None for name in VITAL_FIELDS):
            raise ValueError(f"expected at least one of {', '.join(VITAL_FIELDS)}, got none")


class Spatial(_Record, frozen=True, kw_only=True):
    """A position in m, a speed in m/s, a heading in degrees."""

    x: float
    y: float
    z: float
    spd: float
    hdg: float
    timestamp: float | None = None


class Event(_Record, frozen=True, kw_only=True):
    """Something that happened: source, severity, category, how often."""

    src: Name
    sev: Int
    cat: Name
    cnt: Int
    timestamp: float | None = None


Record: TypeAlias = Ohlcv | Iot | Vitals | Spatial | Event | Trade

VITAL_FIELDS: Final = ("hr", "bp_s", "bp_d", "spo2", "temp", "rr", "o2", "avpu")

STREAM_TYPES: Final[tuple[StreamType, ...]] = get_args(StreamType)
RECORD_TYPES: Final[dict[str, type[Record]]] = {
    "ohlcv": Ohlcv,
    "iot": Iot,
    "vitals": Vitals,
    "spatial": Spatial,
    "event": Event,
    "trade": Trade,
}

# The rules of a type beyond finite numbers and a time that can be one: this field is at
# least that one, or that number. For code that checks values before there is a record;
# a type that is not here has rules of another kind. The types themselves say it in words.
AT_LEAST: Final[dict[str, tuple[tuple[str, str | float], ...]]] = {
    "ohlcv": (("h", "l"), ("v", 0.0)),
    "trade": (("q", 0.0),),
    "iot": (),
    "spatial": (),
    "event": (),
}


def make_record(stream_type: str, fields: dict[str, Any]) -> Record:
    """A validated record of that type from plain fields.

    Raises ValidationFault, with the path of the field at fault, where a field is
    missing, unknown, of the wrong type, not finite, or breaks a rule of the type.
    """
    try:
        return msgspec.convert(fields, RECORD_TYPES[stream_type], strict=True)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        if "unknown field" in message:
            known = RECORD_TYPES[stream_type].__struct_fields__
            message += f"; a record of type {stream_type} has {', '.join(known)}"
        raise ValidationFault(message, path.rstrip("`") or "$") from None


def record_fields(record: Record) -> dict[str, Any]:
    """The fields of a record that are set, ready for JSON."""
    fields: dict[str, Any] = msgspec.to_builtins(record)
    return fields
