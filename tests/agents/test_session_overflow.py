"""Invariant 7 as values: more waits at a session's owner than a step takes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashfeed.agents.pushes import ON_THE_WAY_MAX, check_push, displaced
from flashfeed.agents.session_queue import (
    COALESCE_RECORDS_MAX,
    Relief,
    queue_bound,
    queue_capacity,
    take_waiting,
)
from flashfeed.agents.session_step import (
    MERGED_LINES_MAX,
    STEP_ITEMS_MAX,
    SessionState,
    Step,
    Waiting,
)
from flashfeed.models.assembly import BarSpec
from flashfeed.models.errors import Overloaded
from flashfeed.models.messages import AddQuery, Append, PackedRecord, Records
from flashfeed.models.records import RecordType
from flashfeed.models.session import FlashQuery, Overflow, SessionSpec, WindowSpec
from flashfeed.models.state import Counters, Entry, Head, decode_entry, encode_entry
from flashfeed.models.views import SessionView

from session_steps import apply, lines, reading, values

FLASH = (FlashQuery("High?", choices=("yes", "no")),)


def spec(overflow: Overflow, kind: Any = "iot", window: int = 64, queue: int = 64) -> SessionSpec:
    return SessionSpec(
        type=kind,
        flash=FLASH,
        window=WindowSpec("exact", window),
        overflow=overflow,
        queue_records=queue,
    )


def message(offset: int, kind: RecordType, *rows: dict[str, Any]) -> Waiting:
    packed = tuple(PackedRecord(offset, place, 1000, row) for place, row in enumerate(rows))
    return Waiting(offset, Records(type=kind, records=packed, topic="t", template="x"))


def begun(of: SessionSpec, *first: Waiting) -> SessionState:
    """The session after its first messages."""
    state, _ = apply(None, *first, find=lambda _: of)
    assert state is not None
    return state


def behind(of: SessionSpec, *waiting: Waiting) -> tuple[SessionState, list[Step]]:
    """The session with all of that waiting behind its first record."""
    state, steps = apply(begun(of, reading(0, -1)), *waiting)
    assert state is not None
    return state, steps


def candle(offset: int, start: int, close: float, sym: str = "A") -> Waiting:
    row = {"o": 1.0, "h": close, "l": 1.0, "c": close, "v": 10.0, "sym": sym}
    return message(offset, "ohlcv", {**row, "timestamp": float(start)})


def test_up_to_the_bound_nothing_is_dropped_or_merged() -> None:
    waiting = [reading(offset, float(offset)) for offset in range(1, 65)]
    kept: list[list[str]] = []
    for overflow in ("block", "coalesce", "drop_oldest"):
        state, _ = behind(spec(overflow), *waiting)  # type: ignore[arg-type]
        assert (state.head.counters.dropped, state.head.counters.coalesced) == (0, 0)
        kept.append(lines(state))
    assert kept[0] == kept[1] == kept[2]


def test_block_takes_all_in_its_time() -> None:
    state, steps = behind(spec("block"), *(reading(n, float(n)) for n in range(1, 301)))
    assert state.head.written == 301 and state.head.counters.processed == 301
    assert max(step.records for step in steps) == STEP_ITEMS_MAX


def test_drop_oldest_keeps_the_newest_and_counts_the_rest() -> None:
    waiting = [reading(n, *(float(10 * n + k) for k in range(10)), at=10 * n) for n in range(1, 31)]
    state, steps = behind(spec("drop_oldest", window=200, queue=125), *waiting)
    assert steps[0].dropped == 175 and sum(step.dropped for step in steps) == 175
    # The oldest go, in the middle of a message where the bound is there.
    assert values(state) == [-1.0, *(float(n) for n in range(185, 310))]
    assert (state.head.counters.processed, state.head.counters.dropped) == (301, 175)
    assert state.head.records_offset == 30
    assert state.head.watermarks["t/0"] == (309, 0)


def test_what_was_dropped_is_not_taken_when_it_comes_again() -> None:
    first = [reading(n, float(n)) for n in range(1, 201)]
    state, _ = behind(spec("drop_oldest"), *first)
    again = [reading(200 + n, float(n), at=n) for n in range(1, 201)]
    after, steps = apply(state, *again[:64])
    assert after is not None and values(after) == values(state)
    assert sum(step.duplicates for step in steps) == 64
    assert after.head.counters.dropped == state.head.counters.dropped == 136


def test_the_origins_of_a_version_after_a_drop_are_those_in_it() -> None:
    state, steps = behind(spec("drop_oldest"), *(reading(n, float(n)) for n in range(1, 165)))
    assert len(steps) == 1
    [origin] = state.head.origins
    assert (origin.first, origin.last) == (101, 164)


def test_coalescing_merges_what_waits_into_one_step_of_a_windows_lines() -> None:
    of = spec("coalesce", window=16, queue=32)
    rows = [reading(n, *(float(10 * n + k) for k in range(10)), at=10 * n) for n in range(1, 21)]
    state, steps = behind(of, *rows)
    assert len(steps) == 1
    [step] = steps
    assert step.records <= 16 and step.taken == 200 and step.coalesced == 200
    merged = [item.merged for item in step.items if item.merged is not None]
    assert sum(one.n for one in merged) == 200
    assert min(one.least["val"] for one in merged) == 10.0
    assert max(one.most["val"] for one in merged) == 209.0
    assert state.head.counters == Counters(processed=201, coalesced=200, batches=2, process_us=2000)
    [origin] = state.head.origins  # of what was merged, all of it (invariant 8)
    assert (origin.first, origin.last) == (10 * 1, 209)
    assert len(step.received_ms) == 200
    assert all(" merged " in line for line in lines(state)[1:])


def test_what_has_too_little_in_common_waits() -> None:
    rows = [
        message(n, "iot", *({"sid": f"s{n}_{k}", "val": 1.0} for k in range(10)))
        for n in range(1, 31)
    ]
    state, steps = behind(spec("coalesce", window=200), *rows)
    assert max(step.records for step in steps) <= MERGED_LINES_MAX
    assert state.head.written == 301 and state.head.counters.coalesced == 0


def test_texts_keep_their_places_between_what_is_merged() -> None:
    rows = [reading(n, float(n)) for n in range(1, 101)]
    rows[50] = Waiting(51, Append(text="the nurse came"))
    state, _ = behind(spec("coalesce", window=8, queue=10), *rows)
    told = [item.merged.n if item.merged else item.line for item in state.items]
    assert told.count("the nurse came") == 1
    at = told.index("the nurse came")
    assert sum(one for one in told[1:at] if isinstance(one, int)) == 50
    assert sum(one for one in told[at:] if isinstance(one, int)) == 49


def test_what_changes_the_session_is_a_step_of_its_own_in_between() -> None:
    rows = [reading(n, float(n)) for n in range(1, 201)]
    rows[100] = Waiting(101, AddQuery(query=FlashQuery("Falling?", choices=("yes", "no"))))
    for overflow in ("coalesce", "drop_oldest"):
        state, steps = behind(spec(overflow), *rows)  # type: ignore[arg-type]
        assert len(state.head.spec.flash) == 2
        assert state.head.counters.processed == 200
        assert [one.offset for step in steps for one in step.messages] == list(range(1, 201))


def test_a_step_merges_a_bounded_number_of_records() -> None:
    waiting = [reading(n, *(float(k) for k in range(64)), at=64 * n) for n in range(100)]
    taken = take_waiting(waiting, spec("coalesce"), 1)
    assert taken.relief == Relief(coalesces=True)
    assert sum(one.records for one in taken.messages) == COALESCE_RECORDS_MAX


def test_a_candle_within_a_merged_one_is_late() -> None:
    of = spec("coalesce", "ohlcv", window=4, queue=8)
    state = begun(of, candle(0, 0, 10.0))
    state, _ = apply(state, *(candle(n, 60 * n, 10.0 + n) for n in range(1, 41)))
    assert state is not None
    [*_, last] = state.items
    assert last.merged is not None and last.merged.until == 2400.0
    before = lines(state)
    for offset, start in ((41, 2400), (42, 2340), (43, int(last.fields["timestamp"]))):  # type: ignore[index]
        state, _ = apply(state, candle(offset, start, 99.0))
        assert state is not None
    assert lines(state) == before and state.head.counters.late == 3
    state, _ = apply(state, candle(44, 2460, 60.0))
    assert state is not None and state.head.counters.late == 3
    assert state.head.event_time == 2460.0


def test_a_correction_keeps_its_place_before_what_is_merged() -> None:
    of = spec("coalesce", "ohlcv", window=16, queue=8)
    state = begun(of, *(candle(n, 60 * n, 10.0 + n) for n in range(6)))
    rows = [candle(6, 120, 99.0), *(candle(n, 60 * n, 10.0) for n in range(7, 57))]
    state, [step] = apply(state, *rows)
    assert state is not None and step.corrected == 1 and step.rewind == 4
    told = [(item.merged.n if item.merged else 1, item.fields["c"]) for item in state.items]  # type: ignore[index]
    assert told[:6] == [(1, 10.0), (1, 11.0), (1, 99.0), (1, 13.0), (1, 14.0), (1, 15.0)]
    assert sum(n for n, _ in told[6:]) == 50 and len(told) <= 6 + 16
    # Every line says its change against the one before it, as if they had come so.
    fresh = SessionState.restored(state.head, state.items)
    assert fresh.last == state.last
    assert lines(state)[2].startswith("99.00 up 800.0 ")
    assert lines(state)[3].startswith("13.00 down 86.9 ")
    # A sum of several volumes is not held against single ones.
    assert lines(state)[-1].endswith(f"10.00 same 0.0 merged {told[-1][0]}")


def test_what_was_dropped_before_a_question_is_not_taken_again_behind_it() -> None:
    asks = Waiting(101, AddQuery(query=FlashQuery("Falling?", choices=("yes", "no"))))
    first = [reading(n, float(n)) for n in range(1, 101)]
    rows = [*first, asks, *(reading(n, float(n), at=n) for n in range(102, 301))]
    state, steps = behind(spec("drop_oldest"), *rows)
    assert steps[0].dropped == 100 and steps[0].items == [] and not steps[0].moves
    assert steps[0].head.watermarks["t/0"] == (100, 0)
    assert values(state) == [-1.0, *map(float, range(237, 301))]


def test_volume_is_in_the_window_to_the_last_unit() -> None:
    of = spec("coalesce", "ohlcv", window=40, queue=8)
    state = begun(of, candle(0, 0, 10.0))
    rows = [candle(n, 60 * n, 10.0 + n % 7, "AB"[n % 2]) for n in range(1, 401)]
    state, [step] = apply(state, *rows)
    assert state is not None and step.moves
    assert sum(item.fields["v"] for item in state.items if item.fields) == 4010.0
    assert state.head.event_time == 24_000.0


def test_trades_that_become_few_bars_are_not_merged() -> None:
    of = msgspec.structs.replace(spec("coalesce", "ohlcv"), bars=BarSpec(size="1m"))
    rows = [
        message(n, "trade", {"p": float(n), "q": 1.0, "timestamp": float(n)}) for n in range(400)
    ]
    state, _ = apply(begun(of, rows[0]), *rows[1:])
    assert state is not None
    assert [item.fields["v"] for item in state.items if item.fields] == [60.0] * 6
    assert state.head.counters.coalesced == 0


sizes = st.lists(st.integers(1, 30), min_size=1, max_size=30)


@settings(deadline=None)
@given(st.sampled_from(["coalesce", "drop_oldest"]), sizes, st.integers(1, 60), st.data())
def test_however_it_comes_all_is_accounted_for_and_recovery_changes_nothing(
    overflow: Overflow, rows: list[int], queue: int, data: st.DataObject
) -> None:
    of = spec(overflow, window=1000, queue=queue)
    waiting, at = [], 0
    for offset, count in enumerate(rows, start=1):
        waiting.append(reading(offset, *map(float, range(at, at + count)), at=at))
        at += count
    state: SessionState | None = begun(of, reading(0, -1, topic="u"))
    dropped = 0

    def keep(head: Head, step: Step) -> None:
        nonlocal dropped
        dropped += step.dropped
        entry = Entry(0, head, tuple(step.items))
        assert decode_entry(encode_entry(entry)) == entry

    left = waiting
    while left:
        size = data.draw(st.integers(1, len(left)))
        now, left = left[:size], left[size:]
        state, _ = apply(state, *now, settled=keep)
        assert state is not None
        # What a new owner restores goes on in the same way.
        entry = decode_entry(encode_entry(Entry(0, state.head, tuple(state.items))))
        restored = SessionState.restored(entry.head, entry.items)
        assert (restored.items, restored.last) == (state.items, state.last)
        state = restored
    assert state is not None
    head = state.head
    counted = sum(item.merged.n if item.merged else 1 for item in state.items) - 1
    assert counted + dropped == at
    assert head.counters.dropped == dropped and head.counters.processed == at + 1
    assert head.watermarks["t/0"] == (at - 1, 0)
    assert head.records_offset == len(rows)
    if overflow == "coalesce":
        assert dropped == 0
        held = [item for item in list(state.items)[1:] if item.fields]
        assert min(_least(item) for item in held) == 0.0
        assert max(_most(item) for item in held) == at - 1
    else:
        assert head.counters.coalesced == 0
        assert values(state)[-1] == at - 1  # the newest is never what is dropped


def _least(item: Any) -> float:
    return float(item.merged.least["val"] if item.merged else item.fields["val"])


def _most(item: Any) -> float:
    return float(item.merged.most["val"] if item.merged else item.fields["val"])


@pytest.mark.parametrize(
    ("overflow", "queue", "bound", "capacity"),
    [
        ("block", 0, 1000, 1000),
        ("block", 50, 50, 50),
        ("drop_oldest", 0, 1000, 1000),
        ("drop_oldest", 50, 50, 50),
        ("coalesce", 0, 64, 1000),
        ("coalesce", 2000, 2000, 2000),
    ],
)
def test_the_bound_of_a_queue(overflow: Overflow, queue: int, bound: int, capacity: int) -> None:
    of = spec(overflow, queue=queue)
    assert (queue_bound(of, 1000), queue_capacity(of, 1000)) == (bound, capacity)


@pytest.mark.parametrize(
    ("overflow", "waiting", "refused", "costs"),
    [
        ("block", 99, False, 0),
        ("block", 100, True, 0),
        ("coalesce", 100, True, 0),
        ("drop_oldest", 100, False, 0),
        ("drop_oldest", 5000, False, 1),
        ("drop_oldest", 100 + ON_THE_WAY_MAX, True, 1),
    ],
)
def test_a_push_to_a_full_queue(
    overflow: Overflow, waiting: int, refused: bool, costs: int
) -> None:
    view = SessionView(
        session_id="s",
        spec=spec(overflow),
        version=1,
        n_tokens=0,
        context_tokens=100,
        prefix_tokens=0,
        data_count=0,
        queue_size=waiting,
        queue_capacity=100,
        counters=Counters(),
        answers=(),
        evaluated_ms=0,
        created_ms=0,
        last_used_ms=0,
        in_use=False,
    )
    row = {"sid": "a", "val": 1.0}
    if refused:
        with pytest.raises(Overloaded):
            check_push(view, [row], len)
    else:
        check_push(view, [row], len)
    assert displaced(view, 1) == costs
