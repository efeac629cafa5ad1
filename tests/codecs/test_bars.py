"""Bars: what they are made of, when they are complete, and that order of arrival is nothing."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.bars import WAITING_MAX, build, piece_of
from flashfeed.models.assembly import Assembly, BarSpec, duration_s
from flashfeed.models.errors import ValidationFault
from flashfeed.models.records import TIMESTAMP_MIN_S, Ohlcv, Trade

MINUTE = BarSpec()


def run(spec: BarSpec, records: Iterable[Trade | Ohlcv]) -> tuple[list[Ohlcv], int, Assembly]:
    """The bars, how many records were late, and what is left."""
    state, bars, late = Assembly(), [], 0
    for record in records:
        state, made, too_late = build(state, spec, piece_of(record, spec, 0.0))
        bars += made
        late += too_late
        # It survives the changelog.
        assert msgspec.json.decode(msgspec.json.encode(state), type=Assembly) == state
    return bars, late, state


def trade(time: float, price: float, size: float = 1.0) -> Trade:
    return Trade(p=price, q=size, timestamp=time)


def test_a_minute_of_trades() -> None:
    trades = [trade(60, 10), trade(80, 12, 2), trade(119.9, 9), trade(120, 11)]
    bars, late, state = run(MINUTE, trades)
    assert bars == [Ohlcv(o=10, h=12, l=9, c=9, v=4, timestamp=60)]
    assert late == 0 and state.waiting and state.bar is None


def test_an_interval_without_a_trade_has_no_bar() -> None:
    bars, _, _ = run(MINUTE, [trade(0, 1), trade(600, 2), trade(660, 3)])
    assert [bar.timestamp for bar in bars] == [0, 600]


@pytest.mark.parametrize("spec", [MINUTE, BarSpec("volume", 1e308), BarSpec("dollar", 1e308)])
@pytest.mark.parametrize("price", [1e200, -1e200])
def test_sums_beyond_what_a_double_holds_stay_finite(spec: BarSpec, price: float) -> None:
    """An infinity would be null in the changelog, and its session lost on recovery."""
    trades = [trade(second, price, 9e307) for second in range(4)]
    bars, _, _ = run(spec, [*trades, trade(60, 1), trade(120, 1)])
    assert all(math.isfinite(bar.v) for bar in bars)


def test_the_first_bar_of_all_times_begins_with_them() -> None:
    bars, _, _ = run(MINUTE, [trade(TIMESTAMP_MIN_S, 1), trade(TIMESTAMP_MIN_S + 90, 2)])
    assert [bar.timestamp for bar in bars] == [TIMESTAMP_MIN_S]


def test_a_late_trade_is_counted_and_changes_nothing() -> None:
    spec = BarSpec(lateness="5s")
    trades = [trade(0, 1), trade(66, 2), trade(59, 9), trade(62, 3), trade(130, 4)]
    bars, late, _ = run(spec, trades)
    assert late == 1
    assert bars == [Ohlcv(o=1, h=1, l=1, c=1, v=1, timestamp=0),
                    Ohlcv(o=3, h=3, l=2, c=2, v=2, timestamp=60)]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (BarSpec("tick", 2), [(0, 10, 11, 3.0), (2, 12, 13, 7.0)]),
        (BarSpec("volume", 5), [(0, 10, 12, 6.0), (3, 13, 14, 9.0)]),
        (BarSpec("dollar", 60), [(0, 10, 12, 6.0), (3, 13, 14, 9.0)]),
    ],
)
def test_bars_by_what_was_traded(spec: BarSpec, expected: list[tuple[float, ...]]) -> None:
    trades = [trade(i, 10 + i, 1 + i) for i in range(6)]
    bars, _, _ = run(spec, trades)
    assert [(bar.timestamp, bar.o, bar.c, bar.v) for bar in bars][:2] == expected


def test_finer_candles_make_coarser_ones() -> None:
    minutes = [
        Ohlcv(o=i, h=i + 2, l=i - 1, c=i + 1, v=1, sym="A", timestamp=60.0 * i) for i in range(11)
    ]
    bars, _, _ = run(BarSpec(size="5m"), minutes)
    assert bars == [
        Ohlcv(o=0, h=6, l=-1, c=5, v=5, sym="A", timestamp=0),
        Ohlcv(o=5, h=11, l=4, c=10, v=5, sym="A", timestamp=300),
    ]


def test_what_such_bars_are_not_made_of() -> None:
    candle = Ohlcv(o=1, h=1, l=1, c=1, v=1)
    with pytest.raises(ValidationFault, match="a candle with a time"):
        piece_of(candle, MINUTE, 0)
    with pytest.raises(ValidationFault, match="tick bars are made"):
        piece_of(candle, BarSpec("tick", 2), 0)
    assert piece_of(Trade(p=1, q=1), MINUTE, 7.5).time == 7.5


def test_what_waits_is_bounded() -> None:
    spec = BarSpec(lateness="1h")
    bars, _, state = run(spec, [trade(i, 1) for i in range(200)])
    assert not bars and len(state.waiting) == 200
    state = Assembly()
    for i in range(WAITING_MAX + 50):
        state = build(state, spec, piece_of(trade(i / 10, 1), spec, 0)).assembly
    assert len(state.waiting) == WAITING_MAX
    assert build(state, spec, piece_of(trade(0, 1), spec, 0)).late


trades_in_order = st.lists(
    st.tuples(st.floats(0, 20), st.integers(1, 50), st.integers(0, 9)), min_size=1, max_size=40
)
specs = st.sampled_from(
    [
        BarSpec(size="10s", lateness="15s"),
        BarSpec(size="1m", lateness="15s"),
        BarSpec("tick", 3, "15s"),
        BarSpec("volume", 11, "15s"),
        BarSpec("dollar", 200, "15s"),
    ]
)


@given(specs, trades_in_order, st.randoms())
def test_any_order_within_the_lateness_gives_the_same_bars(
    spec: BarSpec, steps: list[tuple[float, int, int]], rng: random.Random
) -> None:
    times = itertools.accumulate(step for step, _, _ in steps)
    trades = [trade(time, price, size) for time, (_, price, size) in zip(times, steps, strict=True)]
    lateness = duration_s(spec.lateness)
    # A trade may be delayed by up to the lateness: what comes first is what is due first.
    shuffled = sorted(trades, key=lambda one: one.timestamp + rng.uniform(0, lateness * 0.999))
    # The last one ends what was begun, in either order.
    end = [trade(trades[-1].timestamp + 1000, 1)]
    in_order, late, left = run(spec, trades + end)
    mixed, late_mixed, left_mixed = run(spec, shuffled + end)
    assert (in_order, late, left) == (mixed, late_mixed, left_mixed)
    assert late == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"size": "1x"},
        {"size": "0s"},
        {"size": 5.0},
        {"by": "tick", "size": "1m"},
        {"by": "volume", "size": 0},
        {"lateness": "soon"},
    ],
)
def test_bad_specs_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(fields, BarSpec)
