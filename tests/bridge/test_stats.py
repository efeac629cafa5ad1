"""Statistics against figures worked out another way: by hand, or by numpy."""

import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layerscale.resources.sessions import _stats_adapter

from flashfeed.bridge.stats import stream_stats

TYPES = ("ohlcv", "iot", "spatial", "event", "vitals")
VITALS = ("hr", "bp_s", "bp_d", "spo2", "temp")
price = st.floats(0.01, 1e6)
candle = st.builds(
    lambda low, up, o, c, v: {
        "o": low + up * o,
        "h": low + up,
        "l": low,
        "c": low + up * c,
        "v": v,
    },
    price,
    price,
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 10**9),
)


@pytest.mark.parametrize("stream_type", TYPES)
def test_an_empty_session_has_zeros_and_the_clients_shape(stream_type):
    stats = stream_stats(stream_type, [])
    assert _stats_adapter.validate_python(stats).count == 0

    def figures(value):
        if isinstance(value, dict):
            for item in value.values():
                yield from figures(item)
        elif not isinstance(value, str):
            yield value

    assert set(figures(stats)) == {0}


@given(st.lists(candle, min_size=1, max_size=30))
def test_candles(candles):
    stats = stream_stats("ohlcv", candles)
    columns = {name: np.array([c[name] for c in candles], dtype=float) for name in "ohlcv"}
    assert stats["count"] == len(candles)
    assert stats["max_high"] == columns["h"].max()
    assert stats["max_high_index"] == columns["h"].argmax()
    assert stats["min_low"] == columns["l"].min()
    assert stats["min_low_index"] == columns["l"].argmin()
    assert stats["max_volume"] == columns["v"].max()
    assert math.isclose(stats["avg_close"], columns["c"].mean())
    first, last = candles[0]["o"], candles[-1]["c"]
    assert stats["change"] == last - first
    assert math.isclose(stats["change_pct"], (last / first - 1) * 100, abs_tol=1e-6)


@pytest.mark.parametrize(
    ("stream_type", "names"),
    [("ohlcv", "ohlcv"), ("spatial", ("x", "y", "z", "spd", "hdg")), ("vitals", VITALS)],
)
def test_what_no_double_holds_is_the_largest_one_and_no_failure(stream_type, names):
    """JSON has no infinity: the answer would be a 500."""
    huge = 1.7e308
    records = [dict.fromkeys(names, one) for one in (huge, -huge, huge, huge)]
    stats = stream_stats(stream_type, records)
    assert json.loads(json.dumps(stats, allow_nan=False)) == stats
    assert sys.float_info.max in stats.values()


def test_candles_that_begin_at_zero_have_no_percentage():
    candles = [{"o": 0, "h": 2, "l": 0, "c": 2, "v": 1}]
    assert stream_stats("ohlcv", candles)["change_pct"] == 0.0


def test_readings():
    readings = [
        {"sid": "a", "val": 5, "lo": 0, "hi": 10},
        {"sid": "b", "val": 10, "lo": 0, "hi": 10},
        {"sid": "a", "val": -1, "lo": 0},
        {"sid": "b", "val": 99},
        {"sid": "c", "val": 11.0, "hi": 10},
    ]
    assert stream_stats("iot", readings) == {
        "type": "iot",
        "count": 5,
        "last_sensor": "c",
        "last_value": 11.0,
        "min_value": -1.0,
        "max_value": 99.0,
        "avg_value": 24.8,
        "threshold_breaches": 2,
        "breach_rate": 0.4,
    }


def test_positions():
    track = [
        {"x": 0, "y": 0, "z": 0, "spd": 1, "hdg": 350},
        {"x": 3, "y": 4, "z": 0, "spd": 3, "hdg": 20},
        {"x": 3, "y": 4, "z": 12, "spd": 2, "hdg": 0},
    ]
    assert stream_stats("spatial", track) == {
        "type": "spatial",
        "count": 3,
        "current_position": {"x": 3.0, "y": 4.0, "z": 12.0},
        "current_speed": 2.0,
        "current_heading": 0.0,
        "total_distance": 17.0,
        "max_speed": 3.0,
        "avg_speed": 2.0,
        "max_turn_rate": 30.0,
    }


@given(st.floats(0, 360), st.floats(0, 360))
def test_a_turn_goes_the_short_way(before, after):
    track = [{"x": 0, "y": 0, "z": 0, "spd": 0, "hdg": hdg} for hdg in (before, after)]
    turned = math.degrees(
        math.acos(max(-1, min(1, math.cos(math.radians(before) - math.radians(after)))))
    )
    assert math.isclose(stream_stats("spatial", track)["max_turn_rate"], turned, abs_tol=1e-4)


def test_events():
    events = [
        {"src": "db", "sev": 2, "cat": "slow", "cnt": 4},
        {"src": "web", "sev": 4, "cat": "error", "cnt": 3},
        {"src": "db", "sev": 5, "cat": "error", "cnt": 2},
        {"src": "db", "sev": 1, "cat": "info", "cnt": 5},
    ]
    assert stream_stats("event", events) == {
        "type": "event",
        "count": 4,
        "total_event_count": 14,
        "max_severity": 5,
        "critical_events": 2,
        "unique_sources": 2,
        "unique_categories": 3,
        "top_category": "error",
        "top_category_count": 5,
    }


def test_vitals():
    vitals = [
        {"hr": 101, "bp_s": 120, "bp_d": 80, "spo2": 89, "temp": 37.0},
        {"hr": 120, "spo2": 88},
        {"bp_s": 90},
        {"hr": 100, "spo2": 97, "temp": 38.0},
        {"hr": 102},
        {"temp": 39.5, "rr": 20},
        {"hr": 59, "bp_s": 150, "bp_d": 90},
    ]
    stats = stream_stats("vitals", vitals)
    assert stats["count"] == 7
    assert stats["current"]["hr"] == 59.0
    assert stats["current"]["bp"] == "150/90"
    assert (stats["current"]["spo2"], stats["current"]["temp"]) == (97.0, 39.5)
    assert stats["current"]["map"] == pytest.approx(110.0)
    assert stats["avg_heart_rate"] == pytest.approx((101 + 120 + 100 + 102 + 59) / 5)
    assert stats["avg_map"] == pytest.approx((280 / 3 + 110) / 2)
    assert (stats["min_spo2"], stats["max_temp"]) == (88.0, 39.5)
    assert stats["alerts"] == {
        "tachycardia_episodes": 2,
        "bradycardia_episodes": 1,
        "hypoxia_episodes": 1,
        "fever_episodes": 1,
    }
