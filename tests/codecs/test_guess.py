"""What is suggested for messages that nobody described."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashfeed.codecs.guess import fit_of, fitting_presets, guess
from flashfeed.codecs.json import decode
from flashfeed.codecs.mapping import Mapping, Source
from flashfeed.codecs.presets import mapping_spec, preset, preset_names

SOURCE = Source(b"k-1", "t", 1_733_000_000_000)
NOW = 1733000000.0


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in preset_names()
        if preset(name).codec == "json" and preset(name).samples[0].value
    ],
)
def test_a_presets_own_sample_suggests_the_preset(name: str) -> None:
    samples = [
        (decode(one.payload), Source(None if one.key is None else one.key.encode(), one.topic,
                                     one.timestamp_ms, one.header_list))
        for one in preset(name).samples
    ]  # fmt: skip
    assert name in [fitting for fitting, _ in fitting_presets("json", samples)][:3]


@pytest.mark.parametrize(
    ("value", "model", "key", "fields"),
    [
        (
            {"ticker": "AAPL", "time": 1733000000000, "open": "1", "high": 3, "low": 0.5,
             "close": 2, "volume": 10},
            "ohlcv", "AAPL",
            {"o": 1.0, "h": 3.0, "l": 0.5, "c": 2.0, "v": 10.0, "sym": "AAPL", "timestamp": NOW},
        ),
        (
            {"data": {"instrument": "X", "price": 5.5, "qty": 2, "ts": "2024-11-30T20:53:20Z"}},
            "trade", "X", {"p": 5.5, "q": 2.0, "sym": "X", "timestamp": 1733000000.0},
        ),
        (
            {"patient_id": "P1", "vitals": {"pulse": 72, "SpO2": 97}, "timestamp": 1733000000},
            "vitals", "P1", {"hr": 72.0, "spo2": 97.0, "timestamp": 1733000000.0},
        ),
        (
            {"readings": [{"sensor": "t1", "value": 21.5, "ts": 1733000000}]},
            "iot", "t1", {"sid": "t1", "val": 21.5, "timestamp": 1733000000.0},
        ),
        ({"rpm": 900, "on": "x"}, "iot", "k-1", {"sid": "rpm", "val": 900.0, "timestamp": NOW}),
    ],
)  # fmt: skip
def test_a_guess_maps_what_it_was_made_of(
    value: Any, model: str, key: str, fields: dict[str, Any]
) -> None:
    found = guess([(value, SOURCE)])
    assert found is not None and found.fit.mapped == 1
    assert len(found.toml.splitlines()) <= 8
    spec = mapping_spec(None, tomllib.loads(found.toml))
    assert spec.model == model
    record = Mapping(spec)(value, SOURCE).records[0]
    assert record.key == key
    got = {name: getattr(record.record, name) for name in fields}
    assert got == fields


@pytest.mark.parametrize("value", [{}, [], "text", 3, None, {"note": "hello"}, [["a"]]])
def test_nothing_known_is_no_guess(value: Any) -> None:
    assert guess([(value, SOURCE)]) is None


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["open", "high", "low", "close", "volume", "price", "size", "ts", "value",
                         "id", "a b", 'q"', "data"]), inner, max_size=7,
    ),
    max_leaves=20,
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(json, max_size=4))
def test_a_guess_is_a_table_that_loads_whatever_it_is_given(values: list[Any]) -> None:
    samples = [(value, SOURCE) for value in values]
    found = guess(samples)
    fitting_presets("json", samples)
    if found is not None:
        assert fit_of(tomllib.loads(found.toml), None, samples) == found.fit
