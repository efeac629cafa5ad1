"""An owner and its engine agree on the window, whatever has no room (invariants 5 and 6).

What the changelog gets is recovered after every step."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flashfeed.agents import session_owner
from flashfeed.agents.session_plan import plan_step
from flashfeed.agents.session_step import Step, Waiting
from flashfeed.models.errors import (
    ContextFull,
    EngineError,
    EngineFull,
    FlashfeedError,
    ModelUnavailable,
    Overloaded,
    RequestError,
)
from flashfeed.models.messages import AddQuery, Append, Create, Delete, MarkPrefix, Message
from flashfeed.models.session import FlashQuery

from session_bench import Bench
from session_steps import reading, spec_of, values


def readings(count: int) -> list[Waiting]:
    """So many messages of one reading."""
    return [reading(n, 100 + n, at=n) for n in range(count)]


@pytest.mark.parametrize("mode", ["exact", "shift", "grow"])
async def test_engine_and_changelog_hold_the_same_window(mode: str) -> None:
    bench = Bench(spec_of(mode, 3))
    await bench.apply(*readings(20), Waiting(20, MarkPrefix()), Waiting(21, Append(text="x")))
    held = bench.engine.held["s"]
    assert bench.engine.opens == 1
    assert held.lines == ["x"]
    await bench.come_back()
    assert bench.engine.held["s"] == held
    await bench.apply(reading(22, 5, at=22), Waiting(23, Delete()))
    assert bench.halvings() == 0


async def test_a_window_without_room_is_halved_until_it_fits() -> None:
    bench = Bench(spec_of("exact", 64), room=90)  # about 12 lines of 7
    await bench.apply(*readings(60))
    assert not any(bench.outcomes.values())
    assert bench.owner.state is not None
    assert bench.owner.state.head.failed == ""
    assert bench.window == 4  # of 8 items it would be 15 at its longest
    assert bench.halvings() == 2
    assert values(bench.owner.state)[-1] == 159
    assert bench.owner.state.head.version == 60
    assert not bench.steps.letters
    await bench.come_back()
    assert bench.window == 4
    await bench.apply(reading(60, 7, at=60))


async def test_records_that_come_all_at_once_may_halve_a_session_not_there_yet() -> None:
    bench = Bench(spec_of("exact", 64), room=150)
    await bench.apply(reading(0, *range(100, 164)))
    assert bench.owner.state is not None
    assert bench.outcomes == {0: None}
    assert bench.window < 64
    assert values(bench.owner.state)[-1] == 163


async def test_what_does_not_fit_alone_fails_and_leaves_the_window_as_it_was() -> None:
    bench = Bench(spec_of("exact", 8), room=100)
    await bench.apply(*readings(5))
    before = bench.engine.held["s"]
    await bench.apply(Waiting(5, Append(text="x" * 200)))
    assert isinstance(bench.outcomes[5], ContextFull)
    assert bench.engine.held["s"] == before
    assert bench.window == 8
    assert bench.halvings() == 0
    await bench.apply(reading(6, 7, at=6))  # the session goes on
    assert bench.outcomes[6] is None
    await bench.come_back(room=3)
    assert bench.owner.state is not None
    assert "cannot be rebuilt" in bench.owner.state.head.failed


async def test_a_question_too_long_does_not_halve_the_window() -> None:
    bench = Bench(spec_of("exact", 8), room=100)
    await bench.apply(*readings(6))
    await bench.apply(Waiting(6, AddQuery(query=FlashQuery("why " * 50))))
    assert isinstance(bench.outcomes[6], ContextFull)
    assert bench.window == 8


async def test_a_worker_with_less_room_rebuilds_a_smaller_window() -> None:
    bench = Bench(spec_of("exact", 8))
    await bench.apply(*readings(15))
    published = {(one.topic, one.key): one.value for one in bench.steps.events}
    await bench.come_back(room=70)
    assert bench.window == 4
    assert bench.halvings() == 1
    again = {(one.topic, one.key): one.value for one in bench.steps.events}
    assert again == published  # the last version's events are what they were
    await bench.apply(*[reading(n, 100 + n, at=n) for n in range(15, 30)])
    assert bench.owner.state is not None
    assert values(bench.owner.state)[-1] == 129


async def test_an_engine_error_is_tried_again() -> None:
    bench = Bench(spec_of("exact", 4))
    await bench.apply(*readings(3))
    bench.engine.errors.extend([EngineError("-3"), EngineError("-3")])
    await bench.apply(reading(3, 9, at=3))
    assert bench.outcomes[3] is None
    bench.engine.errors.extend([EngineError("-3")] * 3)
    await bench.apply(reading(4, 9, at=4))
    assert bench.outcomes[4] is not None
    assert len(bench.steps.letters) == 1


BUSY = (Overloaded("all seats"), ModelUnavailable("its host is away"))


@pytest.mark.parametrize("error", BUSY, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("there", [True, False])
async def test_what_passes_is_waited_for_without_a_letter(
    error: FlashfeedError, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flashfeed.agents.session_engine.BUSY_WAIT_S", 0.001)
    bench = Bench(spec_of("exact", 4))
    if there:
        await bench.apply(*readings(3))
    bench.engine.errors.extend([error] * 20)
    await bench.apply(reading(3, 9, at=3))
    assert bench.outcomes[3] is None
    assert bench.steps.letters == []
    assert bench.owner.state is not None
    assert values(bench.owner.state)[-1] == 9


async def test_a_model_is_waited_for_so_long_alone_where_a_record_makes_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flashfeed.agents.session_engine.BUSY_WAIT_S", 0.001)
    monkeypatch.setattr("flashfeed.agents.session_engine.MODEL_WAIT_MAX_S", 0.2)
    bench = Bench(spec_of("exact", 4))
    away = ModelUnavailable("its host is away")
    bench.engine.errors.extend([away] * 1000)
    await bench.apply(reading(3, 9, at=3))
    assert bench.outcomes[3] is away
    assert len(bench.steps.letters) == 1
    assert len(bench.engine.errors) < 999  # it was tried more than once
    assert bench.owner.state is None and not bench.engine.held


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Overloaded("all seats"), Create(spec=spec_of("exact", 4))),
        (EngineFull("64 sessions"), reading(0, 9).message),
    ],
)
async def test_who_asks_is_told_at_once_and_a_full_engine_is_not_waited_for(
    error: FlashfeedError, message: Message
) -> None:
    bench = Bench(spec_of("exact", 4))
    bench.engine.open_errors.append(error)
    await bench.apply(Waiting(0, message))
    assert bench.outcomes[0] is error


async def test_a_full_grow_session_fails_as_ever() -> None:
    bench = Bench(spec_of("grow", 4), room=60)
    await bench.apply(Waiting(0, Create(spec=bench.spec)))
    await bench.apply(*[reading(n, 100 + n, at=n) for n in range(1, 12)])
    assert bench.owner.state is not None
    assert bench.owner.state.head.failed
    assert bench.halvings() == 0
    assert bench.steps.letters


async def test_an_entry_that_kafka_does_not_take_fails_its_step_and_not_the_worker() -> None:
    """Read again after a restart it would stop every worker that comes to own it."""
    bench = Bench(spec_of("exact", 4), room=1 << 20)
    await bench.apply(*readings(3))
    bench.steps.bytes_max = 8_000
    await bench.apply(Waiting(3, Append(text="x" * 9_000)))
    assert isinstance(bench.outcomes[3], RequestError)
    await bench.apply(reading(4, 7, at=4))  # who asked too much had the error: it goes on
    assert bench.outcomes[4] is None
    await bench.apply(reading(5, 8, at=5, key="k" * 9_000))
    assert isinstance(bench.outcomes[5], RequestError)
    assert bench.owner.state is not None and bench.owner.state.head.failed
    assert len(bench.steps.letters) == 1
    assert values(bench.owner.state) == [100, 101, 102, 7]


@pytest.mark.parametrize("begins", [False, True])
async def test_a_message_that_no_step_can_be_planned_of_stops_its_session_alone(
    begins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours: read again after a restart it would stop the worker again."""

    def plan(*given: Any, **more: Any) -> Step:
        if any(one.offset == 3 for one in given[2]):
            raise OverflowError("cannot convert float infinity to integer")
        return plan_step(*given, **more)

    monkeypatch.setattr("flashfeed.agents.session_owner.plan_step", plan)
    bench = Bench(spec_of("exact", 4))
    await bench.apply(*(readings(3) if not begins else ()))
    await bench.apply(reading(3, 9, at=3))
    error = bench.outcomes[3]
    assert error is not None and error.reason == "internal" and "OverflowError" in str(error)
    assert len(bench.steps.letters) == 1
    if begins:
        assert bench.owner.state is None and bench.owner.gone
    else:
        assert bench.owner.state is not None and bench.owner.state.head.failed
        assert values(bench.owner.state) == [100, 101, 102]


async def test_a_busy_engine_does_not_keep_a_session_that_ends() -> None:
    bench = Bench(spec_of("exact", 4))
    await bench.apply(*readings(3))
    bench.engine.close_errors.append(Overloaded("jobs"))
    await bench.apply(Waiting(3, Delete()))
    assert bench.outcomes[3] is None and not bench.engine.held


@pytest.mark.parametrize("error", [EngineFull, Overloaded, ModelUnavailable])
async def test_a_session_that_cannot_be_opened_yet_waits_and_loses_nothing(
    error: type[FlashfeedError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_owner, "OPEN_AGAIN_S", 0.01)
    bench = Bench(spec_of("exact", 3))
    await bench.apply(*readings(3))
    bench.engine.open_errors += [error("not now")] * 3
    await bench.come_back()  # another worker ended, and its sessions came here
    assert bench.engine.held == {} and bench.owner.state is not None
    await bench.apply(reading(3, 7, at=3))
    assert bench.owner.state.head.failed == ""
    assert (values(bench.owner.state)[-1], bench.owner.state.head.version) == (7, 4)
    assert not bench.steps.letters and not bench.engine.open_errors


async def test_a_session_that_can_never_be_opened_can_be_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_owner, "OPEN_AGAIN_S", 0.01)
    bench = Bench(spec_of("exact", 3))
    await bench.apply(*readings(3))
    bench.engine.open_errors += [ModelUnavailable("gone for good")] * 1000
    await bench.come_back()
    await bench.apply(Waiting(3, Delete()))
    assert bench.outcomes[3] is None and bench.owner.state is None


async def test_an_end_for_idleness_does_not_cost_the_records_that_wait_for_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_owner, "OPEN_AGAIN_S", 0.01)
    bench = Bench(spec_of("exact", 3))
    await bench.apply(*readings(3))
    bench.engine.open_errors += [EngineFull("not now")] * 3
    await bench.come_back()
    bench.owner.put(reading(3, 7, at=3))
    await bench.apply(Waiting(4, Delete(idle_since=2)))
    assert bench.owner.state is not None and bench.owner.state.head.failed == ""
    assert values(bench.owner.state)[-1] == 7
    assert not bench.steps.letters


async def test_a_session_at_rest_has_no_task_and_goes_on_when_something_comes() -> None:
    def tasks() -> list[asyncio.Task[Any]]:
        return [one for one in asyncio.all_tasks() if one.get_name() == "session s"]

    bench = Bench(spec_of("exact", 3))
    bench.owner.start()
    assert not tasks()
    for n in range(3):
        bench.owner.put(reading(n, 100 + n, at=n))
        assert len(tasks()) == 1
        await bench.apply(reading(10 + n, 200 + n, at=10 + n))
        async with asyncio.timeout(5):
            while tasks():
                await asyncio.sleep(0)
        assert not bench.owner.busy
    assert values(bench.owner.state)[-1] == 202
    await bench.owner.stop()
    bench.owner.put(reading(20, 1, at=20))
    assert not tasks()


async def test_a_step_under_way_is_finished_before_the_hand_over() -> None:
    bench = Bench(spec_of("exact", 4))
    await bench.apply(*readings(2))
    bench.engine.gate = asyncio.Event()
    bench.owner.put(reading(2, 7, at=2))
    await asyncio.sleep(0)
    bench.may_step.clear()  # as a rebalance does
    resting = asyncio.create_task(bench.owner.rest(30))
    bench.owner.put(reading(3, 8, at=3))
    while not bench.owner.busy:
        await asyncio.sleep(0)
    bench.engine.gate.set()
    await resting
    await bench.owner.stop()
    [state] = bench.steps.log.states()
    assert values(state) == [100, 101, 7]  # and the next one did not begin
    assert bench.engine.saved["s"] == [item.line for item in state.items]


async def test_a_step_that_takes_too_long_is_abandoned_and_done_once_by_the_next_owner() -> None:
    bench = Bench(spec_of("exact", 4))
    await bench.apply(*readings(2))
    bench.engine.gate = asyncio.Event()
    bench.owner.put(reading(2, 7, at=2))
    while not bench.owner.busy:
        await asyncio.sleep(0)
    await bench.owner.rest(0.01)
    assert bench.owner.busy
    await bench.owner.stop()
    [state] = bench.steps.log.states()
    assert values(state) == [100, 101]
    assert not bench.engine.saved  # an older snapshot stays: this one nobody could use
    bench.engine.gate = None
    await bench.come_back()
    await bench.apply(reading(2, 7, at=2))
    assert bench.owner.state is not None
    assert values(bench.owner.state) == [100, 101, 7]
    assert not bench.fatal


async def test_what_a_rebalance_has_read_again_waits_once_and_is_settled_once() -> None:
    bench = Bench(spec_of("exact", 64))
    await bench.apply(*readings(2))
    bench.engine.gate = asyncio.Event()
    waiting = [reading(n, 100 + n, at=n) for n in range(2, 12)]
    for one in waiting:
        bench.owner.put(one)
    while not bench.owner.busy:
        await asyncio.sleep(0)
    for _ in range(5):
        for one in waiting:
            bench.owner.put(one)
    assert bench.owner.queued == 10
    bench.engine.gate.set()
    await bench.apply(reading(12, 7, at=12))
    assert bench.owner.state is not None
    counters = bench.owner.state.head.counters
    assert (counters.processed, counters.duplicates, bench.owner.queued) == (13, 0, 0)
    bench.outcomes.clear()
    await bench.apply(*waiting)  # applied long ago: settled again, for who reads it now
    assert bench.outcomes == dict.fromkeys(range(2, 12))
    assert bench.owner.state.head.counters.processed == 13
