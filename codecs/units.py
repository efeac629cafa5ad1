"""Units of a source's numbers, turned into the unit that a record's field has.

A unit is a name (UCUM's where it has one), a factor (`1e-9`), or `decimal:N` for the bytes
of a Kafka Connect decimal (big-endian two's complement, in base64 in JSON) with N digits
after the point. Pure.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, Final

import msgspec

from ..models.errors import ConfigError
from .casts import BadValue, number
from .nearest import nearest

_DECIMAL: Final = "decimal:"
_DECIMAL_BYTES_MAX: Final = 64
_SCALE_MAX: Final = 60


class Unit(msgspec.Struct, frozen=True):
    """A unit of a dimension: canonical = value * factor + offset."""

    dimension: str
    factor: float = 1.0
    offset: float = 0.0


_TEMPERATURE_F: Final = Unit("temperature", 5 / 9, -160 / 9)
_PER_MINUTE: Final = Unit("rate")
UNITS: Final[dict[str, Unit]] = {
    "Cel": Unit("temperature"),
    "C": Unit("temperature"),
    "degC": Unit("temperature"),
    "[degF]": _TEMPERATURE_F,
    "degF": _TEMPERATURE_F,
    "F": _TEMPERATURE_F,
    "K": Unit("temperature", 1.0, -273.15),
    "mm[Hg]": Unit("pressure"),
    "mmHg": Unit("pressure"),
    "kPa": Unit("pressure", 7.50061683),
    "/min": _PER_MINUTE,
    "{beats}/min": _PER_MINUTE,
    "{Beats}/min": _PER_MINUTE,
    "{breaths}/min": _PER_MINUTE,
    "beats/min": _PER_MINUTE,
    "bpm": _PER_MINUTE,
    "Hz": Unit("rate", 60.0),
    "/s": Unit("rate", 60.0),
    "%": Unit("fraction"),
    "1": Unit("fraction", 100.0),
    "L/min": Unit("flow"),
    "l/min": Unit("flow"),
    "mL/min": Unit("flow", 1e-3),
    "m": Unit("length"),
    "km": Unit("length", 1000.0),
    "[ft_i]": Unit("length", 0.3048),
    "ft": Unit("length", 0.3048),
    "m/s": Unit("speed"),
    "km/h": Unit("speed", 1 / 3.6),
    "[mi_i]/h": Unit("speed", 0.44704),
    "mph": Unit("speed", 0.44704),
    "[kn_i]": Unit("speed", 1852 / 3600),
    "kn": Unit("speed", 1852 / 3600),
    "deg": Unit("angle"),
    "rad": Unit("angle", 57.29577951308232),
    "cents": Unit("money", 0.01),
    "pennies": Unit("money", 0.01),
}
_DIMENSIONS: Final[dict[tuple[str, str], str]] = {
    ("vitals", "hr"): "rate",
    ("vitals", "rr"): "rate",
    ("vitals", "bp_s"): "pressure",
    ("vitals", "bp_d"): "pressure",
    ("vitals", "spo2"): "fraction",
    ("vitals", "temp"): "temperature",
    ("vitals", "o2"): "flow",
    ("spatial", "x"): "length",
    ("spatial", "y"): "length",
    ("spatial", "z"): "length",
    ("spatial", "spd"): "speed",
    ("spatial", "hdg"): "angle",
    **{("ohlcv", name): "money" for name in "ohlc"},
    ("trade", "p"): "money",
}
"""What a field is a quantity of. A field that is not here takes a unit of any dimension."""


def unit_cast(model: str, field: str, unit: str | float) -> tuple[str, Callable[[Any], float]]:
    """What a value in that unit is called, and the cast to the field's own unit.

    Raises ConfigError where there is no such unit, or the field is no quantity of it.
    """
    if not isinstance(unit, str):
        if not unit or unit - unit != 0:
            raise ConfigError(f"expected a factor that is finite and not 0, got {unit}")
        return "number", _linear(float(unit), 0.0)
    if unit.startswith(_DECIMAL):
        return f"decimal with {unit.removeprefix(_DECIMAL)} digits", decimal_cast(unit)
    known = units_of(model, field)
    if unit not in known:
        raise ConfigError(
            f"no unit {unit!r} for {model}.{field}{nearest(unit, known)}; expected a factor, "
            f"decimal:N, or one of {', '.join(known)}"
        )
    found = UNITS[unit]
    return f"number ({unit})", _linear(found.factor, found.offset)


def units_of(model: str, field: str) -> tuple[str, ...]:
    """The units by name that a field can be given in."""
    dimension = _DIMENSIONS.get((model, field))
    return tuple(name for name, unit in UNITS.items() if dimension in (None, unit.dimension))


def in_unit(model: str, field: str, value: Any, unit: str | None) -> float:
    """A number in the unit that its source names, in the field's own; None is the field's
    own. Raises BadValue."""
    cast = number(value)
    if unit is None:
        return cast
    known = UNITS.get(unit)
    if known is None or known.dimension != _DIMENSIONS.get((model, field), known.dimension):
        raise BadValue(f"a unit of {model}.{field} ({', '.join(units_of(model, field))})")
    return number(cast * known.factor + known.offset)


def decimal_cast(unit: str) -> Callable[[Any], float]:
    """The cast of `decimal:N`. Raises ConfigError where N is no number of digits."""
    digits = unit.removeprefix(_DECIMAL)
    if not digits.isdecimal() or int(digits) > _SCALE_MAX:
        raise ConfigError(f"expected decimal:N with N from 0 to {_SCALE_MAX}, got {unit!r}")
    scale = int(digits)
    return lambda value: decimal_number(value, scale)


def decimal_number(value: Any, scale: int) -> float:
    """The number of a Kafka Connect decimal's bytes, or of their base64. Raises BadValue."""
    if isinstance(value, str):
        try:
            value = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise BadValue("base64 of a decimal's bytes") from None
    if not isinstance(value, bytes) or not 0 < len(value) <= _DECIMAL_BYTES_MAX:
        raise BadValue(f"1 to {_DECIMAL_BYTES_MAX} bytes of a decimal")
    # By text: exact to the last digit, where a division of large integers is not.
    return float(f"{int.from_bytes(value, 'big', signed=True)}e-{scale}")


def _linear(factor: float, offset: float) -> Callable[[Any], float]:
    return lambda value: number(number(value) * factor + offset)
