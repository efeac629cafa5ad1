"""Records that need memory, through whole steps: versions, origins, counts, recovery."""

from __future__ import annotations

from flashfeed.agents.session_step import SessionState, Step, Waiting
from flashfeed.models.assembly import BarSpec
from flashfeed.models.messages import PackedRecord, Records
from flashfeed.models.records import RecordType
from flashfeed.models.session import FlashQuery, SessionSpec
from flashfeed.models.state import Entry, Head, decode_entry, encode_entry

from session_steps import apply, lines

FLASH = (FlashQuery("Up?", choices=("yes", "no")),)
BARS = SessionSpec(type="ohlcv", flash=FLASH, bars=BarSpec(size="1m"))
VITALS = SessionSpec(type="vitals", flash=FLASH, merge="10m")
SPECS = {"bars": BARS, "vitals": VITALS, "plain": SessionSpec(type="ohlcv", flash=FLASH)}


def message(
    kind: RecordType,
    template: str,
    offset: int,
    *records: dict[str, object],
    may_change: bool = False,
) -> Waiting:
    packed = tuple(PackedRecord(offset, place, 0, one) for place, one in enumerate(records))
    return Waiting(
        offset,
        Records(type=kind, records=packed, topic="t", template=template, may_change=may_change),
    )


def trades(offset: int, *times: float) -> Waiting:
    return message(
        "trade", "bars", offset, *({"p": 10.0 + t, "q": 1.0, "timestamp": float(t)} for t in times)
    )


def test_a_bar_is_one_item_and_its_version_names_every_trade_in_it() -> None:
    state, steps = apply(None, trades(0, 0, 10), find=SPECS.get)
    assert state is not None and not state.items and state.head.version == 0
    state, more = apply(state, trades(1, 20), find=SPECS.get)
    state, more = apply(state, trades(2, 60), find=SPECS.get)
    assert state is not None
    [item] = state.items
    assert item.fields == {"o": 10.0, "h": 30.0, "l": 10.0, "c": 30.0, "v": 3.0, "timestamp": 0.0}
    assert state.head.version == 1
    [origin] = state.head.origins
    # The trade at 60 closed the bar, so it is among its causes.
    assert (origin.first, origin.last) == (0, 2)
    assert state.head.counters.processed == 4
    assert state.head.assembly.origins == ()
    assert len(steps) == 1 and not steps[0].moves and more[0].moves


def test_recovery_between_two_trades_of_a_bar_changes_nothing() -> None:
    messages = [trades(n, 13.0 * n, 13.0 * n + 5) for n in range(20)]
    whole, _ = apply(None, *messages, find=SPECS.get)
    saved: SessionState | None = None

    def keep(head: Head, step: Step) -> None:
        assert decode_entry(encode_entry(Entry(0, head, tuple(step.items)))).head == head

    for one in messages:
        saved, _ = apply(saved, one, settled=keep, find=SPECS.get)
        assert saved is not None
        head = decode_entry(encode_entry(Entry(0, saved.head))).head
        saved = SessionState.restored(head, saved.items)
    assert lines(saved) == lines(whole)


def test_a_trade_that_comes_too_late_is_counted() -> None:
    state, _ = apply(None, trades(0, 0, 70, 130), trades(1, 3), find=SPECS.get)
    assert state is not None
    assert state.head.counters.late == 1
    assert state.head.counters.processed == 4
    assert len(state.items) == 2


def test_vitals_of_several_messages_are_one_picture() -> None:
    first = message("vitals", "vitals", 0, {"hr": 72.0, "timestamp": 0.0})
    second = message("vitals", "vitals", 1, {"spo2": 97.0, "timestamp": 60.0})
    state, _ = apply(None, first, second, find=SPECS.get)
    assert state is not None
    assert state.items[-1].fields == {"hr": 72.0, "spo2": 97.0, "timestamp": 60.0}


def test_a_candle_that_may_change_waits_for_the_next() -> None:
    def candle(offset: int, start: float, close: float) -> Waiting:
        fields = {"o": 1.0, "h": 9.0, "l": 1.0, "c": close, "v": 1.0, "timestamp": start}
        return message("ohlcv", "plain", offset, fields, may_change=True)

    state, _ = apply(None, candle(0, 0, 2), candle(1, 0, 3), candle(2, 60, 4), find=SPECS.get)
    assert state is not None
    assert [item.fields["c"] for item in state.items if item.fields] == [3.0]


def test_trades_for_a_session_without_bars_are_dead_letters() -> None:
    wrong = message("trade", "plain", 0, {"p": 1.0, "q": 1.0})
    _, [step] = apply(None, wrong, find=SPECS.get)
    [refused] = step.refused
    assert "template `bars`" in refused.detail


def test_bars_of_so_many_trades_are_all_kept_where_several_begin_at_one_moment() -> None:
    """An exchange fills an order against many at once: one time, and several bars."""
    ticks = SessionSpec(type="ohlcv", flash=FLASH, bars=BarSpec("tick", 2))
    prices = [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]
    burst = [{"p": price, "q": 1.0, "timestamp": 60.0} for price in prices]
    after = {"p": 9.0, "q": 1.0, "timestamp": 61.0}
    state, _ = apply(None, message("trade", "ticks", 0, *burst, after), find={"ticks": ticks}.get)
    assert state is not None
    assert [(item.fields["o"], item.fields["c"]) for item in state.items if item.fields] == [
        (10.0, 11.0),
        (12.0, 13.0),
        (14.0, 15.0),
    ]
    assert state.head.counters.corrected == state.head.counters.duplicates == 0
