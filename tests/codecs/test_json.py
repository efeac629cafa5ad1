from __future__ import annotations

import orjson
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from flashfeed.codecs.json import decode
from flashfeed.codecs.registry import codec
from flashfeed.models.errors import DecodeFault

from codec_samples import outside, source


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b'{"a": [1, 2.5, "x", null, true]}', {"a": [1, 2.5, "x", None, True]}),
        (b" 7 ", 7),
        (b"null", None),
        (None, None),
        (b"", None),
    ],
)
def test_decodes(payload: bytes | None, value: object) -> None:
    assert decode(payload) == value


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b'{"a": 1,\n "b": n/a}', ["line 2 column", "near", "n/a"]),
        (b"NaN", ["line 1 column 1", "NaN"]),
        (b"\xff\xfe", ["expected JSON"]),
        (b"cpu,host=a usage=1 1", ["character 0 of 20", "cpu,host=a"]),
        (b"\x00\x00\x00\x00\x07avro", ["expected JSON"]),
        (b"[" * 5000, ["expected JSON"]),
    ],
)
def test_fault_says_where(payload: bytes, said: list[str]) -> None:
    with pytest.raises(DecodeFault) as caught:
        decode(payload)
    for words in said:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.reason == "decode"


def test_json_lines() -> None:
    read = codec("json_lines", {}, outside())
    first, bad, last = read(b'{"a": 1}\r\n\n{"a": n}\n[2]\n', source())
    assert (first, last) == ({"a": 1}, [2])
    assert type(bad) is DecodeFault and bad.path == "$[2]" and "line 3" in str(bad)


def test_confluents_json_schema_serializer() -> None:
    schema = {"title": "Candle", "type": "object", "properties": {"a": {"type": "number"}}}
    client = SchemaRegistryClient.new_client({"url": "mock://"})
    for conf in ({}, {"schema.id.serializer": header_schema_id_serializer}):
        serializer = JSONSerializer(orjson.dumps(schema).decode(), client, conf=conf)
        headers: list[tuple[str, bytes]] = []
        payload = serializer(
            {"a": 1.5}, SerializationContext("candles", MessageField.VALUE, headers)
        )
        assert bool(headers) is bool(conf)
        read = codec("json", {"framing": "confluent"}, outside())
        assert read(payload, source(headers=headers)) == ({"a": 1.5},)


def test_json_without_its_frame_is_bad_framing() -> None:
    with pytest.raises(DecodeFault) as caught:
        codec("json", {"framing": "confluent"}, outside())(b'{"a": 1}', source())
    assert caught.value.reason == "bad_framing"
