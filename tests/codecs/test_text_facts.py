"""What code computes, against the same computed in another way over the records before."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.registry import text_codec
from flashfeed.codecs.text_facts import (
    NAMES_MAX,
    ZSCORE_VALUES_MIN,
    FactsMemory,
    fact,
    remembered,
)
from flashfeed.models.records import Event, Iot, Ohlcv, Record, Spatial, StreamType, Vitals


def candle(c: float) -> Ohlcv:
    return Ohlcv(o=c, h=c + 1, l=c - 1, c=c, v=1.0, sym="A")


def lines(template: str, record_type: StreamType, records: list[Record]) -> list[str]:
    codec = text_codec(f"format:{template}", record_type)
    memory, written = None, []
    for record in records:
        written.append(codec.render(record, memory).rstrip("\n"))
        memory = codec.remember(memory, record)
    return written


def test_candles() -> None:
    closes = [100.0, 101.0, 103.0, 103.0, 102.0, 101.0, 110.0]
    assert lines("{c} {change:+.1f}% {streak:+}", "ohlcv", [candle(c) for c in closes]) == [
        "100 -% -",
        "101 +1.0% +1",
        "103 +2.0% +2",
        "103 +0.0% +0",
        "102 -1.0% -1",
        "101 -1.0% -2",
        "110 +8.9% +1",
    ]


def test_directions_are_against_the_record_before_and_levels_against_the_mean_of_all() -> None:
    bars = [(10.0, 5.0, 1.0), (12.0, 9.0, 1.0), (11.0, 8.0, 3.0), (11.0, 7.0, 2.0)]
    records: list[Record] = [Ohlcv(o=c, h=c, l=c - wide, c=c, v=v) for c, v, wide in bars]
    template = "{direction} {level} {v_level} {v_change:+.0f}% {range_direction}"
    assert lines(template, "ohlcv", records) == [
        "- - - -% -",
        "up high high +80% same",
        "down low high -11% up",
        "same low low -12% down",
    ]
    assert lines(
        "{cnt_direction}", "event", [Event(src="a", sev=1, cat="b", cnt=n) for n in (2, 1)]
    ) == ["-", "down"]


def test_a_turn_between_headings_beyond_all_measure_is_a_number() -> None:
    far = [Spatial(x=0, y=0, z=0, spd=0, hdg=hdg) for hdg in (-1e308, 1.7e308)]
    first, turned = lines("{turn}", "spatial", list(far))
    assert first == "-" and -180 <= float(turned) <= 180


def test_each_sensor_has_its_own_course() -> None:
    readings: list[Record] = [
        Iot(sid="a", val=10.0, lo=5.0, hi=20.0),
        Iot(sid="b", val=1.0),
        Iot(sid="a", val=21.5, lo=5.0, hi=20.0),
        Iot(sid="b", val=0.5),
    ]
    template = "{sid} {val} {change:+.1f} {streak:+} {limit} {to_high:+.1f}/{to_low:+.1f}"
    assert lines(template, "iot", readings) == [
        "a 10 - - within +10.0/+5.0",
        "b 1 - - - -/-",
        "a 21.5 +11.5 +1 high -1.5/+16.5",
        "b 0.5 -0.5 -1 - -/-",
    ]


def test_vitals_say_what_the_band_is_made_without() -> None:
    vitals: list[Record] = [
        Vitals(hr=131.0, spo2=98.0),
        Vitals(hr=70.0, spo2=98.0, rr=16.0, o2=0.0, bp_s=120.0, avpu="A", temp=37.0),
    ]
    template = "hr {hr} {hr_change:+.0f}, {score_name} {score} {band}, missing {missing}"
    assert lines(template, "vitals", vitals) == [
        "hr 131 -, partial 3 low-medium, missing rr+o2+bp_s+avpu+temp",
        "hr 70 -61, NEWS2 0 low, missing none",
    ]


def test_positions() -> None:
    def at(x: float, hdg: float) -> Record:
        return Spatial(x=x, y=0.0, z=0.0, spd=1.0, hdg=hdg)

    written = lines("{moved} {turn:+.0f} {sector}", "spatial", [at(0, 350), at(3, 20), at(3, 350)])
    assert written == ["- - N", "3 +30 N", "0 -30 N"]


@given(st.lists(st.integers(-1000, 1000).map(float), min_size=1, max_size=30))
def test_zscore_and_streak_are_those_of_the_values_before(values: list[float]) -> None:
    memory: FactsMemory | None = None
    for count, value in enumerate(values):
        reading = Iot(sid="a", val=value)
        before = values[:count]
        found = fact("zscore", reading, memory, "iot")
        if count < ZSCORE_VALUES_MIN or len(set(before)) == 1:
            assert found is None
        else:
            wanted = (value - statistics.fmean(before)) / statistics.stdev(before)
            assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9)
        streak = fact("streak", reading, memory, "iot")
        assert streak == (_streak(values[: count + 1]) if count else None)
        memory = remembered(memory, reading, "iot")


def _streak(values: list[float]) -> int:
    steps = [(b > a) - (b < a) for a, b in pairwise(values)]
    run = 0
    for step in reversed(steps):
        if not step or step != steps[-1]:
            break
        run += step
    return run


def test_the_memory_is_bounded() -> None:
    memory: FactsMemory | None = None
    for number in range(3 * NAMES_MAX):
        memory = remembered(memory, Iot(sid=f"s{number}", val=1.0), "iot")
    assert memory is not None and len(memory.courses) == NAMES_MAX
    assert f"s{3 * NAMES_MAX - 1}" in memory.courses
