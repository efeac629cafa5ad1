"""Envelopes that others put around a row, taken off before it is mapped. Pure.

debezium     {before, after, op}, bare or as `payload`; Kafka Connect decimals are numbers
             where the schema is there. Deletes, truncates and messages are skipped.
connect      {schema, payload} of Kafka Connect's JSON converter, or the bare row
cloudevents  a structured event's `data`; in binary mode the value is the data already
ksql         column names in lower case (ksqlDB writes them in upper case)
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import msgspec
import orjson

from ..models.feed import Fault
from .casts import BadValue, show
from .units import decimal_number

Unwrap: TypeAlias = Literal["debezium", "connect", "cloudevents", "ksql"]
_DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"
_VARIABLE_DECIMAL: Final = "io.debezium.data.VariableScaleDecimal"
_ROWS: Final = ("c", "u", "r")
_OTHERS: Final = ("d", "t", "m")
_DEPTH_MAX: Final = 16


class Unwrapped(msgspec.Struct, frozen=True):
    """A row, and where it stood in the message (`$.payload.after`). None: there is none."""

    value: Any
    path: str = "$"


def unwrap(kind: Unwrap, value: Any) -> Unwrapped | Fault:
    """What is in the envelope. Never raises."""
    return _KINDS[kind](value)


def _debezium(value: Any) -> Unwrapped | Fault:
    row, path, schema = _payload(value)
    if not isinstance(row, dict):
        return _row(row, path)
    if "op" not in row or not ("after" in row or "before" in row):
        # Flattened by Debezium's own ExtractNewRecordState.
        if row.get("__deleted") in ("true", True):
            return Unwrapped(None, path)
        return _decimals(row, schema, path)
    operation = row["op"]
    if operation in _OTHERS:
        return Unwrapped(None, path)
    if operation not in _ROWS:
        expected = ", ".join((*_ROWS, *_OTHERS))
        return _fault(f"one of {expected}", operation, f"{path}.op")
    return _decimals(row.get("after"), _field_schema(schema, "after"), f"{path}.after")


def _connect(value: Any) -> Unwrapped | Fault:
    row, path, schema = _payload(value)
    return _decimals(row, schema, path)


def _cloudevents(value: Any) -> Unwrapped | Fault:
    if not isinstance(value, dict) or "specversion" not in value:
        return Unwrapped(value)
    if "data_base64" not in value:
        return Unwrapped(value.get("data"), "$.data")
    path = "$.data_base64"
    try:
        return Unwrapped(orjson.loads(base64.b64decode(value["data_base64"], validate=True)), path)
    except (binascii.Error, ValueError, TypeError):
        return _fault("base64 of a JSON value", value["data_base64"], path)


def _ksql(value: Any) -> Unwrapped | Fault:
    return Unwrapped(_lower(value, _DEPTH_MAX))


_KINDS: Final[dict[Unwrap, Callable[[Any], Unwrapped | Fault]]] = {
    "debezium": _debezium,
    "connect": _connect,
    "cloudevents": _cloudevents,
    "ksql": _ksql,
}


def _payload(value: Any) -> tuple[Any, str, Any]:
    """The payload, where it stands, and its schema where that came with it."""
    if isinstance(value, dict) and "payload" in value and set(value) <= {"schema", "payload"}:
        return value["payload"], "$.payload", value.get("schema")
    return value, "$", None


def _row(row: Any, path: str) -> Unwrapped | Fault:
    if row is None or isinstance(row, dict):
        return Unwrapped(row, path)
    return _fault("a row (an object)", row, path)


def _field_schema(schema: Any, name: str) -> Any:
    fields = schema.get("fields") if isinstance(schema, dict) else None
    for field in fields if isinstance(fields, list) else ():
        if isinstance(field, dict) and field.get("field") == name:
            return field
    return None


def _decimals(row: Any, schema: Any, path: str) -> Unwrapped | Fault:
    """The row with numbers in place of the decimals that its schema names."""
    fields = schema.get("fields") if isinstance(schema, dict) else None
    if not isinstance(row, dict) or not isinstance(fields, list):
        return _row(row, path)
    numbers: dict[str, float] = {}
    for field in fields:
        if not isinstance(field, dict) or not isinstance(name := field.get("field"), str):
            continue
        if row.get(name) is None or field.get("name") not in (_DECIMAL, _VARIABLE_DECIMAL):
            continue
        try:
            numbers[name] = _decimal(row[name], field)
        except BadValue as bad:
            return _fault(str(bad), row[name], f"{path}.{name}")
    return Unwrapped({**row, **numbers}, path)


def _decimal(value: Any, field: dict[str, Any]) -> float:
    if isinstance(value, int | float | str) and field.get("type") != "bytes":
        raise BadValue("a decimal with its scale")
    if isinstance(value, dict):
        scale, value = value.get("scale"), value.get("value")
    else:
        parameters = field.get("parameters")
        scale = parameters.get("scale") if isinstance(parameters, dict) else None
    try:
        digits = int(scale) if isinstance(scale, int | str) else None
    except ValueError:
        digits = None
    if digits is None or not 0 <= digits <= 60:
        raise BadValue("a decimal with its scale")
    return decimal_number(value, digits)


def _lower(value: Any, depth: int) -> Any:
    if not depth:
        return value
    if isinstance(value, dict):
        return {str(key).lower(): _lower(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_lower(item, depth - 1) for item in value]
    return value


def _fault(expected: str, got: Any, path: str) -> Fault:
    return Fault(reason="map", path=path, detail=f"expected {expected}, got {show(got)} at {path}")
