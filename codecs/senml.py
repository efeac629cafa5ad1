"""SenML (RFC 8428) in JSON: each record of a pack a value, with its base fields resolved.

    [{"bn": "dev/", "bt": 1.7e9, "n": "temp", "v": 21.5}]
    -> {"n": "dev/temp", "t": 1.7e9, "v": 21.5}

Base name, time, unit, value and sum hold from the record that has them on. A time below
2**28 counts from now, which is the message's own timestamp. A record of base fields alone
sets them and is no value. A record at fault leaves the others alone, but an error in a base
field ends the pack, because what follows rests on it. SenML in CBOR is not read: no library
here decodes CBOR within bounds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from ..models.errors import DecodeFault
from .codec import Codec, Options, Outside
from .json import decode as decode_json
from .parts import Source

VERSION: Final = 10
RELATIVE_BELOW: Final = 2**28
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*")
_TEXT_BASE: Final = ("bn", "bu")
_NUMBER_BASE: Final = ("bt", "bv", "bs", "bver")
_VALUES: Final = ("v", "vs", "vb", "vd")
_KINDS: Final[dict[str, type]] = {"n": str, "u": str, "vs": str, "vd": str, "vb": bool}
_NUMBERS: Final[tuple[str, ...]] = ("v", "s", "t", "ut")


class SenmlOptions(Options, frozen=True, kw_only=True):
    """None."""


def build(options: SenmlOptions, outside: Outside) -> Codec:
    """A codec of a resolved record a value."""
    return _decode


def _decode(payload: bytes | None, source: Source) -> Sequence[Any]:
    if not payload:
        return ()
    pack = decode_json(payload)
    if type(pack) is not list:
        raise DecodeFault(f"expected an array of SenML records, got {type(pack).__name__}")
    base: dict[str, Any] = {}
    values: list[Any] = []
    for place, record in enumerate(pack):
        path = f"$[{place}]"
        if type(record) is not dict:
            raise DecodeFault(f"expected a SenML record, got {type(record).__name__}", path)
        _take_base(base, record, path)
        if all(label[:1] == "b" for label in record):
            continue
        try:
            values.append(_resolve(base, record, source, path))
        except DecodeFault as fault:
            values.append(fault)
    return values


def _take_base(base: dict[str, Any], record: dict[str, Any], path: str) -> None:
    for label in _TEXT_BASE:
        if label in record:
            base[label] = _checked(record, label, str, path)
    for label in _NUMBER_BASE:
        if label in record:
            base[label] = _number(record, label, path)
    if base.get("bver", VERSION) > VERSION:
        raise DecodeFault(f"expected version {VERSION} at most, got {base['bver']}", f"{path}.bver")


def _resolve(
    base: dict[str, Any], record: dict[str, Any], source: Source, path: str
) -> dict[str, Any]:
    for label in record:
        if label[-1:] == "_":
            raise DecodeFault(f"label {label[:50]!a} must be understood, and is not", path)
    fields = {
        label: _checked(record, label, kind, path)
        for label, kind in _KINDS.items()
        if label in record
    }
    numbers = {label: _number(record, label, path) for label in _NUMBERS if label in record}
    name = base.get("bn", "") + fields.get("n", "")
    if not _NAME.fullmatch(name):
        raise DecodeFault(f"expected a SenML name, got {name[:60]!a}", f"{path}.n")
    resolved: dict[str, Any] = {**fields, **numbers, "n": name}
    if "u" not in fields and "bu" in base:
        resolved["u"] = base["bu"]
    given = sum(label in record for label in _VALUES)
    if "v" in numbers or (not given and "bv" in base):
        resolved["v"] = base.get("bv", 0) + numbers.get("v", 0)
    if "s" in numbers or "bs" in base:
        resolved["s"] = base.get("bs", 0) + numbers.get("s", 0)
    if given > 1 or not (given or "v" in resolved or "s" in resolved):
        raise DecodeFault(f"expected one of {', '.join(_VALUES)}, got {given}", path)
    resolved["t"] = _absolute(base.get("bt", 0) + numbers.get("t", 0), source, path)
    return resolved


def _absolute(time: float, source: Source, path: str) -> float:
    if time >= RELATIVE_BELOW:
        return time
    if source.timestamp_ms is None:
        raise DecodeFault("the time counts from now, and the message has no time", f"{path}.t")
    return source.timestamp_ms / 1e3 + time


def _checked(record: dict[str, Any], label: str, kind: type, path: str) -> Any:
    value = record[label]
    if type(value) is not kind:
        expected = "text" if kind is str else "true or false"
        raise DecodeFault(f"expected {expected}, got {type(value).__name__}", f"{path}.{label}")
    return value


def _number(record: dict[str, Any], label: str, path: str) -> float:
    value = record[label]
    if type(value) is not float and type(value) is not int:
        raise DecodeFault(f"expected a number, got {type(value).__name__}", f"{path}.{label}")
    return value
