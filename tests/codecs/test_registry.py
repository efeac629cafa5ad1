from __future__ import annotations

import pytest

from flashfeed.codecs import json
from flashfeed.codecs.registry import (
    decoder,
    decoder_names,
    default_text_codec,
    text_codec,
    text_codec_names,
)
from flashfeed.models.errors import ConfigError
from flashfeed.models.records import STREAM_TYPES, StreamType


def test_decoders() -> None:
    assert decoder("json") is json.decode
    assert "json" in decoder_names()
    with pytest.raises(ConfigError, match="did you mean 'json'"):
        decoder("jsn")


@pytest.mark.parametrize("record_type", STREAM_TYPES)
def test_every_type_has_a_default(record_type: StreamType) -> None:
    codec = text_codec("", record_type)
    assert codec.name == default_text_codec(record_type)
    assert codec.record_type == record_type
    assert codec.name in text_codec_names(record_type)
    assert codec.legend and codec.precision and codec.leaves_out


def test_ohlcv_has_two() -> None:
    assert text_codec_names("ohlcv") == ("ohlcv", "ohlcv_full")
    assert text_codec("ohlcv_full", "ohlcv").name == "ohlcv_full"


def test_a_format_is_made_for_its_type() -> None:
    assert text_codec("format:{val}", "iot").record_type == "iot"


@pytest.mark.parametrize(
    ("name", "record_type", "said"),
    [
        ("ohlc", "ohlcv", "did you mean 'ohlcv'"),
        ("iot", "ohlcv", "is for iot, not for ohlcv; expected one of ohlcv, ohlcv_full"),
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
