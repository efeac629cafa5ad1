"""Protobuf by descriptors, against compiled classes and Confluent's own serializer."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import header_schema_id_serializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import struct_pb2, wrappers_pb2
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.codec import SchemaRef, SchemaText
from flashfeed.codecs.protobuf_reader import make_reader
from flashfeed.codecs.registry import codec
from flashfeed.models.errors import ConfigError, DecodeFault

from codec_samples import (
    CANDLE,
    KnownSchemas,
    candle_file,
    candle_message,
    message_class,
    outside,
    source,
    write_files,
)

FULL = {
    **CANDLE,
    "levels": [{"price": 1.5, "from": "x"}],
    "side": "BUY",
    "at": 1_700_000_000.25,
    "ids": [1, 2, 3],
    "tags": {"a": "b"},
}


def serialize(schemas: KnownSchemas, message: Any, **conf: Any) -> tuple[bytes, Any]:
    serializer = ProtobufSerializer(
        type(message), schemas.client, conf={"use.deprecated.format": False, **conf}
    )
    headers: list[tuple[str, bytes]] = []
    payload = serializer(message, SerializationContext("candles", MessageField.VALUE, headers))
    assert isinstance(payload, bytes)
    return payload, headers


def test_a_descriptor_file(tmp_path: Path) -> None:
    _, file = write_files(tmp_path)
    read = codec("protobuf", {"descriptor_file": file, "message": "md.Candle"}, outside())
    message = candle_message()
    assert read(message.SerializeToString(), source()) == (FULL,)
    message.bid = 0.0
    assert read(message.SerializeToString(), source()) == ({**FULL, "bid": 0.0},)
    (empty,) = codec("protobuf", {"descriptor_file": file, "message": "Candle"}, outside())(
        message_class("md.Candle")(ids=[0]).SerializeToString(), source()
    )
    # Defaults are there, and what knows that it is not set is not.
    assert (empty["open"], empty["side"], empty["tags"]) == (0.0, "NONE", {})
    assert "at" not in empty and "bid" not in empty
    with pytest.raises(
        ConfigError, match=r"expected codec_options.message to name one of md.Candle"
    ):
        codec("protobuf", {"descriptor_file": file}, outside())
    with pytest.raises(ConfigError, match=r"message: no message called 'md.Cndle'; the file has"):
        codec("protobuf", {"descriptor_file": file, "message": "md.Cndle"}, outside())


def test_confluents_serializer() -> None:
    schemas = KnownSchemas()
    read = codec("protobuf", {}, outside(schemas))
    payload, _ = serialize(schemas, candle_message())
    assert payload[5:7] == b"\x02\x02"  # zigzag: one index, and it is 1
    assert read(payload, source()) == (FULL,)
    other, _ = serialize(schemas, message_class("md.Other")(note="n"))
    assert other[5:6] == b"\x00"  # index [0] is one byte
    assert read(other, source()) == ({"note": "n"},)
    level, _ = serialize(schemas, message_class("md.Candle.Level")(price=2.5))
    assert level[5:8] == b"\x04\x02\x00"  # a message inside another
    assert read(level, source()) == ({"price": 2.5, "from": ""},)


def test_confluents_serializer_with_a_guid_and_the_indexes_in_a_header() -> None:
    schemas = KnownSchemas()
    payload, headers = serialize(
        schemas, candle_message(), **{"schema.id.serializer": header_schema_id_serializer}
    )
    assert len(headers[0][1]) == 19
    assert codec("protobuf", {}, outside(schemas))(payload, source(headers=headers)) == (FULL,)


@pytest.mark.parametrize("kind", ["apicurio", "apicurio_v2"])
def test_apicurios_ref(kind: Any) -> None:
    reference = SchemaRef("content_id" if kind == "apicurio" else "global_id", 9)
    schemas = KnownSchemas(kind=kind)
    descriptor = base64.b64encode(candle_file().SerializeToString()).decode()
    schemas.texts[reference] = SchemaText("PROTOBUF", descriptor)
    read = codec("protobuf", {}, outside(schemas))
    frame = b"\0" + (9).to_bytes(4 if kind == "apicurio" else 8, "big")
    ref = b"\x0a\x06Candle"
    body = candle_message().SerializeToString()
    assert read(frame + bytes([len(ref)]) + ref + body, source()) == (FULL,)
    with pytest.raises(DecodeFault, match="no message called 'Candlx'"):
        read(frame + bytes([len(ref)]) + b"\x0a\x06Candlx" + body, source())


def test_the_faults_are_told_apart() -> None:
    schemas = KnownSchemas()
    payload, _ = serialize(schemas, candle_message())
    schemas.texts[SchemaRef("id", 77)] = SchemaText("PROTOBUF", 'syntax = "proto3"; message A {}')
    read = codec("protobuf", {}, outside(schemas))
    for data, reason, said in (
        (b"\x08\x96\x01", "bad_framing", "got 0x089601"),
        (payload[:5] + b"\x02\x40" + payload[7:], "bad_framing", "got indexes [32]"),
        (payload[:5] + b"\xff" * 20, "bad_framing", "expected a varint at byte 5"),
        (payload[:5] + b"\x01", "bad_framing", "message indexes, got -1"),
        (b"\0\0\0\xff\xff" + payload[5:], "unknown_schema", "id 65535"),
        (b"\0\0\0\0\x4d" + payload[5:], "bad_schema", "got the text of a .proto file"),
        (payload[:-2], "decode", "expected a message md.Candle"),
    ):
        with pytest.raises(DecodeFault) as caught:
            read(data, source())
        assert caught.value.reason == reason
        assert said in str(caught.value)


def test_well_known_types() -> None:
    struct = struct_pb2.Struct()
    value = {"a": 1.5, "b": [True, None, "x"], "c": {"d": 2.0}}
    struct.update(value)
    assert make_reader(struct_pb2.Struct.DESCRIPTOR)(struct.SerializeToString()) == value
    wrapped = wrappers_pb2.Int64Value(value=7)
    assert make_reader(wrappers_pb2.Int64Value.DESCRIPTOR)(wrapped.SerializeToString()) == 7


def test_a_message_nested_deep_is_a_fault() -> None:
    deep = b""
    for _ in range(300):
        item = b"\x0a" + _varint(len(deep)) + deep  # ListValue.values
        deep = b"\x32" + _varint(len(item)) + item  # Value.list_value
    with pytest.raises(DecodeFault, match=r"google.protobuf.Value, got a fault"):
        make_reader(struct_pb2.Value.DESCRIPTOR)(deep)


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


@given(
    st.fixed_dictionaries(
        {
            "exchange": st.text(),
            "trades": st.integers(-(2**63), 2**63 - 1),
            "open": st.floats(allow_nan=False),
            "closed": st.booleans(),
            "ids": st.lists(st.integers(-(2**31), 2**31 - 1)),
            "tags": st.dictionaries(st.text(), st.text()),
        }
    )
)
def test_reads_what_message_to_dict_reads(fields: dict[str, Any]) -> None:
    kind = message_class("md.Candle")
    message = kind(**fields)
    value = make_reader(kind.DESCRIPTOR)(message.SerializeToString())
    said = MessageToDict(message, preserving_proto_field_name=True)
    for name, given_value in fields.items():
        assert value[name] == given_value
        if name == "trades":  # the one that it makes a text of
            assert str(value[name]) == said.get(name, "0")
