"""The output events in Protobuf: messages derived from the event types, values in and out.

An event type is a .proto file with one message, in which the structs that it uses are
nested. A field's number is its place in the type, so fields are only ever added at the
end. What may be null is `optional`. protobuf is loaded when first used.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import msgspec
from msgspec import inspect

from .event_schemas import EVENT_TYPES
from .events import DataUpdated, FlashReady

PACKAGE: Final = "flashfeed"
_PLAIN: Final[dict[type, str]] = {
    inspect.StrType: "string",
    inspect.LiteralType: "string",
    inspect.IntType: "int64",
    inspect.FloatType: "double",
    inspect.BoolType: "bool",
}


@cache
def proto_text(name: str) -> str:
    """The .proto file of the value of `flashfeed.<name>`."""
    kind = inspect.type_info(EVENT_TYPES[name])
    assert isinstance(kind, inspect.StructType)
    lines = ['syntax = "proto3";', "", f"package {PACKAGE};", "", *_message(kind, _structs(kind))]
    return "\n".join(lines) + "\n"


def encode_protobuf(name: str, data: FlashReady | DataUpdated) -> bytes:
    """An event as a Protobuf message, without any framing. The same event, the same bytes."""
    message = _message_class(name)()
    _fill(message, msgspec.to_builtins(data))
    encoded: bytes = message.SerializeToString(deterministic=True)
    return encoded


def decode_protobuf(name: str, value: bytes) -> Any:
    """The fields of an event in Protobuf; ValueError where it is none."""
    from google.protobuf.message import DecodeError

    message = _message_class(name)()
    try:
        message.ParseFromString(value)
    except DecodeError as error:
        raise ValueError(f"not Protobuf: {error}") from None
    return _fields(message)


# -- the file as text ---------------------------------------------------------------


def _structs(kind: inspect.StructType) -> list[inspect.StructType]:
    """The structs in a struct's fields, each once."""
    found: dict[str, inspect.StructType] = {}
    for field in kind.fields:
        inner, _ = _element(field.type)
        if isinstance(inner, inspect.StructType):
            found[inner.cls.__name__] = inner
            found |= {one.cls.__name__: one for one in _structs(inner)}
    return list(found.values())


def _message(kind: inspect.StructType, nested: list[inspect.StructType]) -> list[str]:
    lines = [f"message {kind.cls.__name__} {{"]
    for one in nested:
        lines += [f"  {line}" for line in _message(one, [])]
    for number, field in enumerate(kind.fields, 1):
        inner, label = _element(field.type)
        of = inner.cls.__name__ if isinstance(inner, inspect.StructType) else _PLAIN[type(inner)]
        typed = f"map<string, {of}>" if label == "map" else f"{label} {of}".strip()
        lines.append(f"  {typed} {field.name} = {number};")
    return [*lines, "}"]


def _element(kind: inspect.Type) -> tuple[inspect.Type, str]:
    """What a field's type is made of, and its label: "", optional, repeated or map."""
    match kind:
        case inspect.UnionType() if kind.includes_none:
            [other] = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
            return other, "optional"
        case inspect.VarTupleType(item_type=item):
            return item, "repeated"
        case inspect.DictType(value_type=value):
            return value, "map"
        case _:
            return kind, ""


# -- the same as a descriptor, and values ------------------------------------------------


@cache
def _message_class(name: str) -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kind = inspect.type_info(EVENT_TYPES[name])
    assert isinstance(kind, inspect.StructType)
    file = descriptor_pb2.FileDescriptorProto(
        name=f"flashfeed_{name}.proto", package=PACKAGE, syntax="proto3"
    )
    top = file.message_type.add()
    _describe(top, kind, f".{PACKAGE}.{kind.cls.__name__}")
    for one in _structs(kind):
        _describe(top.nested_type.add(), one, f".{PACKAGE}.{kind.cls.__name__}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName(f"{PACKAGE}.{kind.cls.__name__}")
    return message_factory.GetMessageClass(found)


def _describe(message: Any, kind: inspect.StructType, scope: str) -> None:
    """Fill a DescriptorProto; nested messages are named in `scope`."""
    message.name = kind.cls.__name__
    nested = scope if scope.endswith(f".{message.name}") else f"{scope}.{message.name}"
    for number, part in enumerate(kind.fields, 1):
        inner, label = _element(part.type)
        field = message.field.add(name=part.name, number=number)
        field.label = field.LABEL_REPEATED if label in ("repeated", "map") else field.LABEL_OPTIONAL
        if label == "map":
            # What protoc makes of map<string, T>: a message of key and value.
            entry = message.nested_type.add(name=f"{_camel(part.name)}Entry")
            entry.options.map_entry = True
            key = entry.field.add(name="key", number=1, label=field.LABEL_OPTIONAL)
            key.type = field.TYPE_STRING
            value = entry.field.add(name="value", number=2, label=field.LABEL_OPTIONAL)
            _set_type(value, inner, scope)
            field.type, field.type_name = field.TYPE_MESSAGE, f"{nested}.{entry.name}"
            continue
        _set_type(field, inner, scope)
        if label == "optional":
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{part.name}")


def _set_type(field: Any, kind: inspect.Type, scope: str) -> None:
    if isinstance(kind, inspect.StructType):
        field.type, field.type_name = field.TYPE_MESSAGE, f"{scope}.{kind.cls.__name__}"
    else:
        field.type = getattr(field, f"TYPE_{_PLAIN[type(kind)].upper()}")


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _fill(message: Any, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if value is None:
            continue
        if isinstance(value, dict):
            target = getattr(message, name)
            if message.DESCRIPTOR.fields_by_name[name].message_type.GetOptions().map_entry:
                target.update(value)
            else:
                target.SetInParent()
                _fill(target, value)
        elif isinstance(value, list | tuple):
            for one in value:
                if isinstance(one, dict):
                    _fill(getattr(message, name).add(), one)
                else:
                    getattr(message, name).append(one)
        else:
            setattr(message, name, value)


def _fields(message: Any) -> dict[str, Any]:
    """A message's fields as plain values; None for what is optional and not there."""
    out: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            out[field.name] = dict(value)
        elif field.is_repeated:
            nested = field.message_type is not None
            out[field.name] = [_fields(one) if nested else one for one in value]
        elif field.has_presence and not message.HasField(field.name):
            out[field.name] = None
        elif field.message_type is not None:
            out[field.name] = _fields(value)
        else:
            out[field.name] = value
    return out
