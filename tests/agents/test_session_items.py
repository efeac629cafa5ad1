"""Candles that come again, late or out of order: where they go, what is written, recovery."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from flashfeed.agents.changelog import Slot, window_items
from flashfeed.agents.session_outputs import entry_items
from flashfeed.agents.session_plan import plan_step
from flashfeed.agents.session_settle import next_state, settle_step
from flashfeed.agents.session_step import SessionState, Waiting
from flashfeed.models.messages import Append, PackedRecord, Records
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec
from flashfeed.models.state import entry_slot, ring_slots

from session_steps import apply, lines, ran

FLASH = (FlashQuery("Up?", choices=("yes", "no")),)


def spec_of(window: WindowSpec) -> SessionSpec:
    return SessionSpec(type="ohlcv", flash=FLASH, window=window)


def candle(offset: int, start: float, close: float, sym: str | None = None) -> Waiting:
    fields = {"o": 1.0, "h": 99.0, "l": 0.5, "c": close, "v": 1.0, "timestamp": start}
    if sym:
        fields["sym"] = sym
    record = PackedRecord(offset, 0, 0, fields)
    return Waiting(offset, Records(type="ohlcv", records=(record,), topic="t", template="x"))


def run(spec: SessionSpec, *waiting: Waiting) -> SessionState:
    state: SessionState | None = None
    for one in waiting:
        state, _ = apply(state, one, find=lambda _: spec)
    assert state is not None
    return state


GROW = spec_of(WindowSpec("grow"))


def closes(state: SessionState) -> list[float]:
    return [item.fields["c"] for item in state.items if item.fields]


def test_the_same_candle_again_is_dropped_and_counted() -> None:
    state = run(GROW, candle(0, 0, 2), candle(1, 60, 3), candle(2, 0, 2))
    assert closes(state) == [2, 3]
    assert state.head.counters.duplicates == 1 and state.head.version == 2


def test_other_values_take_its_place_and_what_follows_is_written_again() -> None:
    state = run(GROW, candle(0, 0, 2), candle(1, 60, 3), candle(2, 120, 4), candle(3, 60, 9))
    assert closes(state) == [2, 9, 4]
    assert state.head.counters.corrected == 1 and state.head.version == 4
    assert lines(state) == lines(run(GROW, candle(0, 0, 2), candle(1, 60, 9), candle(2, 120, 4)))


def test_a_missing_candle_comes_where_it_belongs() -> None:
    state = run(GROW, candle(0, 0, 2), candle(1, 120, 4), candle(2, 60, 3))
    assert closes(state) == [2, 3, 4] and state.head.count == 3


def test_older_than_the_window_is_late() -> None:
    exact = spec_of(WindowSpec("exact", 2))
    waiting = [candle(n, 60.0 * n, n + 1) for n in range(6)]
    state = run(exact, *waiting, candle(6, 30, 7))
    assert closes(state) == [3, 4, 5, 6][-len(state.items) :]
    assert state.head.counters.late == 1 and state.head.version == 6


def test_another_symbol_is_another_candle() -> None:
    state = run(GROW, candle(0, 60, 2, "A"), candle(1, 0, 3, "B"), candle(2, 60, 4, "B"))
    assert closes(state) == [2, 3, 4] and state.head.counters.corrected == 0


def test_text_between_stays_where_it_is() -> None:
    text = Waiting(1, Append(text="lunch"))
    state = run(GROW, candle(0, 0, 2), text, candle(2, 60, 3), candle(3, 0, 9))
    assert [item.line for item in state.items][1] == "lunch"
    assert closes(state) == [9, 3]


windows = st.sampled_from(
    [WindowSpec("grow"), WindowSpec("exact", 1), WindowSpec("exact", 3), WindowSpec("shift", 4)]
)
arrivals = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 3)), min_size=1, max_size=40)


@settings(max_examples=200)
@given(windows, arrivals, st.lists(st.integers(1, 5), min_size=1))
def test_any_arrivals_leave_what_came_last_in_order_and_recovery_finds_it(
    window: WindowSpec, candles: list[tuple[int, int]], batches: list[int]
) -> None:
    """Whatever comes again: each start once, in order, with the values that came last, and
    the lines those of a session that never saw another. The changelog's ring gives it back."""
    spec = spec_of(window)
    waiting = [candle(n, 60.0 * start, close) for n, (start, close) in enumerate(candles)]
    state: SessionState | None = None
    slots: dict[int, Slot] = {}
    while waiting:
        size = batches[len(waiting) % len(batches)]
        taken, waiting = waiting[:size], waiting[size:]
        step = plan_step("s", state, taken, lambda _: spec)
        head = settle_step(step, state, ran(step))
        items = entry_items(step, state, head)
        if items:
            kept = tuple(items[max(0, len(items) - head.items) :])
            slots[entry_slot(head)] = Slot(0, head.steps, head.written, kept, b"")
        state = next_state(step, state, head)
        assert len(state.items) == head.items
        assert head.records == len(state.items)
        found = window_items(head, slots.values())
        assert [one.line for one in found] == lines(state)
    assert state is not None
    ring = ring_slots(window)
    assert ring is None or len(slots) <= ring
    starts = [item.fields["timestamp"] for item in state.items if item.fields]
    assert starts == sorted(set(starts))
    last = {60.0 * start: float(close) for start, close in candles}
    late = state.head.counters.late
    for start, close in zip(starts, closes(state), strict=True):
        assert late or last[start] == close
    if window.mode == "grow":
        again = run(spec, *(candle(n, one, last[one]) for n, one in enumerate(sorted(last))))
        if not late:
            assert lines(again) == lines(state)
    assert msgspec.to_builtins(state.head)
