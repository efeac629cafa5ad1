"""For every text codec and any two records: one printable line, which says each field it must."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.registry import text_codec, text_codec_names
from flashfeed.codecs.text import TextCodec
from flashfeed.models.records import Event, Iot, Ohlcv, Record, Spatial, Vitals

NAMES = st.sampled_from(
    ["AAPL", "BTC-USDT", "5", "+5", "a b", 'q"\\', "", "x\ny", "\u2028", "high"]
)
NAMES = NAMES | st.text(max_size=8)
SIZES = (
    st.floats(-1e6, 1e6)
    | st.floats(-1e300, 1e300)
    | st.decimals(-1000, 1000, places=2).map(float)
    | st.sampled_from([0.0, -0.0, 99.9996, 0.00012345678, 1e15, 1e-12, 999999.5])
)
PRICES = (
    st.floats(1e-9, 1e6) | st.decimals(0, 1000, places=2).map(float) | st.sampled_from([99.9996])
)


def _candle(prices: list[float], volume: float, sym: str | None) -> Ohlcv:
    low, o, c, high = (prices[0], *prices[1:3], prices[3])
    return Ohlcv(o=o, h=max(low, high), l=min(low, high), c=c, v=volume, sym=sym)


CANDLES = st.builds(
    _candle,
    st.lists(PRICES, min_size=4, max_size=4) | st.lists(SIZES, min_size=4, max_size=4),
    st.floats(0, 1e14) | st.sampled_from([0.0, 0.5, 950.0, 999.6, 999600.0, 1e18]),
    st.none() | NAMES,
)
READINGS = st.builds(Iot, sid=NAMES, val=SIZES, lo=st.none() | SIZES, hi=st.none() | SIZES)
SMALL = st.none() | st.floats(0, 300) | st.integers(0, 300).map(float)
VITALS = st.fixed_dictionaries(
    {name: SMALL for name in ("hr", "bp_s", "bp_d", "spo2", "temp", "rr", "o2")}
    | {"avpu": st.none() | st.sampled_from("ACVPU")}
)
VITALS_RECORDS = VITALS.filter(lambda v: any(x is not None for x in v.values())).map(
    lambda v: Vitals(**v)
)
POSITIONS = st.builds(Spatial, x=SIZES, y=SIZES, z=SIZES, spd=SIZES, hdg=SIZES)
EVENTS = st.builds(Event, src=NAMES, sev=st.integers(-9, 99), cat=NAMES, cnt=st.integers(-2, 99))

RECORDS: dict[str, Any] = {
    "ohlcv": CANDLES,
    "iot": READINGS,
    "vitals": VITALS_RECORDS,
    "spatial": POSITIONS,
    "event": EVENTS,
}


def check_round_trip(codec: TextCodec, record: Record, previous: Record | None) -> None:
    line = codec.render(record, previous)
    assert line.endswith("\n") and len(line.splitlines()) == 1, line
    assert line[:-1].isprintable(), line
    assert codec.render(record, previous) == line
    read = codec.parse(line, previous)
    written = codec.written(record, previous)
    assert read.keys() == written.keys(), line
    assert {name for name in read} <= set(codec.precision), line
    for name, want in written.items():
        got = read[name]
        if isinstance(want.value, str) or isinstance(got, str):
            assert got == want.value, line
        else:
            assert abs(got - want.value) <= want.within, (name, want, got, line)


FORMATS = {
    "ohlcv": "format:{sym} close {c:.3f} of {o} low {l:+.2e} vol {v:.2s} {h:,.1f}!",
    "iot": "format:{sid}={val} [{lo}; {hi:.4g}]",
    "vitals": "format:hr {hr} {{{avpu}}}",
    "spatial": "format:({x} {y}) {hdg:.0f}",
    "event": "format:{src}: {cat} sev {sev:+} times {cnt:,}",
}
CODECS = [
    text_codec(name, text_codec_types)
    for text_codec_types in RECORDS
    for name in (*text_codec_names(text_codec_types), FORMATS[text_codec_types])
]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@given(data=st.data())
def test_every_written_field_comes_back(codec: TextCodec, data: st.DataObject) -> None:
    records = RECORDS[codec.record_type]
    previous = data.draw(st.none() | records)
    record = data.draw(records)
    check_round_trip(codec, record, previous)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@given(line=st.text(max_size=20) | st.text("0123456789.+-% olhv\n", max_size=20))
def test_a_strange_line_is_a_value_error(codec: TextCodec, line: str) -> None:
    try:
        codec.parse(line, None)
    except ValueError:
        return
    assert line.endswith("\n")
