"""The output events in Avro: schemas derived from the event types, values in and out.

A struct is a record in the namespace `flashfeed`, each field under its own name; what may
be null is a union with null, and null by default. fastavro is loaded when first used.
"""

from __future__ import annotations

import io
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import inspect

from .event_schemas import EVENT_TYPES
from .events import DataUpdated, FlashReady

NAMESPACE: Final = "flashfeed"
_PLAIN: Final[dict[type, str]] = {
    inspect.StrType: "string",
    inspect.LiteralType: "string",
    inspect.IntType: "long",
    inspect.FloatType: "double",
    inspect.BoolType: "boolean",
}


@cache
def avro_schema(name: str) -> dict[str, Any]:
    """The Avro schema of the value of `flashfeed.<name>`."""
    schema: dict[str, Any] = _avro(inspect.type_info(EVENT_TYPES[name]), set())
    return schema


def encode_avro(name: str, data: FlashReady | DataUpdated) -> bytes:
    """An event as Avro, without any framing."""
    import fastavro

    out = io.BytesIO()
    fastavro.schemaless_writer(out, _parsed(name), msgspec.to_builtins(data))
    return out.getvalue()


def decode_avro(name: str, value: bytes) -> Any:
    """The fields of an event in Avro; ValueError where it is none."""
    import fastavro

    source = io.BytesIO(value)
    try:
        fields = fastavro.schemaless_reader(source, _parsed(name), None)
    except (EOFError, IndexError, OverflowError, UnicodeDecodeError, MemoryError) as error:
        raise ValueError(f"not Avro: {type(error).__name__}") from None
    if source.read(1):
        raise ValueError("not Avro: bytes are left over")
    return fields


@cache
def _parsed(name: str) -> Any:
    import fastavro

    return fastavro.parse_schema(avro_schema(name))


def _avro(kind: inspect.Type, named: set[str]) -> Any:
    """The schema of a type; `named` are the records that stand in it already."""
    match kind:
        case inspect.StructType(cls=cls):
            if cls.__name__ in named:
                return f"{NAMESPACE}.{cls.__name__}"
            named.add(cls.__name__)
            fields = [_field(field, named) for field in kind.fields]
            return {
                "type": "record",
                "name": cls.__name__,
                "namespace": NAMESPACE,
                "doc": (cls.__doc__ or "").partition("\n\n")[0],
                "fields": fields,
            }
        case inspect.UnionType() if kind.includes_none:
            [other] = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
            return ["null", _avro(other, named)]
        case inspect.VarTupleType(item_type=item):
            return {"type": "array", "items": _avro(item, named)}
        case inspect.DictType(value_type=value):
            return {"type": "map", "values": _avro(value, named)}
        case _:
            return _PLAIN[type(kind)]


def _field(field: inspect.Field, named: set[str]) -> dict[str, Any]:
    schema = _avro(field.type, named)
    default: Any = field.default
    if isinstance(schema, list):
        default = None
    # Who reads an event of before the field was there takes the default.
    known = default is None or isinstance(default, bool)
    return {"name": field.name, "type": schema} | ({"default": default} if known else {})
