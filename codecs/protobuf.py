"""Protobuf, read by upb through descriptors: no compiled classes.

    framing                      whose message it is
    none                         `message` of `descriptor_file`, a compiled descriptor set
                                 (protoc --include_imports --descriptor_set_out=FILE)
    confluent                    the message that the frame's indexes name, in the file that
                                 its id names in the registry
    apicurio, apicurio_v2        the message that a length and a Ref in front of it name; with
                                 the id in a header `message`, or the file's only message

Beside a `descriptor_file` a frame is taken off, and the messages are that file's: for a
registry that keeps the text of .proto files and does not compile them.
protobuf_reader.py says what a message looks like as a value.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

from ..models.errors import BadSchema, ConfigError, FramingFault
from .codec import (
    Codec,
    Options,
    Outside,
    RegistryKind,
    SchemaRef,
    SchemaText,
    read_option_file,
)
from .framing import (
    FRAME_BYTES,
    UNFRAME,
    Frame,
    Framing,
    choose_framing,
    read_indexes,
    read_varint,
)
from .parts import Source
from .protobuf_reader import MessageReader, ProtobufFile
from .schema_cache import SchemaCache, make_room

# The name of the message inside Apicurio's Ref: field 1, length-delimited.
_REF_NAME: Final = 0x0A

# From the frame: the message's reader, and where the value begins.
_FindReader: TypeAlias = Callable[[ProtobufFile, Frame], tuple[MessageReader, int]]


class ProtobufOptions(Options, frozen=True, kw_only=True):
    """`descriptor_file`: a compiled descriptor set, where messages do not name a schema in
    the registry. `message`: the full name of the message in it. `framing`: by default the
    registry's where one is configured and no file is named."""

    descriptor_file: str = ""
    message: str = ""
    framing: Framing = ""


def build(options: ProtobufOptions, outside: Outside) -> Codec:
    """A codec of one Protobuf message a message."""
    kind = choose_framing(options.framing, options.descriptor_file, outside)
    if options.descriptor_file:
        file = _of_file(options, outside)
        if kind is None:
            return _unframed(options, file)
        return _framed(options, kind, lambda _: file)
    if kind is None or outside.schemas is None:
        raise ConfigError("descriptor_file: expected a file, or a [schema_registry]")
    files = SchemaCache(outside.schemas, partial(_file, outside.fields))
    return _framed(options, kind, files.__getitem__)


def _framed(
    options: ProtobufOptions, kind: RegistryKind, find_file: Callable[[SchemaRef], ProtobufFile]
) -> Codec:
    unframe = UNFRAME[kind]
    find = _by_indexes if kind == "confluent" else _by_name(options.message)
    # What the bytes in front of a value stand for never changes: one index or the first
    # message is seven bytes or six, and looking them up is all there is to do.
    seen: dict[bytes, MessageReader] = {}
    shorter, longer = FRAME_BYTES[kind] + 1, FRAME_BYTES[kind] + 2

    def decode(payload: bytes | None, source: Source) -> Sequence[Any]:
        if not payload:
            return ()
        if not source.headers:
            known = seen.get(payload[:shorter])
            if known is not None:
                return (known(payload[shorter:]),)
            known = seen.get(payload[:longer])
            if known is not None:
                return (known(payload[longer:]),)
        frame = unframe(payload, source.headers)
        read, at = find(find_file(frame.reference), frame)
        if frame.in_header:
            return (read(payload),)
        if at <= longer:
            make_room(seen)
            seen[payload[:at]] = read
        return (read(payload[at:]),)

    return decode


def _of_file(options: ProtobufOptions, outside: Outside) -> ProtobufFile:
    data = read_option_file(outside, "descriptor_file", options.descriptor_file)
    try:
        # With its imports before it, as protoc writes them, the file itself is the last.
        return ProtobufFile(list(FileDescriptorSet.FromString(data).file), outside.fields)
    except (DecodeError, BadSchema) as fault:
        raise ConfigError(
            f"descriptor_file: {options.descriptor_file}: not a compiled descriptor set: {fault}"
        ) from None


def _unframed(options: ProtobufOptions, file: ProtobufFile) -> Codec:
    try:
        read = file.named(options.message) if options.message else file.only()
    except FramingFault as fault:
        raise ConfigError(f"message: {fault}") from None

    def decode(payload: bytes | None, source: Source) -> Sequence[Any]:
        return (read(payload),) if payload else ()

    return decode


def _file(fields: tuple[str, ...] | None, schema: SchemaText) -> ProtobufFile:
    if schema.type != "PROTOBUF":
        raise BadSchema(f"expected a Protobuf schema, got {schema.type}")
    files = [_descriptor(text, name) for name, text in schema.references]
    return ProtobufFile([*files, _descriptor(schema.text, "")], fields)


def _descriptor(text: str, name: str) -> FileDescriptorProto:
    """A file's descriptor; a reference goes by the name that others import it under."""
    try:
        file = FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, DecodeError):
        raise BadSchema(
            "expected a file descriptor in base64, got the text of a .proto file; compile it "
            "(protoc --include_imports --descriptor_set_out=FILE) and give it as "
            "codec_options.descriptor_file, with the same framing"
        ) from None
    if name:
        file.name = name
    return file


def _by_indexes(file: ProtobufFile, frame: Frame) -> tuple[MessageReader, int]:
    indexes, at = read_indexes(frame.ahead, frame.ahead_at)
    return file.at(indexes), at


def _by_name(message: str) -> _FindReader:
    def find(file: ProtobufFile, frame: Frame) -> tuple[MessageReader, int]:
        if frame.in_header:
            return (file.named(message) if message else file.only()), 0
        size, at = read_varint(frame.ahead, frame.ahead_at)
        ref = frame.ahead[at : at + size]
        if len(ref) != size or ref[:1] != bytes((_REF_NAME,)):
            raise FramingFault(f"expected Apicurio's Ref of {size} bytes, got 0x{ref[:8].hex()}")
        length, start = read_varint(ref, 1)
        name = ref[start : start + length].decode("utf-8", "replace")
        return file.named(name), at + size

    return find
