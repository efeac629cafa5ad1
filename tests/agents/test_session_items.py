"""Candles that come again, late or out of order: where they go, what is written, recovery."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from flashfeed.agents.changelog import Slot, window_items
from flashfeed.agents.session_outputs import entry_items
from flashfeed.agents.session_plan import failed_step, plan_step
from flashfeed.agents.session_settle import next_state, settle_step
from flashfeed.agents.session_step import SessionState, Waiting
from flashfeed.codecs.registry import text_codec
from flashfeed.models.errors import EngineError
from flashfeed.models.messages import Append, PackedRecord, Records
from flashfeed.models.records import make_record
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec
from flashfeed.models.state import entry_slot, ring_slots
from flashfeed.models.window import block_start

from session_steps import apply, lines, ran

FLASH = (FlashQuery("Up?", choices=("yes", "no")),)


def spec_of(window: WindowSpec, text: str = "") -> SessionSpec:
    return SessionSpec(type="ohlcv", flash=FLASH, window=window, text=text)


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


def test_a_correction_that_the_engine_cannot_take_leaves_the_window_as_it_was() -> None:
    """The engine puts back what it had taken out, and so must the state (invariant 5)."""
    state = run(GROW, candle(0, 0, 2), candle(1, 60, 3), candle(2, 120, 4))
    before = lines(state)
    step = plan_step("s", state, [candle(3, 60, 9)], lambda _: GROW)
    assert step.rewind == 2
    failed = failed_step(step, state, EngineError("broken"))
    head = settle_step(failed, state, ran(failed))
    assert head.count == head.items == head.records == 3
    assert head.counters.corrected == 0 and head.counters.processed == 4
    assert list(entry_items(failed, state, head)) == []
    after = next_state(failed, state, head)
    assert lines(after) == before and after.head.failed


windows = st.sampled_from(
    [WindowSpec("grow"), WindowSpec("exact", 1), WindowSpec("exact", 3), WindowSpec("shift", 4)]
)
arrivals = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 3)), min_size=1, max_size=40)


texts = st.sampled_from(["", "delta", "format:{c} {change:+.1f} {streak} {zscore}"])


@settings(max_examples=200)
@given(windows, arrivals, st.lists(st.integers(1, 5), min_size=1), texts)
def test_any_arrivals_leave_what_came_last_in_order_and_recovery_finds_it(
    window: WindowSpec, candles: list[tuple[int, int]], batches: list[int], text: str
) -> None:
    """Whatever comes again: each start once, in order, with the values that came last, and
    the lines those of a session that never saw another. The changelog's ring gives it back."""
    spec = spec_of(window, text)
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
            slots[entry_slot(head)] = Slot(0, head.steps, head.written, kept)
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
    assert SessionState.restored(state.head, state.items).last == state.last
    if window.mode != "shift":
        assert lines(state) == lines_by_block(state)


def lines_by_block(state: SessionState) -> list[str]:
    """The lines of the window's records, each block's written with nothing before it."""
    codec, window = text_codec(state.head.spec.text, "ohlcv"), state.head.window
    memory, written = None, []
    for number, item in enumerate(state.items, start=state.head.count - len(state.items)):
        assert item.fields is not None
        if number == block_start(window, number):
            memory = None
        record = make_record("ohlcv", item.fields)
        written.append(codec.render(record, memory).removesuffix("\n"))
        memory = codec.remember(memory, record)
    return written
