"""For every text codec and any two records: one printable line, which says each field it must."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.registry import text_codec, text_codec_names
from flashfeed.codecs.text import TextCodec
from flashfeed.models.records import Event, Iot, Ohlcv, Record, Spatial, StreamType, Vitals

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


def check_round_trip(codec: TextCodec, record: Record, memory: Any) -> None:
    line = codec.render(record, memory)
    assert line.endswith("\n") and len(line.splitlines()) == 1, line
    assert line[:-1].isprintable(), line
    assert codec.render(record, memory) == line
    read = codec.parse(line, memory)
    written = codec.written(record, memory)
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
COMPUTED = {
    "ohlcv": "format:{c} {change:+.2f}% streak {streak:+} z {zscore:+.1f} range {range:.2f} "
    "{range_direction} {v_level} {v_change:+.1f}",
    "iot": "format:{sid} {val} {change:+.2f} {direction} {level} {streak} {zscore} {limit} "
    "{to_high} | {to_low}",
    "vitals": "format:{hr} {hr_change} {hr_streak} {temp_zscore} {score} {band} no {missing}",
    "spatial": "format:{x}, {spd_change} {moved} {turn:+.1f} {sector}",
    "event": "format:{cat} {sev} {sev_change} {sev_streak} {cnt_zscore:.2f}",
}
CODECS = [
    text_codec(name, text_codec_types)
    for text_codec_types in RECORDS
    for name in (
        *text_codec_names(text_codec_types),
        FORMATS[text_codec_types],
        COMPUTED[text_codec_types],
    )
]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@given(data=st.data())
def test_every_written_field_comes_back(codec: TextCodec, data: st.DataObject) -> None:
    memory = None
    for record in data.draw(st.lists(RECORDS[codec.record_type], min_size=1, max_size=4)):
        check_round_trip(codec, record, memory)
        memory = codec.remember(memory, record)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@given(data=st.data())
def test_a_memory_follows_from_the_records_and_stays_as_it_was(
    codec: TextCodec, data: st.DataObject
) -> None:
    records = data.draw(st.lists(RECORDS[codec.record_type], min_size=2, max_size=8))
    memories: list[Any] = [None]
    for record in records:
        memories.append(codec.remember(memories[-1], record))
    written = [codec.render(one, memory) for one, memory in zip(records, memories, strict=False)]
    again = None
    for record, line in zip(records, written, strict=True):
        assert codec.render(record, again) == line
        again = codec.remember(again, record)
    assert again == memories[-1]


@pytest.mark.parametrize("name", ["json", "csv"])
@pytest.mark.parametrize("record_type", RECORDS)
@given(data=st.data())
def test_json_and_csv_give_the_record_back(
    name: str, record_type: StreamType, data: st.DataObject
) -> None:
    codec = text_codec(name, record_type)
    record = data.draw(RECORDS[record_type])
    time = data.draw(st.none() | st.floats(0, 4e9))
    record = msgspec.structs.replace(record, timestamp=time)
    read = codec.parse(codec.render(record, None), None)
    assert msgspec.convert(read, type(record)) == record


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@given(line=st.text(max_size=20) | st.text("0123456789.+-% olhv\n", max_size=20))
def test_a_strange_line_is_a_value_error(codec: TextCodec, line: str) -> None:
    try:
        codec.parse(line, None)
    except ValueError:
        return
    assert line.endswith("\n")
