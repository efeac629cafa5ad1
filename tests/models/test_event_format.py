"""Events in each format, against what others make of the same schema."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest

from flashfeed.models.event_avro import avro_schema
from flashfeed.models.event_format import (
    CONTENT_TYPES,
    EventEncoding,
    decode_event,
    event_name,
)
from flashfeed.models.event_protobuf import proto_text
from flashfeed.models.event_schemas import EVENT_TYPES
from flashfeed.models.events import DataUpdated, FlashReady
from flashfeed.models.origins import Origin
from flashfeed.models.session import AnsweredBy, RawAnswer

from client_packages import CLIENTS, node_modules

READER = CLIENTS / "event_by_proto.cjs"
ORIGINS = (Origin("candles", 0, 3, 9), Origin("é", 1, 0, 2**40))
ANSWER = FlashReady(
    session_id="s", type="ohlcv", id=1, name="trend", query="Up?", value="ja", confidence=0.1,
    logit_gap=1e-9, probabilities={"ja": 0.1, "nein": 0.9}, previous=None, changed=False,
    data_version=1, event_time=None, evaluated_at="2026-01-01T00:00:00.000+00:00",
    origins=ORIGINS, records_first=0, records_last=12, answered_by=AnsweredBy("m", "s"),
)  # fmt: skip
RAW = RawAnswer("", 1.0, 0.0, {})
UPDATED = DataUpdated(
    session_id="", type="iot", data_version=2**31, data_count=0, tokens=1, decoded_tokens=2,
    n_tokens=3, update_ms=0.5, pending=0, event_time="", updated_at="x", origins=(),
    records_first=-1, records_last=-1,
)  # fmt: skip
EVENTS: list[FlashReady | DataUpdated] = [
    ANSWER,
    msgspec.structs.replace(ANSWER, previous="", event_time="now", raw=RAW, probabilities={}),
    msgspec.structs.replace(ANSWER, raw=msgspec.structs.replace(RAW, probabilities={"é": 0.5})),
    UPDATED,
]


def encoding(format_: Any) -> EventEncoding:
    one = EventEncoding(format_)
    one.schema_ids = {"flash_ready": 7, "data_updated": 258}
    return one


@pytest.mark.parametrize("format_", CONTENT_TYPES)
@pytest.mark.parametrize("event", EVENTS)
def test_an_event_comes_back_as_it_was(event: FlashReady | DataUpdated, format_: str) -> None:
    one = encoding(format_)
    value = one.encode(event)
    assert decode_event(event_name(event), value, one.content_type) == event
    again = msgspec.convert(msgspec.to_builtins(event), type(event))
    assert one.encode(again) == value  # byte for byte, as recovery promises


def test_the_framing_has_the_id_of_the_schema() -> None:
    assert encoding("avro").encode(UPDATED)[:5] == b"\0\0\0\1\2"
    assert encoding("protobuf").encode(ANSWER)[:6] == b"\0\0\0\0\7\0"


@pytest.mark.parametrize("format_", ["avro", "protobuf"])
@pytest.mark.parametrize("event", EVENTS)
def test_no_cut_or_other_value_is_an_event(event: FlashReady | DataUpdated, format_: str) -> None:
    one = encoding(format_)
    value = one.encode(event)
    for bad in (b"", b"\0", value[:5], b"\1" + value[1:], value[:5] + b"\xff" * 20, "text"):
        with pytest.raises(ValueError, match=r"not|expected|no "):
            decode_event(event_name(event), bad, one.content_type)
    with pytest.raises(ValueError, match="text/plain"):
        decode_event(event_name(event), value, "text/plain")


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_the_avro_schema_is_one_that_others_read_by_itself(name: str) -> None:
    event = next(one for one in EVENTS if event_name(one) == name)
    schema = fastavro.parse_schema(avro_schema(name))
    source = io.BytesIO(encoding("avro").encode(event)[5:])
    fields = fastavro.schemaless_reader(source, schema, None)
    assert msgspec.convert(fields, type(event)) == event
    required = [field["name"] for field in avro_schema(name)["fields"] if "default" not in field]
    assert set(required) < set(type(event).__struct_fields__)


def test_another_library_reads_what_is_sent_by_the_proto_text(tmp_path: Path) -> None:
    for place, event in enumerate(EVENTS):
        name = event_name(event)
        proto, value = tmp_path / f"{name}.proto", tmp_path / f"{place}.bin"
        proto.write_text(proto_text(name))
        value.write_bytes(encoding("protobuf").encode(event)[6:])
        command = ["node", str(READER), str(proto), type(event).__name__, str(value)]
        modules = {**os.environ, "NODE_PATH": str(node_modules())}
        done = subprocess.run(command, capture_output=True, check=True, env=modules)
        assert msgspec.json.decode(done.stdout, type=type(event)) == event
