"""Source values to field types. Each cast returns the value or raises BadValue.

Numeric strings and integers become floats, numbers become text where text is wanted;
a boolean is never a number, and NaN and infinities are never values. The compiled
mapping and the walk that explains its faults call the same functions, so that they
cannot disagree on what a value is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
import orjson

from ..models.records import RECORD_TYPES, RecordType
from .paths import TimeUnit

# Beyond this a time in seconds is past the year 5000: a unit mistaken for another.
SECONDS_MAX: Final = 1e11
_TEXT_INT_BITS_MAX: Final = 256
_SHOWN_CHARS_MAX: Final = 60
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_HL7_TIME: Final = re.compile(r"(\d{4}(?:\d\d){0,5})(\.\d{1,9})?([+-]\d{4})?", re.ASCII)
_INT: Final = re.compile(r"[+-]?\d{1,30}", re.ASCII)


class BadValue(Exception):
    """A value is not what was expected; the argument says what was."""


class Field(msgspec.Struct, frozen=True):
    """A record field as a mapping sees it."""

    name: str
    required: bool
    expected: str
    cast: Callable[[Any], Any]


def number(value: Any) -> float:
    """A finite float from a number or a numeric string."""
    kind = type(value)
    if kind is float:
        result: float = value
    elif kind is int or kind is Decimal or (kind is str and _NUMBER.fullmatch(value)):
        try:
            result = float(value)
        except (OverflowError, ValueError):
            raise BadValue("finite number") from None
    else:
        raise BadValue("number")
    if result - result != 0.0:
        raise BadValue("finite number")
    return result


def integer(value: Any) -> int:
    """An int from an int, a whole float, or the text of an int."""
    kind = type(value)
    if kind is int:
        whole: int = value
        return whole
    if kind is float and value - value == 0.0 and value == int(value):
        return int(value)
    if kind is str and _INT.fullmatch(value):
        return int(value)
    if kind is Decimal and value.is_finite() and value == value.to_integral_value():
        return int(value)
    raise BadValue("integer")


def text(value: Any) -> str:
    """Text from a string or a number."""
    kind = type(value)
    if kind is str:
        same: str = value
        return same
    if kind is int and value.bit_length() <= _TEXT_INT_BITS_MAX:
        return str(value)
    if kind is float and value - value == 0.0:
        return repr(value)
    if kind is Decimal and value.is_finite():
        return f"{value:f}"
    raise BadValue("text")


def session_key(value: str) -> str:
    """A key that can name a session: not empty."""
    if not value:
        raise BadValue("non-empty key")
    return value


def flag(value: Any) -> bool:
    """True or false, as a boolean or as its word."""
    if type(value) is bool:
        return value
    if type(value) is str:
        word = value.lower()
        if word in ("true", "false"):
            return word == "true"
    raise BadValue("true or false")


def seconds(value: float) -> float:
    """A time in seconds, if it can be one."""
    if not -SECONDS_MAX < value < SECONDS_MAX:
        raise BadValue("a time this side of the year 5000 (is the unit right?)")
    return value


def iso_time(value: Any) -> float:
    """Seconds since 1970 of an ISO 8601 text, or of a datetime as MessagePack has them;
    without a zone it is UTC."""
    if type(value) is datetime:
        moment = value
    elif type(value) is str:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise BadValue("ISO 8601 time") from None
    else:
        raise BadValue("ISO 8601 time")
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def hl7_time(value: Any) -> float:
    """Seconds since 1970 of an HL7 v2 time, YYYY[MM[DD[HH[MM[SS[.S...]]]]]][+/-ZZZZ] (v2.5.1,
    section 2.A.22); without a zone it is UTC."""
    match = _HL7_TIME.fullmatch(value) if type(value) is str else None
    if match is None:
        raise BadValue("HL7 time")
    digits, fraction, zone = match.groups()
    full = f"{digits}{'00000101000000'[len(digits) :]}"
    try:
        moment = datetime.strptime(f"{full}{zone or '+0000'}", "%Y%m%d%H%M%S%z")
    except ValueError:
        raise BadValue("HL7 time") from None
    return moment.timestamp() + float(f"0{fraction or ''}")


def time_cast(unit: TimeUnit) -> Callable[[Any], float]:
    """The cast of a time in that unit to seconds."""
    if unit == "iso":
        return iso_time
    if unit == "hl7":
        return hl7_time
    scale = TIME_SCALES[unit]
    return lambda value: seconds(number(value) / scale)


TIME_SCALES: Final[dict[str, float]] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


def kind_name(value: Any) -> str:
    """The JSON name of a value's type: number, string, boolean, object, array, null."""
    if type(value) is bool:
        return "boolean"
    if isinstance(value, int | float | Decimal):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, dict):
        return "object"
    if isinstance(value, list | tuple):
        return "array"
    return "null" if value is None else type(value).__name__


KIND_NAMES: Final = ("number", "numeric", "string", "boolean", "object", "array", "null")


def is_kind(value: Any, kinds: Sequence[str]) -> bool:
    """Whether a value is of one of the JSON types; `numeric` is a number, or the text of
    one."""
    if kind_name(value) in kinds:
        return True
    if "numeric" not in kinds:
        return False
    try:
        number(value)
    except BadValue:
        return False
    return True


def same_scalar(value: Any, wanted: Any) -> bool:
    """Equal, with a boolean never equal to a number."""
    return (type(value) is bool) is (type(wanted) is bool) and bool(value == wanted)


def selects(value: Any, wanted: str) -> bool:
    """Whether an element's value is the one a `[k=v]` asks for: v itself, or JSON's text of it."""
    if type(value) is str:
        return value == wanted
    if type(value) is bool:
        return wanted == ("true" if value else "false")
    if type(value) in (int, float) and _NUMBER.fullmatch(wanted):
        return bool(value == float(wanted))
    return False


def message_text(payload: bytes | None) -> str | None:
    """A message key or header value as text; None where it is absent."""
    if payload is None:
        return None
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError:
        raise BadValue("UTF-8 text") from None


def header_text(headers: Sequence[tuple[str, bytes]], name: str) -> str | None:
    """The last header of that name, which is the one that counts in Kafka.

    Azure's Kafka endpoints write headers as AMQP values (OASIS AMQP 1.0, part 1.6); their
    first byte begins no UTF-8 text, so that they cannot be taken for one another.
    """
    for key, payload in reversed(headers):
        if key == name:
            if payload and payload[0] in _AMQP:
                return _AMQP[payload[0]](payload)
            return message_text(payload)
    return None


def _amqp_text(length_bytes: int) -> Callable[[bytes], str | None]:
    def read(payload: bytes) -> str | None:
        start = 1 + length_bytes
        if len(payload) != start + int.from_bytes(payload[1:start], "big"):
            raise BadValue("UTF-8 text, or an AMQP value")
        return message_text(payload[start:])

    return read


def _amqp_integer(size: int) -> Callable[[bytes], str | None]:
    def read(payload: bytes) -> str | None:
        if len(payload) != 1 + size:
            raise BadValue("UTF-8 text, or an AMQP value")
        return str(int.from_bytes(payload[1:], "big", signed=True))

    return read


_AMQP: Final[dict[int, Callable[[bytes], str | None]]] = {
    0xA1: _amqp_text(1),  # str8
    0xB1: _amqp_text(4),  # str32
    0xA3: _amqp_text(1),  # sym8
    0xB3: _amqp_text(4),  # sym32
    0x83: _amqp_integer(8),  # timestamp, ms
    0x81: _amqp_integer(8),  # long
}


def show(value: Any) -> str:
    """A value as a fault's message quotes it: short, on one line, never raising."""
    kind = kind_name(value)
    if kind in ("object", "array"):
        return f"an {kind}"
    try:
        shown = str(value) if kind == "number" else orjson.dumps(value).decode()
    except (ValueError, TypeError):
        return f"a {kind}"
    cut = len(shown) > _SHOWN_CHARS_MAX
    return shown[:_SHOWN_CHARS_MAX] + "..." if cut else shown


def record_fields(stream_type: RecordType) -> dict[str, Field]:
    """The fields of a record type that a mapping fills (all but the timestamp)."""
    record = RECORD_TYPES[stream_type]
    hints = get_type_hints(record)
    fields = {}
    for info in msgspec.structs.fields(record):
        if info.name != "timestamp":
            expected, cast = _cast_of(hints[info.name])
            fields[info.name] = Field(info.name, info.required, expected, cast)
    return fields


def _cast_of(hint: Any) -> tuple[str, Callable[[Any], Any]]:
    for part in (hint, *get_args(hint)):
        if part is float:
            return "number", number
        if part is int:
            return "integer", integer
        if part is str:
            return "text", text
        if get_origin(part) is Literal:
            return _one_of(get_args(part))
    raise TypeError(f"no cast for a field of type {hint}")


def _one_of(words: tuple[str, ...]) -> tuple[str, Callable[[Any], Any]]:
    expected = "one of " + ", ".join(words)

    def one_of(value: Any) -> str:
        if type(value) is str:
            for word in words:
                if value == word or value.lower() == word.lower():
                    return word
        raise BadValue(expected)

    return expected, one_of
