from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flashfeed.codecs.registry import (
    codec,
    codec_names,
    default_text_codec,
    needs_births,
    text_codec,
    text_codec_names,
)
from flashfeed.models.errors import ConfigError
from flashfeed.models.records import STREAM_TYPES, StreamType

from codec_samples import born, outside, samples, source


def test_every_codec_has_a_sample_and_reads_it(tmp_path: Path) -> None:
    ready = samples(tmp_path)
    assert {sample.codec for sample in ready} == set(codec_names())
    for sample in ready:
        read = codec(sample.codec, sample.options, outside(births=born()))
        for payload, beside in sample.messages:
            values = read(payload, beside)
            assert values and not any(isinstance(value, Exception) for value in values)
        if sample.codec != "sparkplug_b":  # a tombstone
            assert list(read(None, source())) == list(read(b"", source())) == []


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("jsn", {}, "no codec called 'jsn'; did you mean 'json'"),
        ("csv", {"delimter": ";"}, "delimter: no such option; did you mean 'delimiter'"),
        ("msgpack", {"x": 1}, "x: msgpack has no options"),
        ("csv", {"delimiter": ";;"}, "delimiter: Expected `str` of length <= 1"),
        ("csv", {"columns": ["a", "a"]}, "columns: expected different names"),
        ("csv", {"encoding": "utf-9"}, "no text encoding called 'utf-9'"),
        ("avro", {}, "schema_file: expected a file, or a [schema_registry]"),
        (
            "avro",
            {"schema_file": "/nowhere.avsc"},
            "schema_file: cannot read /nowhere.avsc: No such",
        ),
        ("avro", {"framing": "confluent"}, "framing: confluent needs a [schema_registry]"),
        ("protobuf", {}, "descriptor_file: expected a file"),
        ("json", {"framing": "glue"}, "framing: Invalid enum value 'glue'"),
        ("sparkplug_b", {"mqtt_topic": "key"}, "mqtt_topic: expected @key, @topic"),
        ("cloudevents", {"data": "cvs"}, "data_options: no codec called 'cvs'; did you mean 'csv'"),
        ("cloudevents", {"data": "cloudevents"}, "other than cloudevents itself"),
    ],
)
def test_a_wrong_option_is_named(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        codec(name, options, outside())
    assert said in str(caught.value)


def test_who_needs_births() -> None:
    assert needs_births("sparkplug_b", {})
    assert needs_births("cloudevents", {"data": "sparkplug_b"})
    assert not needs_births("cloudevents", {})
    assert not needs_births("json", {})


@pytest.mark.parametrize("record_type", STREAM_TYPES)
def test_every_type_has_a_default(record_type: StreamType) -> None:
    codec = text_codec("", record_type)
    assert codec.name == default_text_codec(record_type)
    assert codec.record_type == record_type
    assert codec.name in text_codec_names(record_type)
    assert codec.legend and codec.precision and codec.leaves_out


def test_ohlcv_has_three_of_its_own_and_those_of_every_type() -> None:
    assert text_codec_names("ohlcv") == (
        *("ohlcv", "ohlcv_numbers", "ohlcv_full"),
        *("delta", "json", "csv"),
    )
    assert text_codec("ohlcv_full", "ohlcv").name == "ohlcv_full"


def test_a_format_is_made_for_its_type() -> None:
    assert text_codec("format:{val}", "iot").record_type == "iot"


@pytest.mark.parametrize(
    ("name", "record_type", "said"),
    [
        ("ohlc", "ohlcv", "did you mean 'ohlcv'"),
        (
            "iot",
            "ohlcv",
            "is for iot, not for ohlcv; expected one of ohlcv, ohlcv_numbers, ohlcv_full",
        ),
        ("format:{c}", "iot", "no field 'c'"),
    ],
)
def test_wrong_names(name: str, record_type: StreamType, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        text_codec(name, record_type)
    assert said in str(caught.value)


def test_unknown_type() -> None:
    with pytest.raises(ConfigError):
        default_text_codec("weather")  # type: ignore[arg-type]
