"""Protobuf messages as values: objects with the names that the .proto file has, or Rows.

A field that knows whether it is set (optional, a message, one of a oneof) is absent where
it is not; any other has its default. Enums are their names, and numbers where a name is
not known. 64-bit integers stay integers. Of the well-known types a Timestamp and a Duration
are seconds, a wrapper is what it wraps, Struct, Value and ListValue are plain values.

MessageToDict takes 15 us for a candle. Here a function is written for each message type,
as compiler.py does for a mapping: a dict of reads, 1 us, or a tuple of them. What is emitted
is of this file's own making; names of the schema enter as string literals written by
`ascii()`, or as an attribute where they are plain identifiers.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from ..models.errors import BadSchema, DecodeFault, FramingFault

MessageReader: TypeAlias = Callable[[bytes], Any]

TYPES_MAX: Final = 2000
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_KNOWN_FILES: Final = tuple(
    module.DESCRIPTOR
    for module in (
        descriptor_pb2, any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2,
        timestamp_pb2, wrappers_pb2,
    )
)  # fmt: skip


class ProtobufFile:
    """A .proto file, the last of `files`; the others are what it imports, each before those
    that need it. Of its messages `fields` are read as Rows, or all. Raises BadSchema where
    the files do not fit together."""

    def __init__(
        self, files: Sequence[FileDescriptorProto], fields: tuple[str, ...] | None = None
    ) -> None:
        if not files:
            raise BadSchema("expected a file descriptor, got none")
        pool = DescriptorPool()
        try:
            for known in _KNOWN_FILES:
                pool.AddSerializedFile(known.serialized_pb)
            names = {known.name for known in _KNOWN_FILES}
            for file in files:
                if file.name not in names:
                    pool.AddSerializedFile(file.SerializeToString())
            self._file = pool.FindFileByName(files[-1].name)
        except (TypeError, KeyError, ValueError, DecodeError) as bad:
            raise BadSchema(f"the file descriptors do not fit together: {bad}") from None
        self._pool = pool
        self._fields = fields
        self._top = list(self._file.message_types_by_name.values())
        self._by_index: dict[tuple[int, ...], MessageReader] = {}
        self._by_name: dict[str, MessageReader] = {}

    def at(self, indexes: tuple[int, ...]) -> MessageReader:
        """The reader of the message at a path of indexes. Raises FramingFault."""
        reader = self._by_index.get(indexes)
        if reader is None:
            reader = self._by_index[indexes] = make_reader(self._descriptor(indexes), self._fields)
        return reader

    def _descriptor(self, indexes: tuple[int, ...]) -> Descriptor:
        level: Sequence[Descriptor] = self._top
        found: Descriptor | None = None
        for index in indexes:
            if not 0 <= index < len(level):
                raise FramingFault(
                    f"expected a message of {self._file.name}, got indexes {list(indexes)}"
                )
            found = level[index]
            level = found.nested_types
        assert found is not None
        return found

    def named(self, name: str) -> MessageReader:
        """The reader of a message by its full name, or by its name in the file. Raises
        FramingFault."""
        reader = self._by_name.get(name)
        if reader is not None:
            return reader
        package = self._file.package
        for full in (name, f"{package}.{name}" if package else name):
            try:
                descriptor = self._pool.FindMessageTypeByName(full)
            except KeyError:
                continue
            self._by_name[name] = make_reader(descriptor, self._fields)
            return self._by_name[name]
        known = ", ".join(sorted(one.full_name for one in self._top)[:20])
        raise FramingFault(f"no message called {name[:100]!a}; the file has {known}")

    def only(self) -> MessageReader:
        """The reader of the file's only message. Raises FramingFault where it has more."""
        if len(self._top) == 1:
            return self.at((0,))
        known = ", ".join(sorted(one.full_name for one in self._top)[:20])
        raise FramingFault(f"expected codec_options.message to name one of {known or 'none'}")


def make_reader(descriptor: Descriptor, fields: tuple[str, ...] | None = None) -> MessageReader:
    """A function from bytes to a message's value, or to the Row of its `fields`. It raises
    DecodeFault."""
    return _Writer().compile(descriptor, fields)


class _Writer:
    """Writes a function for a message type and for each type in it."""

    def __init__(self) -> None:
        self._scope: dict[str, Any] = {
            "__builtins__": {},
            "getattr": getattr,
            "key_text": _key_text,
        }
        self._names: dict[str, str] = {}
        self._texts: list[str] = []

    def compile(self, descriptor: Descriptor, fields: tuple[str, ...] | None) -> MessageReader:
        """The function from the bytes of a message of that type to its value or Row."""
        name = descriptor.full_name

        def fault(bad: Exception) -> DecodeFault:
            return DecodeFault(f"expected a message {name}, got a fault: {bad}")

        self._scope["parse"] = message_factory.GetMessageClass(descriptor).FromString
        # proto2 keeps text that is not UTF-8 until somebody reads it.
        self._scope["Faults"] = (DecodeError, UnicodeDecodeError, RecursionError)
        self._scope["fault"] = fault
        if name in _WELL_KNOWN:
            body = [f"return {self._reader(descriptor)}(m)"]
        elif fields is None:
            body = self._body(descriptor)
        else:
            body = [f"return ({''.join(f'{self._cell(descriptor, one)}, ' for one in fields)})"]
        lines = ["def read(data):", "    try:", "        m = parse(data)"]
        lines += [f"        {line}" for line in body]
        lines += ["    except Faults as bad: raise fault(bad) from None"]
        text = "\n".join([*self._texts, *lines])
        exec(compile(text, f"<message {name}>", "exec"), self._scope)
        function: MessageReader = self._scope["read"]
        return function

    def _reader(self, descriptor: Descriptor) -> str:
        full = descriptor.full_name
        if full in self._names:
            return self._names[full]
        if len(self._names) >= TYPES_MAX:
            raise BadSchema(f"a message of more than {TYPES_MAX} types")
        name = self._names[full] = f"read_{len(self._names)}"
        if full in _WELL_KNOWN:
            self._scope[name] = _WELL_KNOWN[full]
            return name
        lines = [f"    {line}" for line in self._body(descriptor)]
        self._texts.append("\n".join([f"def {name}(m):", *lines]))
        return name

    def _cell(self, descriptor: Descriptor, name: str) -> str:
        """A field as a Row has it."""
        field = descriptor.fields_by_name.get(name)
        if field is None:
            return "None"
        read = self._read(field)
        return f"({read} if m.HasField({name!a}) else None)" if field.has_presence else read

    def _body(self, descriptor: Descriptor) -> list[str]:
        """The lines that return the value of the message `m`."""
        always: list[str] = []
        where_set: list[str] = []
        for field in descriptor.fields:
            read = self._read(field)
            if field.has_presence:
                where_set.append(f"if m.HasField({field.name!a}): found[{field.name!a}] = {read}")
            else:
                always.append(f"{field.name!a}: {read}")
        if not where_set:
            return [f"return {{{', '.join(always)}}}"]
        return [f"found = {{{', '.join(always)}}}", *where_set, "return found"]

    def _read(self, field: FieldDescriptor) -> str:
        plain = _IDENTIFIER.fullmatch(field.name) and not keyword.iskeyword(field.name)
        access = f"m.{field.name}" if plain else f"getattr(m, {field.name!a})"
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            value = self._value(kind.fields_by_name["value"], f"{access}[k]")
            return f"{{key_text(k): {value} for k in {access}}}"
        if field.is_repeated:
            value = self._value(field, "v")
            return f"[*{access}]" if value == "v" else f"[{value} for v in {access}]"
        return self._value(field, access)

    def _value(self, field: FieldDescriptor, access: str) -> str:
        if field.message_type is not None:
            return f"{self._reader(field.message_type)}({access})"
        if field.enum_type is not None:
            return f"{self._enum(field.enum_type)}.get({access}, {access})"
        return access

    def _enum(self, enum: EnumDescriptor) -> str:
        name = f"enum_{enum.full_name.replace('.', '_')}"
        self._scope[name] = {value.number: value.name for value in reversed(enum.values)}
        return name


def _key_text(key: Any) -> str:
    if type(key) is bool:
        return "true" if key else "false"
    return str(key)


def _seconds(message: Any) -> float:
    return float(message.seconds) + float(message.nanos) / 1e9


def _wrapped(message: Any) -> Any:
    return message.value


def _plain_value(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind == "struct_value":
        return _plain_struct(message.struct_value)
    if kind == "list_value":
        return _plain_list(message.list_value)
    return None if kind in (None, "null_value") else getattr(message, kind)


def _plain_struct(message: Any) -> Any:
    return {key: _plain_value(value) for key, value in message.fields.items()}


def _plain_list(message: Any) -> Any:
    return [_plain_value(value) for value in message.values]


_WELL_KNOWN: Final[dict[str, Callable[[Any], Any]]] = {
    "google.protobuf.Timestamp": _seconds,
    "google.protobuf.Duration": _seconds,
    "google.protobuf.Struct": _plain_struct,
    "google.protobuf.Value": _plain_value,
    "google.protobuf.ListValue": _plain_list,
    **{
        f"google.protobuf.{kind}Value": _wrapped
        for kind in (
            "Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes",
        )
    },
}  # fmt: skip
