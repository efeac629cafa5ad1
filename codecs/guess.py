"""What a topic's messages might be: presets that fit, and a mapping for those that none does.

Pure: decoded samples in, suggestions out. A guess is checked before it is made: it is
compiled and maps the samples, and says how many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import orjson

from ..models.errors import ConfigError
from .casts import BadValue, iso_time, number
from .mapping import Mapping as CompiledMapping
from .mapping import Source
from .presets import mapping_spec, preset, preset_names

DEPTH_MAX: Final = 6
PATHS_MAX: Final = 400

_CANDLE: Final = {
    "o": ("open", "o"),
    "h": ("high", "h"),
    "l": ("low", "l"),
    "c": ("close", "c"),
    "v": ("volume", "v", "vol"),
}
_TRADE: Final = {"p": ("price", "p", "px"), "q": ("size", "quantity", "qty", "amount", "q")}
_VITALS: Final = {
    "hr": ("hr", "heart_rate", "heartrate", "pulse"),
    "bp_s": ("bp_s", "systolic", "sbp", "bp_sys"),
    "bp_d": ("bp_d", "diastolic", "dbp", "bp_dia"),
    "spo2": ("spo2", "sao2", "oxygen_saturation"),
    "temp": ("temp", "temperature", "body_temperature"),
    "rr": ("rr", "resp_rate", "respiratory_rate"),
}
_VITALS_MIN: Final = 2
_SYMBOLS: Final = ("symbol", "sym", "ticker", "product_id", "instrument", "pair", "s")
_KEYS: Final = (
    *_SYMBOLS, "patient", "patient_id", "subject", "device_id", "deviceid", "device", "sensor_id",
    "sensor", "sid", "entity_id", "host", "station", "machine", "id", "name",
)  # fmt: skip
_TIMES: Final = (
    "timestamp", "time", "ts", "event_time", "start", "t", "date", "datetime", "created_at",
)  # fmt: skip
_VALUES: Final = ("value", "val", "reading", "measurement", "v")
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
# The seconds since 1970 of 2001 to 2100, in each unit.
_UNITS: Final = (("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9))
_FROM_S, _TO_S = 1e9, 4.1e9


class Fit(NamedTuple):
    """How a mapping does on the samples: messages that gave a record, and that had a fault."""

    mapped: int
    faulty: int


class Suggestion(NamedTuple):
    """A mapping that somebody may take: its table, in TOML, and how it does."""

    toml: str
    table: dict[str, Any]
    fit: Fit


def fit_of(
    table: Mapping[str, Any], name: str | None, samples: Sequence[tuple[Any, Source]]
) -> Fit:
    """How a preset, a table, or one over the other does. Raises ConfigError for a bad table."""
    return _fit(CompiledMapping(mapping_spec(name, table)), samples)


@cache
def _compiled(name: str) -> CompiledMapping:
    return CompiledMapping(mapping_spec(name, {}))


def _fit(mapping: CompiledMapping, samples: Sequence[tuple[Any, Source]]) -> Fit:
    results = [mapping(value, source) for value, source in samples]
    return Fit(sum(bool(one.records) for one in results), sum(bool(one.faults) for one in results))


def fitting_presets(codec: str, samples: Sequence[tuple[Any, Source]]) -> list[tuple[str, Fit]]:
    """The presets of that codec that map some of the samples without a fault, the best first.
    What a preset reads as it stands comes before what it only does not refuse."""
    fits = [
        (name, _fit(_compiled(name), samples))
        for name in preset_names()
        if preset(name).codec == codec
    ]
    good = [(name, fit) for name, fit in fits if fit.mapped and not fit.faulty]
    return sorted(good, key=lambda one: (-one[1].mapped, _catches_all(one[0]), one[0]))


def guess(samples: Sequence[tuple[Any, Source]]) -> Suggestion | None:
    """A mapping of decoded JSON samples; None where none of the known kinds shows in them."""
    values = [value for value, _ in samples if isinstance(value, dict | list)]
    if not values:
        return None
    for each, records in _containers(values):
        for table in _tables(records, each):
            try:
                fit = fit_of(table, None, samples)
            except ConfigError:
                continue
            if fit.mapped and fit.mapped > fit.faulty:
                return Suggestion(to_toml(table), table, fit)
    return None


def to_toml(table: Mapping[str, Any]) -> str:
    """The table as a feed's lines in a configuration, at most eight."""
    return "\n".join(f"{key} = {_toml(value)}" for key, value in table.items())


def _catches_all(name: str) -> bool:
    """Presets of whatever flat object: any object with a number in it fits them."""
    return preset(name).mapping.get("each") == "{}"


def _containers(values: Sequence[Any]) -> Iterator[tuple[str | None, list[dict[str, Any]]]]:
    """Where the records may be: the message itself, or an array in it."""
    objects = [value for value in values if isinstance(value, dict)]
    if objects:
        yield None, objects
    arrays = [item for value in values if isinstance(value, list) for item in value]
    if inner := [item for item in arrays if isinstance(item, dict)]:
        yield "[]", inner
    for name in dict.fromkeys(key for value in objects for key in value):
        items = [value.get(name) for value in objects]
        found = [one for item in items if isinstance(item, list) for one in item]
        if found and all(isinstance(one, dict) for one in found):
            yield f"{_path((name,))}[]", found


def _tables(records: Sequence[dict[str, Any]], each: str | None) -> Iterator[dict[str, Any]]:
    """Tables for records of every kind whose fields are there, the most particular first."""
    paths = _paths(records)
    base: dict[str, Any] = {"each": each} if each else {}
    time = _time(paths)
    when = {"time": time} if time else {}
    symbol = _named(paths, _SYMBOLS, str)
    key = _named(paths, _KEYS, str) or "@key"
    for model, known in (("ohlcv", _CANDLE), ("trade", _TRADE)):
        fields = {field: _named(paths, names, float) for field, names in known.items()}
        if all(fields.values()):
            named = {"sym": symbol} if symbol else {}
            yield {"model": model, **base, "key": symbol or key, **when, "map": {**fields, **named}}
    vitals = {field: _named(paths, names, float) for field, names in _VITALS.items()}
    present = {field: path for field, path in vitals.items() if path}
    if len(present) >= _VITALS_MIN:
        yield {"model": "vitals", **base, "key": key, **when, "map": present}
    value = _named(paths, _VALUES, float)
    if value:
        yield {"model": "iot", **base, "key": key, **when, "map": {"sid": key, "val": value}}
    numbers = [path for path, value in paths.items() if len(path) == 1 and _is_number(value)]
    if numbers:
        yield _flat(base, key, time)


def _flat(base: dict[str, Any], key: str, time: str | None) -> dict[str, Any]:
    """Every number of a flat object as a reading of its own."""
    up = {
        "key": key if key.startswith("@") else f"^{key}",
        **({"time": f"^{time}"} if time else {}),
    }
    skipped = {"@v": {"type": "number"}}
    each = f"{base.get('each', '')}.{{}}".removeprefix(".")
    return {"model": "iot", "each": each, "when": skipped, **up, "map": {"sid": "@k", "val": "@v"}}


def _paths(records: Sequence[dict[str, Any]]) -> dict[tuple[str, ...], Any]:
    """Every leaf of the records, by the names that lead to it, with a value of it."""
    found: dict[tuple[str, ...], Any] = {}

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if len(found) >= PATHS_MAX:
            return
        if isinstance(value, dict) and len(path) < DEPTH_MAX:
            for name, inner in value.items():
                walk(inner, (*path, str(name)))
        elif path and value is not None and not isinstance(value, dict | list):
            found.setdefault(path, value)

    for record in records:
        walk(record, ())
    return found


def _named(paths: Mapping[tuple[str, ...], Any], names: Sequence[str], kind: type) -> str | None:
    """The path whose last name is one of these, the earlier names first, the shorter paths
    first, and whose value is a number or a text."""
    for name in names:
        for path, value in sorted(paths.items(), key=lambda one: len(one[0])):
            if path[-1].lower() != name:
                continue
            if _is_number(value) if kind is float else isinstance(value, str | int):
                return _path(path)
    return None


def _time(paths: Mapping[tuple[str, ...], Any]) -> str | None:
    """The path of the event time with its unit, told by its size."""
    for name in _TIMES:
        for path, value in sorted(paths.items(), key=lambda one: len(one[0])):
            if path[-1].lower() == name and (unit := _unit(value)):
                return f"{_path(path)}:{unit}"
    return None


def _unit(value: Any) -> str | None:
    try:
        seconds = number(value)
    except BadValue:
        try:
            iso_time(value)
        except BadValue:
            return None
        return "iso"
    return next((unit for unit, scale in _UNITS if _FROM_S <= seconds / scale <= _TO_S), None)


def _is_number(value: Any) -> bool:
    try:
        number(value)
    except BadValue:
        return False
    return True


def _path(names: Sequence[str]) -> str:
    return ".".join(
        name if _PLAIN.fullmatch(name) else '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
        for name in names
    )


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{_toml_key(key)} = {_toml(one)}" for key, one in value.items())
        return f"{{ {inner} }}"
    return orjson.dumps(value).decode()


def _toml_key(key: str) -> str:
    return key if _PLAIN.fullmatch(key) else orjson.dumps(key).decode()
