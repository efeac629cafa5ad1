"""What is left of deleted sessions: nothing of theirs is done twice, whoever reads it again."""

from __future__ import annotations

from typing import Any

import pytest

from flashfeed.agents.changelog import SlotsRead
from flashfeed.agents.graves import ERASED_MAX, KEEP_S, Graves, grave_erasures
from flashfeed.agents.owned_partition import Partition
from flashfeed.agents.session_plan import failed_step, plan_step
from flashfeed.agents.session_step import Waiting
from flashfeed.agents.transport import Batch
from flashfeed.models.errors import ContextFull, RequestError
from flashfeed.models.messages import Append, Asked, Create, Delete, Message
from flashfeed.models.state import Grave, grave_key

from session_bench import Bench
from session_steps import SPEC, apply, lines, reading, spec_of, templates

CONTROL = "flashfeed.control"


def asked(kind: Any, number: int, **more: Any) -> Message:
    """A message as the control topic's owner writes it: that offset of partition 0."""
    key = f"{CONTROL}/0/{number}"
    message: Message = kind(asked=Asked(CONTROL, 0, number), idempotency_key=key, **more)
    return message


async def test_what_is_read_again_does_not_make_a_deleted_session_anew() -> None:
    bench = Bench(spec_of("exact", 4))
    first = [reading(at, at, at=at) for at in range(5)]
    await bench.apply(*first, Waiting(5, Delete()))
    sent = len(bench.steps.events)
    assert sent and bench.owner.state is None
    await bench.come_back()
    bench.outcomes.clear()
    await bench.apply(*first, Waiting(5, Delete()))
    assert bench.outcomes == dict.fromkeys(range(6))
    assert (len(bench.steps.events), bench.steps.letters) == (sent, [])
    await bench.apply(reading(6, 60, at=6))
    assert bench.owner.state is not None
    assert (bench.owner.state.head.version, bench.owner.state.head.first_offset) == (1, 6)
    await bench.come_back()
    bench.outcomes.clear()
    await bench.apply(*first, Waiting(5, Delete()), reading(6, 60, at=6))
    assert bench.owner.state is not None and bench.owner.state.head.version == 1


async def test_a_session_that_was_asked_for_leaves_no_letters_of_what_it_took() -> None:
    bench = Bench(spec_of("exact", 4))
    bench.spec = None  # type: ignore[assignment]  # no template makes it
    history = [Waiting(0, Create(spec=SPEC)), reading(1, 7, at=1), Waiting(2, Delete())]
    await bench.apply(*history)
    await bench.come_back()
    bench.outcomes.clear()
    await bench.apply(*history[1:])
    assert bench.outcomes == {1: None, 2: None}
    assert bench.steps.letters == []
    await bench.apply(reading(3, 7, at=3))
    assert len(bench.steps.letters) == 1


async def test_a_delete_that_control_writes_again_does_not_end_the_next_life() -> None:
    bench = Bench(spec_of("exact", 4))
    await bench.apply(reading(0, 1, at=0), Waiting(1, asked(Delete, 10)), reading(2, 2, at=2))
    await bench.apply(Waiting(3, asked(Delete, 10)))
    assert bench.owner.state is not None and bench.owner.state.head.version == 1
    await bench.come_back()
    await bench.apply(Waiting(4, asked(Delete, 10)), reading(5, 3, at=5))
    assert bench.owner.state is not None and bench.owner.state.head.version == 2
    await bench.apply(Waiting(6, asked(Delete, 11)))
    assert bench.owner.state is None


async def test_a_life_that_control_writes_again_is_not_lived_again() -> None:
    bench = Bench(spec_of("exact", 4))
    life = [asked(Create, 1, spec=SPEC), asked(Append, 2, text="x"), asked(Delete, 3)]
    await bench.apply(*(Waiting(at, one) for at, one in enumerate(life)))
    sent = len(bench.steps.events)
    await bench.come_back()
    await bench.apply(*(Waiting(at, one) for at, one in enumerate(life, start=3)))
    assert bench.owner.state is None
    assert len(bench.steps.events) == sent


def test_what_the_engine_refused_is_not_done_when_control_writes_it_again() -> None:
    state, _ = apply(None, Waiting(0, Create(spec=SPEC)))
    append = asked(Append, 4, text="too long")
    step = plan_step("s", state, [Waiting(1, append)], templates)
    failed = failed_step(step, state, ContextFull("full"))
    assert failed.head.asked == {f"{CONTROL}/0": 4} and not failed.head.failed
    assert isinstance(failed.outcomes[1], ContextFull)


def test_more_than_is_remembered_by_key_is_written_again_and_done_once() -> None:
    spec = spec_of("grow", 4)
    state, _ = apply(None, Waiting(0, Create(spec=spec)))
    appends = [asked(Append, number, text=f"line {number}") for number in range(300)]
    state, _ = apply(state, *(Waiting(at, one) for at, one in enumerate(appends, start=1)))
    held = lines(state)
    assert len(held) == 300
    state, steps = apply(state, *(Waiting(at, one) for at, one in enumerate(appends, start=301)))
    assert lines(state) == held
    outcomes = {at: error for step in steps for at, error in step.outcomes.items()}
    told = [at for at, error in outcomes.items() if error is not None]
    assert told == list(range(301, 301 + 44))  # those that no key says are done
    assert all(isinstance(outcomes[at], RequestError) for at in told)
    with pytest.raises(RequestError, match=r"flashfeed.control\[0\] offset 0.*took a later one"):
        raise outcomes[301] or AssertionError


def test_a_grave_is_erased_when_all_before_it_was_settled_long_ago() -> None:
    now = [0.0]
    graves = Graves([Grave("b", 20), Grave("a", 10)], lambda: now[0])
    graves.settled(11)
    now[0] = KEEP_S
    graves.settled(20)
    assert graves.erased() == ["a"]
    assert graves.of("a") is None and graves.of("b") == Grave("b", 20)
    graves.settled(21)
    now[0] = 2 * KEEP_S - 1
    assert graves.erased() == []
    graves.bury(Grave("b", 30))  # it lived and ended once more
    now[0] = 2 * KEEP_S
    assert graves.erased() == []
    assert graves.of("b") == Grave("b", 30)
    graves.settled(31)
    now[0] = 3 * KEEP_S
    assert graves.erased() == ["b"]


def test_graves_are_erased_some_at_a_time() -> None:
    now = [0.0]
    graves = Graves([Grave(f"s{at}", at) for at in range(ERASED_MAX + 3)], lambda: now[0])
    graves.settled(1000)
    now[0] = KEEP_S
    assert [len(graves.erased()) for _ in range(3)] == [ERASED_MAX, 3, 0]


def test_the_changelog_has_a_grave_until_it_is_erased() -> None:
    read = SlotsRead()
    read.take(grave_key("a/b"), b'{"session_id":"a/b","records_offset":7,"asked":{"c/0":3}}')
    assert read.graves == {"a/b": Grave("a/b", 7, {"c/0": 3})}
    assert read.states() == []
    read.take(grave_key("x"), b"{")
    assert [one.session for one in read.bad.values()] == [""]
    for write in grave_erasures("changelog", 0, ["a/b", "x"]):
        assert write.value is None
        read.take(write.key, write.value)
    assert (read.graves, read.bad) == ({}, {})


def test_a_partition_says_how_far_everything_is_settled() -> None:
    now = [0.0]
    partition = Partition(0, graves=Graves([Grave("gone", 4)], lambda: now[0]))
    done: list[int] = []
    for first in (0, 4, 8):
        records: Any = [type("Raw", (), {"offset": at}) for at in range(first, first + 4)]
        batch = Batch("flashfeed.records", 0, 0, records)
        owner: Any = type("Owner", (), {"gone": False, "put": lambda _, one: None})()
        partition.sessions["s"] = owner
        routed = [("s", reading(at, at)) for at in range(first, first + 4)]
        parts: Any = None
        partition.hand_out(batch, lambda first=first: done.append(first), routed, parts)
    for offset in range(4, 12):
        partition.settled(offset)
    now[0] = KEEP_S
    assert done == [4, 8] and partition.graves.erased() == []
    for offset in range(4):
        partition.settled(offset)
    now[0] = 2 * KEEP_S
    assert partition.graves.erased() == ["gone"]
