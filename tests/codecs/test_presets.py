from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flashfeed.agents.births import BirthBook
from flashfeed.agents.metrics import Metrics
from flashfeed.cli.sample_data import candles, cryptofeed_json, glucose, telegraf_json
from flashfeed.codecs.json import decode
from flashfeed.codecs.mapping import Mapping, Source
from flashfeed.codecs.presets import (
    Sample,
    codec_of,
    load_preset,
    mapping_spec,
    preset,
    preset_names,
)
from flashfeed.codecs.registry import codec
from flashfeed.models.errors import ConfigError
from flashfeed.models.feed import MappedRecord
from flashfeed.models.records import Iot, Ohlcv, record_fields

from codec_samples import outside

CANDLES = Source(b"candles", "candles-NASDAQ-AAPL-USD", 1)
METRICS = Source(b"cgm-01", "telegraf", 1)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_compiles(name: str) -> None:
    Mapping(mapping_spec(name, {}))


SAMPLES = [(name, sample) for name in preset_names() for sample in preset(name).samples]


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_says_what_it_reads_and_how_that_was_checked(name: str) -> None:
    one = preset(name)
    assert one.about and one.checked
    assert any(sample.records for sample in one.samples), "a golden sample that gives records"


@pytest.mark.parametrize(("name", "sample"), SAMPLES, ids=[name for name, _ in SAMPLES])
def test_a_sample_gives_just_its_records(name: str, sample: Sample) -> None:
    key = sample.key.encode() if sample.key is not None else None
    source = Source(key, sample.topic, sample.timestamp_ms, sample.header_list)
    mapping = Mapping(mapping_spec(name, {}))
    births = BirthBook(Metrics())
    beside = replace(outside(births=births), fields=mapping.fields)
    read = codec(preset(name).codec, preset(name).codec_options, beside)
    parts = [mapping(value, source) for value in read(sample.payload, source)]
    assert not any(mapped.faults for mapped in parts)
    got = [(one.key, record_fields(one.record)) for mapped in parts for one in mapped.records]
    wanted = [(one.key, one.fields) for one in sample.records]
    assert [key for key, _ in got] == [key for key, _ in wanted]
    for (_, fields), (_, expected) in zip(got, wanted, strict=True):
        assert fields == pytest.approx(expected)
    assert sum(mapped.skipped for mapped in parts) == sample.skipped


def test_a_feed_has_its_presets_codec_unless_it_names_another() -> None:
    assert codec_of("", "", {}) == ("json", {})
    assert codec_of("sparkplug_b", "", {"birth_wait_s": 1}) == ("sparkplug_b", {"birth_wait_s": 1})
    assert codec_of("cryptofeed", "avro", {"schema_file": "x"}) == ("avro", {"schema_file": "x"})
    assert codec_of("no such preset", "", {}) == ("json", {})


def test_names() -> None:
    assert {"cryptofeed", "telegraf"} <= set(preset_names())


def test_cryptofeed_maps_a_real_candle() -> None:
    row = next(candles("AAPL"))
    mapped = Mapping(mapping_spec("cryptofeed", {}))(decode(cryptofeed_json("AAPL", row)), CANDLES)
    record = Ohlcv(
        o=118.56, h=132.06, l=118.5, c=130.31, v=9616100.0, sym="AAPL-USD", timestamp=951868800.0
    )
    assert mapped.records == (MappedRecord("NASDAQ:AAPL-USD:1d", 0, record),)


def test_cryptofeed_takes_numeric_strings_and_skips_open_candles() -> None:
    value = decode(cryptofeed_json("AAPL", next(candles("AAPL"))))
    mapping = Mapping(mapping_spec("cryptofeed", {}))
    texts = {k: str(v) if type(v) is float else v for k, v in value.items()}
    assert mapping(texts, CANDLES) == mapping(value, CANDLES)
    assert mapping({**value, "closed": False}, CANDLES).skipped == 1


def test_telegraf_maps_one_metric_and_a_batch_alike() -> None:
    mapping = Mapping(mapping_spec("telegraf", {}))
    one = decode(telegraf_json(next(glucose())))
    record = Iot(sid="cgm.glucose", val=258.0, timestamp=1269424260.0)
    assert mapping(one, METRICS).records == (MappedRecord("cgm-01", 0, record),)
    batch = mapping({"metrics": [one, one]}, METRICS)
    assert batch.records == (MappedRecord("cgm-01", 0, record), MappedRecord("cgm-01", 1, record))


def test_telegraf_skips_states_and_keeps_the_neighbours_of_a_bad_metric() -> None:
    def metric(fields: Any, tags: Any) -> dict[str, Any]:
        return {"name": "m", "tags": tags, "fields": fields, "timestamp": 10}

    value = {
        "metrics": [
            metric({"up": True, "state": "ok", "load": 1}, {"host": "a"}),
            metric({"load": 2}, {}),
            {"name": "m"},
            metric({"load": 3}, {"host": "b"}),
        ]
    }
    mapped = Mapping(mapping_spec("telegraf", {}))(value, METRICS)
    assert [(m.key, m.index) for m in mapped.records] == [("a", 2), ("b", 5)]
    assert mapped.skipped == 2
    assert [f.path for f in mapped.faults] == ["$.metrics[1].tags.host", "$.metrics[2].fields"]


def test_own_keys_replace_and_map_merges() -> None:
    spec = mapping_spec("telegraf", {"key": "@key", "map": {"hi": "=180"}})
    assert spec.key == "@key"
    assert spec.map == {**load_preset("telegraf")["map"], "hi": "=180"}
    assert spec.each == load_preset("telegraf")["each"]


def test_without_a_preset() -> None:
    assert mapping_spec(None, {"model": "iot", "key": "k"}).model == "iot"


@pytest.mark.parametrize(
    ("preset", "own", "said"),
    [
        ("cryptofed", {}, "did you mean 'cryptofeed'"),
        ("../presets/telegraf", {}, "no preset called"),
        ("telegraf", {"tme": "t:s"}, "mapping.tme: no such key; did you mean 'time'"),
        ("telegraf", {"map": {"val": 3}}, "mapping.map"),
        ("telegraf", {"map": 3}, "mapping.map: Expected `object`"),
        ("telegraf", {"model": "iott"}, "mapping.model"),
        (None, {"model": "iot"}, "key"),
    ],
)
def test_bad_tables(preset: str | None, own: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        mapping_spec(preset, own)
    assert said in str(caught.value)


def test_every_sample_maps() -> None:
    cryptofeed, telegraf = (Mapping(mapping_spec(n, {})) for n in ("cryptofeed", "telegraf"))
    for row in candles("GOOG"):
        assert len(cryptofeed(decode(cryptofeed_json("GOOG", row)), CANDLES).records) == 1
    for _, row in zip(range(2000), glucose(), strict=False):
        assert len(telegraf(decode(telegraf_json(row)), METRICS).records) == 1
