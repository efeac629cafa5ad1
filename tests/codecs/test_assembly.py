"""What a session's owner makes of records that need memory."""

from __future__ import annotations

import msgspec
import pytest

from flashfeed.codecs.assembly import assemble
from flashfeed.models.assembly import Assembly, BarSpec
from flashfeed.models.errors import ValidationFault
from flashfeed.models.records import Ohlcv, Record, Trade, Vitals
from flashfeed.models.session import SessionSpec

MERGED = SessionSpec(type="vitals", merge="10m")
CANDLES = SessionSpec(type="ohlcv")
FIVE_MINUTES = SessionSpec(type="ohlcv", bars=BarSpec(size="5m"))


def run(
    spec: SessionSpec, records: list[Record], may_change: bool = False
) -> tuple[list[Record], int]:
    state, out, late = Assembly(), [], 0
    for record in records:
        done = assemble(state, spec, record, may_change, received_s=0.0)
        state = msgspec.json.decode(msgspec.json.encode(done.assembly), type=Assembly)
        out += done.records
        late += done.late
    return out, late


def test_vitals_are_joined_while_they_are_fresh() -> None:
    out, late = run(
        MERGED,
        [
            Vitals(hr=72, timestamp=0),
            Vitals(temp=37, timestamp=60),
            Vitals(avpu="A", timestamp=120),
            Vitals(spo2=97, timestamp=630),
        ],
    )
    assert late == 0
    assert out == [
        Vitals(hr=72, timestamp=0),
        Vitals(hr=72, temp=37, timestamp=60),
        Vitals(hr=72, temp=37, avpu="A", timestamp=120),
        Vitals(temp=37, avpu="A", spo2=97, timestamp=630),
    ]


def test_an_older_vital_replaces_no_newer_one() -> None:
    out, late = run(
        MERGED,
        [Vitals(hr=72, timestamp=100), Vitals(hr=60, timestamp=50), Vitals(temp=37, timestamp=60)],
    )
    assert late == 1
    assert out[-1] == Vitals(hr=72, temp=37, timestamp=100)


def test_without_merge_a_vital_stands_alone() -> None:
    spec = SessionSpec(type="vitals")
    records: list[Record] = [Vitals(hr=72, timestamp=0), Vitals(temp=37, timestamp=60)]
    assert run(spec, records) == (records, 0)


def candle(start: float, close: float) -> Ohlcv:
    return Ohlcv(o=1, h=9, l=1, c=close, v=1, timestamp=start)


def test_a_candle_that_may_change_is_final_when_the_next_begins() -> None:
    records: list[Record] = [
        candle(0, 2),
        candle(0, 3),
        candle(60, 4),
        candle(0, 9),
        candle(120, 5),
    ]
    out, late = run(CANDLES, records, may_change=True)
    assert out == [candle(0, 3), candle(60, 4)]
    assert late == 1


def test_final_candles_make_bars() -> None:
    records: list[Record] = [candle(60.0 * i, 2 + i) for i in range(7)]
    out, _ = run(FIVE_MINUTES, records, may_change=True)
    assert out == [Ohlcv(o=1, h=9, l=1, c=6, v=5, timestamp=0)]


def test_what_a_session_makes_nothing_of() -> None:
    with pytest.raises(ValidationFault, match="template `bars`"):
        run(CANDLES, [Trade(p=1, q=1, timestamp=0)])
    with pytest.raises(ValidationFault, match="got B; name the feed's sessions by symbol"):
        trades: list[Record] = [Trade(p=1, q=1, sym=sym, timestamp=0) for sym in "AB"]
        run(FIVE_MINUTES, trades)
    with pytest.raises(ValidationFault, match="when the next one begins"):
        run(CANDLES, [Ohlcv(o=1, h=1, l=1, c=1, v=1)], may_change=True)
