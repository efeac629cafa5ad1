"""Live sessions: the candle that is not final is the last line, and the final lines are those
of a session that waits for them."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashfeed.agents.changelog import Slot, window_items
from flashfeed.agents.session_engine import engine_spec
from flashfeed.agents.session_outputs import entry_items
from flashfeed.agents.session_plan import plan_step
from flashfeed.agents.session_settle import next_state, settle_step
from flashfeed.agents.session_step import SessionState, Waiting
from flashfeed.codecs.registry import text_codec_names
from flashfeed.codecs.text_live import LEGEND, MARK
from flashfeed.models.assembly import BarSpec
from flashfeed.models.messages import Append, MarkPrefix, PackedRecord, Records
from flashfeed.models.records import RecordType
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec
from flashfeed.models.state import Entry, decode_entry, encode_entry, entry_slot, ring_slots

from session_steps import apply, lines, ran

FLASH = (FlashQuery("Up?", choices=("yes", "no")),)
GROW = WindowSpec("grow")
LATENESS_S = 15.0


def spec_of(
    bars: BarSpec | None, window: WindowSpec = GROW, live: bool = True, text: str = "ohlcv_numbers"
) -> SessionSpec:
    return SessionSpec(type="ohlcv", flash=FLASH, window=window, bars=bars, live=live, text=text)


def message(kind: RecordType, offset: int, *records: dict[str, float], change: bool) -> Waiting:
    packed = tuple(PackedRecord(offset, place, 0, one) for place, one in enumerate(records))
    return Waiting(
        offset,
        Records(type=kind, records=packed, topic="t", template="x", may_change=change),
    )


def trades(offset: int, *ticks: tuple[float, float]) -> Waiting:
    fields = ({"p": price, "q": 1.0, "timestamp": float(time)} for time, price in ticks)
    return message("trade", offset, *fields, change=False)


def candle(offset: int, start: float, close: float) -> Waiting:
    fields = {"o": 1.0, "h": 99.0, "l": 0.5, "c": float(close), "v": 1.0, "timestamp": start}
    return message("ohlcv", offset, fields, change=True)


def run(spec: SessionSpec, *waiting: Waiting) -> SessionState:
    """Each message a step of its own."""
    state: SessionState | None = None
    for one in waiting:
        state, _ = apply(state, one, find=lambda _: spec)
    assert state is not None
    return state


def finals(state: SessionState) -> list[str]:
    return [item.line for item in state.items if not item.live]


MINUTE = BarSpec(size="1m")


def test_an_open_bar_is_the_last_line_until_it_is_final() -> None:
    spec = spec_of(MINUTE)
    state = run(spec, trades(0, (0, 10)))
    assert lines(state) == ["10.00 1.0 open"] and state.head.version == 1
    state = run(spec, trades(0, (0, 10)), trades(1, (30, 12)))
    assert lines(state) == ["12.00 2.0 open"]
    state = run(spec, trades(0, (0, 10)), trades(1, (30, 12)), trades(2, (60, 9)))
    assert lines(state) == ["12.00 2.0", "9.00 -25.0 1.0 open"]
    counters = state.head.counters
    assert (counters.final, counters.live, counters.corrected) == (1, 3, 0)
    assert state.head.version == 3


def test_the_prompt_says_what_open_means_in_live_sessions_only() -> None:
    live, waits = (run(spec_of(MINUTE, live=on), trades(0, (0, 1))) for on in (True, False))
    assert engine_spec(live.head).prompt.endswith(LEGEND)
    assert LEGEND not in engine_spec(waits.head).prompt


def test_within_the_lateness_two_bars_may_be_open() -> None:
    spec = spec_of(BarSpec(size="1m", lateness="30s"))
    state = run(spec, trades(0, (50, 1)), trades(1, (61, 2)))
    assert lines(state) == ["1.00 1.0 open", "2.00 +100.0 1.0 open"]
    state = run(spec, trades(0, (50, 1)), trades(1, (61, 2)), trades(2, (55, 4)))
    assert lines(state) == ["4.00 2.0 open", "2.00 -50.0 1.0 open"]
    state = run(spec, trades(0, (50, 1), (61, 2)), trades(2, (55, 4)), trades(3, (91, 2)))
    assert lines(state) == ["4.00 2.0", "2.00 -50.0 2.0 open"]


def test_a_bar_that_begins_earlier_after_all_takes_the_line_of_the_first() -> None:
    spec = spec_of(BarSpec("tick", 2, "30s"))
    state = run(spec, trades(0, (10, 1), (12, 3)), trades(1, (11, 2)))
    assert lines(state) == ["2.00 2.0 open", "3.00 +50.0 1.0 open"]
    assert state.head.assembly.live == 2


def test_a_candle_that_may_change_is_shown_and_becomes_final() -> None:
    spec = spec_of(None)
    state = run(spec, candle(0, 0, 2), candle(1, 0, 3), candle(2, 0, 3), candle(3, 60, 4))
    assert lines(state) == ["3.00 1.0", "4.00 +33.3 1.0 open"]
    # The same again changed nothing, so it made no version.
    assert state.head.version == 3
    assert state.head.counters.processed == 4 and state.head.counters.duplicates == 0
    late = run(spec, candle(0, 0, 2), candle(1, 60, 3), candle(2, 0, 9))
    assert late.head.counters.late == 1 and late.head.version == 2


def test_coarser_bars_of_candles_that_may_change_hold_the_newest_too() -> None:
    spec = spec_of(BarSpec(size="5m"))
    state = run(spec, candle(0, 0, 2), candle(1, 60, 3), candle(2, 60, 5))
    [item] = state.items
    assert item.live and item.fields is not None
    assert (item.fields["c"], item.fields["v"]) == (5.0, 2.0)
    # The minute at 300 may change, so it ends nothing yet.
    state = run(spec, candle(0, 0, 2), candle(1, 60, 3), candle(2, 300, 7))
    assert lines(state) == ["3.00 2.0 open", "7.00 +133.3 1.0 open"]
    state = run(spec, candle(0, 0, 2), candle(1, 60, 3), candle(2, 300, 7), candle(3, 360, 8))
    assert lines(state) == ["3.00 2.0", "8.00 +166.7 2.0 open"]


def test_a_candle_that_is_final_when_it_comes_is_never_open() -> None:
    fields = {"o": 1.0, "h": 9.0, "l": 1.0, "c": 2.0, "v": 1.0, "timestamp": 0.0}
    state = run(spec_of(None), message("ohlcv", 0, fields, change=False))
    assert lines(state) == ["2.00 1.0"]
    assert (state.head.counters.final, state.head.counters.live) == (1, 0)


def test_text_between_stays_where_it_is() -> None:
    lunch = Waiting(1, Append(text="lunch"))
    state = run(spec_of(MINUTE), trades(0, (0, 10)), lunch, trades(2, (30, 12)), trades(3, (60, 9)))
    assert lines(state) == ["12.00 2.0", "lunch", "9.00 -25.0 1.0 open"]


def test_an_open_line_that_slid_out_comes_again() -> None:
    texts = [Waiting(n, Append(text=f"text {n}")) for n in range(1, 5)]
    spec = spec_of(MINUTE, WindowSpec("exact", 1))
    state = run(spec, trades(0, (0, 10)), *texts, trades(5, (30, 12)))
    assert lines(state)[-1] == "12.00 2.0 open"
    assert sum(item.live for item in state.items) == 1


def test_a_frozen_prefix_keeps_its_line_and_the_bar_goes_on_behind_it() -> None:
    state = run(
        spec_of(MINUTE),
        trades(0, (0, 10)),
        Waiting(1, MarkPrefix()),
        trades(2, (30, 12)),
        trades(3, (60, 9)),
    )
    assert state.head.frozen == ("10.00 1.0 open",)
    assert lines(state) == ["12.00 2.0", "9.00 -25.0 1.0 open"]


def test_a_version_names_the_trades_since_the_one_before() -> None:
    state = run(spec_of(MINUTE), trades(0, (0, 10)), trades(1, (30, 12)), trades(2, (31, 13)))
    [origin] = state.head.origins
    assert (origin.first, origin.last) == (2, 2)


def test_live_is_of_candles() -> None:
    with pytest.raises(ValueError, match="live in an ohlcv session only, got type iot"):
        SessionSpec(type="iot", live=True)
    with pytest.raises(ValueError, match="live or overflow coalesce, got both"):
        SessionSpec(type="ohlcv", live=True, overflow="coalesce")


bars = st.sampled_from(
    [
        BarSpec(size="10s", lateness="15s"),
        BarSpec(size="1m", lateness="15s"),
        BarSpec("tick", 3, "15s"),
        BarSpec("dollar", 20, "15s"),
    ]
)
windows = st.sampled_from(
    [GROW, WindowSpec("exact", 1), WindowSpec("exact", 3), WindowSpec("shift", 4)]
)
ticks = st.lists(
    st.tuples(st.floats(0, 20), st.integers(1, 20), st.floats(0, LATENESS_S * 1.2)),
    min_size=1,
    max_size=40,
)
texts = st.sampled_from([*text_codec_names("ohlcv"), "format:{c} {streak} {zscore}"])
sizes = st.lists(st.integers(1, 5), min_size=1)


def messages_of(steps: list[tuple[float, int, float]], batches: list[int]) -> list[Waiting]:
    """Trades in an order that the lateness allows for most of them, several a message."""
    times = itertools.accumulate(step for step, _, _ in steps)
    came = sorted(
        (time + delay, time, float(price))
        for time, (_, price, delay) in zip(times, steps, strict=True)
    )
    found, left = [], [(time, price) for _, time, price in came]
    while left:
        size = batches[len(left) % len(batches)]
        found.append(trades(len(found), *left[:size]))
        left = left[size:]
    return found


@settings(max_examples=150, deadline=None)
@given(bars, windows, texts, ticks, sizes, sizes)
def test_the_final_lines_are_those_of_a_session_that_waits(
    spec: BarSpec,
    window: WindowSpec,
    text: str,
    steps: list[tuple[float, int, float]],
    packed: list[int],
    stepped: list[int],
) -> None:
    """However the trades come and are taken: beside what is open at the end, the same lines;
    and the changelog's ring gives the window back at every step."""
    live, waits = (spec_of(spec, window, on, text) for on in (True, False))
    waiting = messages_of(steps, packed)
    reference, _ = apply(None, *waiting, find=lambda _: waits)
    assert reference is not None
    state: SessionState | None = None
    slots: dict[int, Slot] = {}
    while waiting:
        size = stepped[len(waiting) % len(stepped)]
        taken, waiting = waiting[:size], waiting[size:]
        step = plan_step("s", state, taken, lambda _: live)
        head = settle_step(step, state, ran(step))
        items = entry_items(step, state, head)
        assert step.rewind <= len(step.items)
        if items:
            entry = decode_entry(encode_entry(Entry(0, head, tuple(items))))
            kept = entry.items[max(0, len(items) - head.items) :]
            slots[entry_slot(head)] = Slot(0, head.steps, head.written, kept)
        state = next_state(step, state, head)
        found = window_items(head, slots.values())
        assert [*found] == [*state.items]
        # A new owner goes on from here.
        state = SessionState.restored(head, found)
    assert state is not None
    ring = ring_slots(window)
    assert ring is None or len(slots) <= ring
    is_live = [item.live for item in state.items]
    assert is_live == sorted(is_live), "what is open stands last"
    assert all(item.line.endswith(MARK) == item.live for item in state.items)
    assert sum(is_live) == min(state.head.assembly.live, len(state.items))
    assert state.head.counters.late == reference.head.counters.late
    assert state.head.counters.corrected == 0
    assert state.head.counters.final == reference.head.counters.final
    if window.mode == "grow":
        assert finals(state) == lines(reference)


@settings(max_examples=100, deadline=None)
@given(ticks, sizes)
def test_what_is_final_and_what_is_open_are_all_the_trades(
    steps: list[tuple[float, int, float]], packed: list[int]
) -> None:
    """Against bars made another way: of all trades at once, sorted."""
    spec = BarSpec(size="10s", lateness="20s")  # none is late
    state = run(spec_of(spec), *messages_of(steps, packed))
    times = itertools.accumulate(step for step, _, _ in steps)
    by_start: defaultdict[float, list[tuple[float, float]]] = defaultdict(list)
    for time, (_, price, _) in zip(times, steps, strict=True):
        by_start[time // 10 * 10].append((time, float(price)))
    expected = [
        (start, max(p for _, p in one), min(p for _, p in one), sorted(one)[-1][1], len(one))
        for start, one in sorted(by_start.items())
    ]
    got = [item.fields for item in state.items if item.fields]
    assert [(f["timestamp"], f["h"], f["l"], f["c"], f["v"]) for f in got] == expected
    assert [item.live for item in state.items][-1]
