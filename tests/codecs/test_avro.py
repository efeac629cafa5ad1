"""Avro of every framing, against fastavro's and Confluent's own writers."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import orjson
import pytest
from confluent_kafka.schema_registry import Schema, header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.avro_schema import NODES_MAX, read_avro_schema
from flashfeed.codecs.codec import Codec, SchemaRef, SchemaText
from flashfeed.codecs.registry import codec
from flashfeed.models.errors import BadSchema, ConfigError, DecodeFault

from codec_samples import AVRO_CANDLE, CANDLE, KnownSchemas, avro_bytes, outside, source


def of_file(tmp_path: Path, schema: Any, **options: Any) -> Codec:
    file = tmp_path / "s.avsc"
    file.write_bytes(orjson.dumps(schema))
    return codec("avro", {"schema_file": str(file), **options}, outside())


def serialize(schemas: KnownSchemas, schema: Any, value: Any, **conf: Any) -> tuple[bytes, Any]:
    """What Confluent's serializer gives: the payload and the headers."""
    serializer = AvroSerializer(schemas.client, orjson.dumps(schema).decode(), conf=conf)
    headers: list[tuple[str, bytes]] = []
    context = SerializationContext("candles", MessageField.VALUE, headers)
    payload = serializer(value, context)
    assert isinstance(payload, bytes)
    return payload, headers


def test_a_schema_file(tmp_path: Path) -> None:
    read = of_file(tmp_path, AVRO_CANDLE)
    assert read(avro_bytes(AVRO_CANDLE, CANDLE), source()) == (CANDLE,)
    without = {**CANDLE, "trades": None}
    assert read(avro_bytes(AVRO_CANDLE, without), source()) == (without,)


@pytest.mark.parametrize(
    ("schema", "value"),
    [("string", "x"), (["null", "long"], 7), ({"type": "map", "values": "int"}, {"a": 1})],
)
def test_a_schema_that_is_no_record(tmp_path: Path, schema: Any, value: Any) -> None:
    assert of_file(tmp_path, schema)(avro_bytes(schema, value), source()) == (value,)


def test_confluents_serializer_with_the_id_in_front() -> None:
    schemas = KnownSchemas()
    payload, headers = serialize(schemas, AVRO_CANDLE, CANDLE)
    assert payload[:1] == b"\0" and not headers
    read = codec("avro", {}, outside(schemas))
    assert read(payload, source()) == (CANDLE,)
    # Another schema under the same subject is another id, read by its own.
    longer = {**AVRO_CANDLE, "fields": [*AVRO_CANDLE["fields"], {"name": "x", "type": "int"}]}
    more, _ = serialize(schemas, longer, {**CANDLE, "x": 3})
    assert more[:5] != payload[:5]
    assert read(more, source()) == ({**CANDLE, "x": 3},)
    assert read(payload, source()) == (CANDLE,)


def test_confluents_serializer_with_a_guid_in_a_header() -> None:
    schemas = KnownSchemas()
    payload, headers = serialize(
        schemas, AVRO_CANDLE, CANDLE, **{"schema.id.serializer": header_schema_id_serializer}
    )
    ((name, value),) = headers
    assert (name, value[:1], len(value)) == ("__value_schema_id", b"\x01", 17)
    read = codec("avro", {}, outside(schemas))
    assert read(payload, source(headers=headers)) == (CANDLE,)
    # The same GUID in front of the value.
    assert read(value + payload, source()) == (CANDLE,)


def test_a_schema_that_refers_to_another() -> None:
    schemas = KnownSchemas()
    price = {"type": "record", "name": "md.Price", "fields": [{"name": "p", "type": "double"}]}
    quote = {
        "type": "record",
        "name": "md.Quote",
        "fields": [{"name": "bid", "type": "md.Price"}, {"name": "ask", "type": "md.Price"}],
    }
    reference = SchemaRef("id", 5)
    schemas.texts[reference] = SchemaText(
        "AVRO", orjson.dumps(quote).decode(), (("md.Price", orjson.dumps(price).decode()),)
    )
    names: dict[str, Any] = {}
    fastavro.parse_schema(price, named_schemas=names)
    value = {"bid": {"p": 1.0}, "ask": {"p": 2.0}}
    import io

    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(quote, named_schemas=names), value)
    read = codec("avro", {}, outside(schemas))
    assert read(b"\0\0\0\0\x05" + out.getvalue(), source()) == (value,)


@pytest.mark.parametrize(
    ("kind", "payload", "headers", "reference"),
    [
        ("apicurio", b"\0\0\0\0\x09", (), SchemaRef("content_id", 9)),
        ("apicurio_v2", b"\0\0\0\0\0\0\0\0\x09", (), SchemaRef("global_id", 9)),
        ("apicurio", b"", ("apicurio.value.contentId", 9), SchemaRef("content_id", 9)),
        ("apicurio_v2", b"", ("apicurio.value.globalId", 9), SchemaRef("global_id", 9)),
        ("apicurio", b"", ("apicurio.value.globalId", 9), SchemaRef("global_id", 9)),
    ],
)
def test_apicurios_frames(kind: Any, payload: bytes, headers: Any, reference: SchemaRef) -> None:
    schemas = KnownSchemas(kind=kind)
    schemas.texts[reference] = SchemaText("AVRO", orjson.dumps(AVRO_CANDLE).decode())
    beside = [(headers[0], headers[1].to_bytes(8, "big"))] if headers else []
    read = codec("avro", {}, outside(schemas))
    assert read(payload + avro_bytes(AVRO_CANDLE, CANDLE), source(headers=beside)) == (CANDLE,)


def test_the_faults_are_told_apart() -> None:
    schemas = KnownSchemas()
    payload, _ = serialize(schemas, AVRO_CANDLE, CANDLE)
    schemas.texts[SchemaRef("id", 77)] = SchemaText("AVRO", '{"type": "recrd"}')
    schemas.texts[SchemaRef("id", 78)] = SchemaText("JSON", "{}")
    read = codec("avro", {}, outside(schemas))
    for data, reason, said in (
        (orjson.dumps(CANDLE), "bad_framing", "got 0x7b22"),
        (b"\0\0\0", "bad_framing", "got 0x000000"),
        (b"\0\0\0\xff\xff" + payload[5:], "unknown_schema", "id 65535"),
        (b"\0\0\0\0\x4d" + payload[5:], "bad_schema", "the schema of id 77 cannot be used"),
        (b"\0\0\0\0\x4e" + payload[5:], "bad_schema", "expected an Avro schema, got JSON"),
        (payload[:-3], "decode", "expected an Avro value, got a fault at byte"),
        (payload + b"x", "decode", "1 bytes are left over"),
    ):
        for _ in range(2):  # the second time from memory
            with pytest.raises(DecodeFault) as caught:
                read(data, source())
            assert caught.value.reason == reason
            assert said in str(caught.value)


def test_single_object_encoding(tmp_path: Path) -> None:
    # The fingerprint that the Avro specification gives for the schema "int", 0x7275d51a3f395c8f,
    # stands little-endian.
    read = of_file(tmp_path, "int", framing="single_object")
    assert read(bytes.fromhex("c3018f5c393f1ad57572") + b"\x0e", source()) == (7,)
    with pytest.raises(DecodeFault) as caught:
        read(bytes.fromhex("c301000000000000000000"), source())
    assert caught.value.reason == "unknown_schema"
    with pytest.raises(DecodeFault) as caught:
        read(b"\x0e", source())
    assert caught.value.reason == "bad_framing"


def test_logical_types_stay_numbers_and_decimals_become_decimals(tmp_path: Path) -> None:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 40, "scale": 3}
    fixed = {"type": "fixed", "name": "F", "size": 8, "logicalType": "decimal", "precision": 18}
    schema = {
        "type": "record",
        "name": "R",
        "fields": [
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "day", "type": {"type": "int", "logicalType": "date"}},
            {"name": "price", "type": decimal},
            {"name": "some", "type": ["null", decimal]},
            {"name": "none", "type": ["null", decimal]},
            {"name": "list", "type": {"type": "array", "items": fixed}},
            {"name": "map", "type": {"type": "map", "values": decimal}},
        ],
    }
    exact = Decimal("12345678901234567890123456789012.345")
    written = {
        "at": 1_700_000_000_000,
        "day": 19_000,
        "price": exact,
        "some": Decimal("-0.001"),
        "none": None,
        "list": [Decimal(-5)],
        "map": {"a": Decimal("1.500")},
    }
    assert of_file(tmp_path, schema)(avro_bytes(schema, written), source()) == (written,)


def test_a_decimal_of_many_bytes_is_refused_at_once(tmp_path: Path) -> None:
    schema = {"type": "bytes", "logicalType": "decimal", "precision": 9}
    read = of_file(tmp_path, schema)
    began = time.perf_counter()
    with pytest.raises(DecodeFault, match="at most 64 bytes, got 900000"):
        read(avro_bytes("bytes", b"\x7f" * 900_000), source())
    assert time.perf_counter() - began < 0.05


def test_what_has_no_bound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="items take no bytes"):
        of_file(tmp_path, {"type": "array", "items": "null"})
    names = [f"L{depth}" for depth in range(30)]
    bomb: Any = {"type": "record", "name": names[-1], "fields": []}
    for name in reversed(names[:-1]):
        inner = bomb["name"]
        bomb = {
            "type": "record",
            "name": name,
            "fields": [{"name": "a", "type": bomb}, {"name": "b", "type": inner}],
        }
    with pytest.raises(BadSchema, match=f"more than {NODES_MAX} values"):
        read_avro_schema(orjson.dumps(bomb).decode())


def test_a_type_inside_itself_is_read_to_a_bounded_depth(tmp_path: Path) -> None:
    schema = {"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]}
    read = of_file(tmp_path, schema)
    assert read(b"\x02\x02\x00", source()) == ({"next": {"next": {"next": None}}},)
    with pytest.raises(DecodeFault, match="nested too deep"):
        read(b"\x02" * 500_000 + b"\x00", source())


_VALUES = st.fixed_dictionaries(
    {
        "s": st.text(),
        "b": st.binary(),
        "i": st.integers(-(2**31), 2**31 - 1),
        "l": st.integers(-(2**63), 2**63 - 1),
        "d": st.floats(allow_nan=False),
        "t": st.booleans(),
        "o": st.none() | st.text(),
        "a": st.lists(st.integers(-(2**63), 2**63 - 1)),
        "m": st.dictionaries(st.text(), st.lists(st.booleans())),
        "e": st.sampled_from(["A", "B"]),
    }
)
_KINDS: dict[str, Any] = {
    "s": "string",
    "b": "bytes",
    "i": "int",
    "l": "long",
    "d": "double",
    "t": "boolean",
    "o": ["null", "string"],
    "a": {"type": "array", "items": "long"},
    "m": {"type": "map", "values": {"type": "array", "items": "boolean"}},
    "e": {"type": "enum", "name": "E", "symbols": ["A", "B"]},
}
_SCHEMA = {
    "type": "record",
    "name": "All",
    "fields": [{"name": name, "type": kind} for name, kind in _KINDS.items()],
}
_READ = read_avro_schema(orjson.dumps(_SCHEMA).decode())


@given(_VALUES)
def test_what_was_written_is_read(value: dict[str, Any]) -> None:
    assert _READ(avro_bytes(_SCHEMA, value), 0) == value


def test_the_schema_type_that_confluents_registry_leaves_out() -> None:
    schemas = KnownSchemas()
    schemas.client.register_schema("s", Schema(orjson.dumps(AVRO_CANDLE).decode(), "AVRO"))
    read = codec("avro", {}, outside(schemas))
    assert read(b"\0\0\0\0\x01" + avro_bytes(AVRO_CANDLE, CANDLE), source()) == (CANDLE,)
