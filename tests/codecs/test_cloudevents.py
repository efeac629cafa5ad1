"""CloudEvents of the published SDK, in every mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from cloudevents.core.bindings.kafka import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from flashfeed.codecs.registry import codec
from flashfeed.models.errors import DecodeFault

from codec_samples import AVRO_CANDLE, CANDLE, avro_bytes, event, outside, source, write_files

BATCH = [("content-type", b"application/cloudevents-batch+json; charset=utf-8")]


def sent(mode: Any, data: Any, media: str = "application/json") -> tuple[bytes, list[Any]]:
    attributes = {**event(), "subject": "BTC", "datacontenttype": media}
    message = mode(CloudEvent(attributes, data), JSONFormat())
    return message.value, list(message.headers.items())


@pytest.mark.parametrize("mode", [to_binary, to_structured])
def test_the_sdks_events(mode: Any) -> None:
    payload, headers = sent(mode, {"a": 1})
    (value,) = codec("cloudevents", {}, outside())(payload, source(headers=headers))
    assert value["data"] == {"a": 1}
    assert (value["id"], value["type"], value["subject"]) == ("1", "candle", "BTC")


@pytest.mark.parametrize("mode", [to_binary, to_structured])
def test_data_of_another_format(tmp_path: Path, mode: Any) -> None:
    avro, _ = write_files(tmp_path)
    payload, headers = sent(mode, avro_bytes(AVRO_CANDLE, CANDLE), "application/avro")
    options = {"data": "avro", "data_options": {"schema_file": avro}}
    (value,) = codec("cloudevents", options, outside())(payload, source(headers=headers))
    assert value["data"] == CANDLE and value["source"] == "/s"


def test_data_of_several_values_repeats_the_event() -> None:
    headers = [(f"ce_{name}", text.encode()) for name, text in event().items()]
    read = codec("cloudevents", {"data": "json_lines"}, outside())
    first, bad, last = read(b"1\nx\n2", source(headers=headers))
    assert [first["data"], last["data"]] == [1, 2]
    assert first["id"] == last["id"] == "1"
    assert type(bad) is DecodeFault


def test_a_batch_and_an_event_without_a_content_type() -> None:
    read = codec("cloudevents", {}, outside())
    events = orjson.dumps([event(data=1), {"id": "2"}, event(data=2)])
    first, bad, last = read(events, source(headers=BATCH))
    assert [first["data"], last["data"]] == [1, 2]
    assert (bad.reason, bad.path) == ("bad_framing", "$[1]")
    assert read(orjson.dumps(event(data=3)), source()) == (event(data=3),)


@pytest.mark.parametrize(
    ("payload", "headers", "reason"),
    [
        (b"\x00\x01", [], "bad_framing"),
        (b"{}", [], "bad_framing"),
        (b"1", [("ce_id", b"1")], "bad_framing"),
        (b"x", [("content-type", b"application/cloudevents+avro")], "bad_framing"),
        (b"[]", [("content-type", b"application/cloudevents+json")], "decode"),
        (orjson.dumps(event(specversion="0.3")), [], "bad_framing"),
        (orjson.dumps(event(data_base64="%")), [], "decode"),
        (b"nonsense", [(f"ce_{k}", v.encode()) for k, v in event().items()], "decode"),
    ],
)
def test_what_is_no_event(payload: bytes, headers: Any, reason: str) -> None:
    with pytest.raises(DecodeFault) as caught:
        codec("cloudevents", {}, outside())(payload, source(headers=headers))
    assert caught.value.reason == reason
