"""Avro, read by fastavro with the writer's schema.

    framing      which schema a message has
    none         that of `schema_file`, for every message
    single_object  0xC3 0x01 and the fingerprint of `schema_file`'s schema (Avro 1.11, "Single
                 object encoding"); another fingerprint is an unknown schema
    confluent, apicurio, apicurio_v2   the one its id names in the schema registry

Values are as Avro has them: a timestamp is its number (give the mapping `ts:ms`), an enum
its symbol, bytes are bytes. A decimal is a Decimal. What is left over behind the value is a
fault: the schema is not the one it was written with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import fastavro
import orjson
from fastavro.schema import fingerprint, to_parsing_canonical_form

from ..models.errors import BadSchema, ConfigError, FramingFault, UnknownSchema
from .avro_schema import AvroReader, read_avro_schema
from .codec import Codec, Options, Outside, SchemaText, read_option_file
from .framing import UNFRAME, choose_framing
from .parts import Source
from .schema_cache import SchemaCache

_SINGLE_OBJECT: Final = b"\xc3\x01"


class AvroOptions(Options, frozen=True, kw_only=True):
    """`schema_file`: an .avsc file, where messages do not name a schema in the registry.
    `framing`: by default the registry's where one is configured and no file is named."""

    schema_file: str = ""
    framing: Literal["", "none", "single_object", "confluent", "apicurio", "apicurio_v2"] = ""


def build(options: AvroOptions, outside: Outside) -> Codec:
    """A codec of one Avro value a message."""
    framing = options.framing
    kind = (
        None
        if framing == "single_object"
        else choose_framing(framing, options.schema_file, outside)
    )
    if kind is None:
        if not options.schema_file:
            raise ConfigError("schema_file: expected a file, or a [schema_registry]")
        text = read_option_file(outside, "schema_file", options.schema_file)
        return _of_file(text, options)
    assert outside.schemas is not None
    readers = SchemaCache(outside.schemas, _reader)
    unframe = UNFRAME[kind]

    def decode(payload: bytes | None, source: Source) -> Sequence[Any]:
        if not payload:
            return ()
        frame = unframe(payload, source.headers)
        return (readers[frame.reference](payload, 0 if frame.in_header else frame.ahead_at),)

    return decode


def _reader(schema: SchemaText) -> AvroReader:
    if schema.type != "AVRO":
        raise BadSchema(f"expected an Avro schema, got {schema.type}")
    return read_avro_schema(schema.text, [text for _, text in schema.references])


def _of_file(text: bytes, options: AvroOptions) -> Codec:
    try:
        read = read_avro_schema(text.decode())
    except (BadSchema, UnicodeDecodeError) as fault:
        raise ConfigError(f"schema_file: {options.schema_file}: {fault}") from None
    if options.framing == "single_object":
        return _single_object(read, orjson.loads(text))

    def decode(payload: bytes | None, source: Source) -> Sequence[Any]:
        return (read(payload, 0),) if payload else ()

    return decode


def _single_object(read: AvroReader, schema: Any) -> Codec:
    canonical = to_parsing_canonical_form(fastavro.parse_schema(schema))
    # fastavro gives the hexadecimal text of the bytes as they stand in a message.
    wanted = bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))

    def decode(payload: bytes | None, source: Source) -> Sequence[Any]:
        if not payload:
            return ()
        if payload[:2] != _SINGLE_OBJECT or len(payload) < 10:
            raise FramingFault(
                f"expected 0xc301 and an 8-byte fingerprint, got 0x{payload[:10].hex()}"
            )
        if payload[2:10] != wanted:
            raise UnknownSchema(
                f"expected fingerprint {wanted.hex()}, which schema_file has, "
                f"got {payload[2:10].hex()}"
            )
        return (read(payload, 10),)

    return decode
