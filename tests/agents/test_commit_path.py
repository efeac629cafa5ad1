"""Invariant 1 through everything that decides a commit: the transport, its offsets, and the
partitions that settle messages. Whatever happens in whichever order, nothing is committed past
a message that is not done.

Real: BatchConsumer with Faust's commit around it, PartitionOffsets, Partitions. In memory: the
broker's contract (fetch, position, commit of a group), and sessions that take as long as the
test wants.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from aiokafka.structs import TopicPartition
from faust.transport.consumer import Consumer
from faust.types import TP
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashfeed.agents import owned_partition as owned_partition_module
from flashfeed.agents import transport
from flashfeed.agents.owned_partition import Partition
from flashfeed.agents.partitions import Partitions
from flashfeed.agents.session_step import Waiting
from flashfeed.models.errors import EngineError, FlashfeedError
from flashfeed.models.messages import PackedRecord, Records, encode_message

TOPIC = "flashfeed.records"
PLACES = (TP(TOPIC, 0), TP(TOPIC, 1))
MESSAGE = encode_message(
    Records(type="iot", records=(PackedRecord(0, 0, 0, {"sid": "a", "val": 1.0}),), topic="t")
)


class Raw(NamedTuple):
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    timestamp: int = 1
    timestamp_type: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


class Broker:
    """A topic of two partitions, and where its group stands: aiokafka's client as
    BatchConsumer uses it. `holes`: offsets that compaction or a transaction's marker took."""

    def __init__(self) -> None:
        self.log: dict[TP, list[Raw]] = {tp: [] for tp in PLACES}
        self.ends = dict.fromkeys(PLACES, 0)
        self.committed: dict[TP, int] = {}
        self.positions = dict.fromkeys(PLACES, 0)
        self.assigned: set[TP] = set(PLACES)
        self.fetch_max = 1
        self.commits: list[dict[TP, int]] = []
        self._subscription = self
        self.subscription = None  # of what aiokafka knows of ends

    def append(self, tp: TP, session: bytes, hole: int) -> None:
        offset = self.ends[tp] + hole
        value = MESSAGE if session else b"no message"
        self.log[tp].append(Raw(tp.topic, tp.partition, offset, session or None, value))
        self.ends[tp] = offset + 1

    def fetch_context(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _ensure_consumer(self) -> Broker:
        return self

    def assignment(self) -> set[TP]:
        return set(self.assigned)

    async def getmany(self, active: Iterable[TP], timeout: float) -> Mapping[Any, list[Raw]]:
        found = {}
        for tp in sorted(set(active) & self.assigned):
            records = [one for one in self.log[tp] if one.offset >= self.positions[tp]]
            if records := records[: self.fetch_max]:
                found[TopicPartition(*tp)] = records
                self.positions[tp] = records[-1].offset + 1
        return found

    async def position(self, tp: TP) -> int:
        return self.positions[tp]

    def seek(self, tp: TP, offset: int) -> None:
        self.positions[tp] = offset

    async def seek_to_committed(self) -> Mapping[TP, int]:
        for tp in self.assigned:
            self.positions[tp] = self.committed.get(tp, 0)
        return {tp: self.committed.get(tp, -1) for tp in self.assigned}

    async def commit(self, offsets: Mapping[TP, int]) -> bool:
        assert set(offsets) <= self.assigned
        self.commits.append(dict(offsets))
        self.committed.update(offsets)
        return True


class Session:
    """A session's owner that does nothing by itself."""

    def __init__(self, session_id: str, partition: int, parts: Any, _: Any) -> None:
        self.waiting: list[Waiting] = []
        self.partition = partition
        self.gone = self.stopped = False
        self.state = None
        parts.made.append(self)

    def start(self) -> None: ...

    def cancel(self) -> None:
        self.stopped = True

    async def stop(self) -> None:
        assert self.stopped

    def put(self, one: Waiting) -> None:
        if one not in self.waiting:  # as a SessionOwner does
            self.waiting.append(one)


class Recovered(Partitions):
    """Partitions whose changelog is empty."""

    async def _recover(self, partition: Partition, leaving: asyncio.Task[None] | None) -> None:
        if leaving is not None:
            await asyncio.shield(leaving)
        partition.epoch = 1
        await self._open(partition)


class World:
    """One worker, its group's other worker, and the broker."""

    def __init__(self) -> None:
        self.broker = Broker()
        transport.register()
        app = transport.BatchApp(
            "g", broker="flashfeed://127.0.0.1:1", web_enabled=False, autodiscover=False
        )

        async def nothing(*_: Any, **__: Any) -> None: ...

        self.consumer: Any = app.transport.create_consumer(
            callback=nothing, on_partitions_revoked=nothing, on_partitions_assigned=nothing
        )
        self.consumer._thread.thread_loop.close()  # of a thread that never starts
        self.consumer._thread = self.broker
        self.consumer.app.producer = SimpleNamespace(flush=nothing)
        self.done: dict[TP, set[int]] = defaultdict(set)
        self.sessions: list[Session] = []
        self.assignments = 0
        self.handed_out: list[tuple[int, Callable[[], Any]]] = []
        claims: Any = SimpleNamespace(sync=nothing, holds=lambda *_: True)
        steps: Any = SimpleNamespace(
            close=nothing, on_broken=lambda _: None, broken=lambda _: False
        )

        def parts(settled: Any, _: asyncio.Event) -> Any:
            self.settled = settled
            return SimpleNamespace(
                made=self.sessions, metrics=SimpleNamespace(dead_letters=lambda _: None)
            )

        writer: Any = SimpleNamespace(write=self._letters)
        self.partitions = Recovered(
            None,
            "changelog",
            "letters",
            writer,
            claims,
            steps,
            parts,  # type: ignore[arg-type]
        )

    async def _letters(self, writes: list[Any]) -> None:
        for one in writes:
            headers = dict(one.headers)
            tp = TP(TOPIC, int(headers["flashfeed_partition"]))
            self.done[tp].add(int(headers["flashfeed_offset"]))

    async def begin(self) -> None:
        self.consumer._set_active_tps(set(PLACES))
        await self.consumer.perform_seek()
        await self.assign()

    async def assign(self) -> None:
        await self.partitions.assign(tp.partition for tp in self.broker.assigned)
        await self.at_rest()

    async def at_rest(self) -> None:
        """Wait for what goes on behind an assignment."""
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(tasks)

    # -- what may happen ------------------------------------------------------------

    async def produce(self, place: int, which: int) -> None:
        """A message for one of two sessions, or one that is none; sometimes behind a hole."""
        self.broker.append(PLACES[place], (b"", b"x", b"y", b"x")[which % 4], which % 3)

    async def fetch(self, place: int, which: int) -> None:
        """Fetch up to so many of each partition, and hand them over."""
        self.broker.fetch_max = 1 + which % 5
        async for _, message in self.consumer.getmany(0.0):
            acknowledge = lambda one=message: self.consumer.ack(one)  # noqa: E731
            self.handed_out.append((self.assignments, acknowledge))
            await self.partitions.take(message.value, acknowledge)

    async def step(self, place: int, which: int, error: FlashfeedError | None = None) -> None:
        """A session does a step of its first messages: applied, or refused for good."""
        working = [one for one in self.sessions if one.waiting and not one.stopped]
        if not working:
            return
        session = working[which % len(working)]
        taken, session.waiting = session.waiting[: 1 + place], session.waiting[1 + place :]
        for one in taken:
            self.done[TP(TOPIC, session.partition)].add(one.offset)
            self.settled(session.partition, one.offset, error)

    async def fail(self, place: int, which: int) -> None:
        """A step that fails for good: its records are dead letters, its messages done."""
        await self.step(place, which, EngineError("-3"))

    async def late(self, place: int, which: int) -> None:
        """Whatever was handed out under an earlier assignment is acknowledged now."""
        for assignment, acknowledge in self.handed_out:
            if assignment < self.assignments:
                assert acknowledge() is False

    async def break_off(self, place: int, which: int) -> None:
        """A partition's writes break off: it is begun anew with what was not settled."""
        self.partitions._broken(place)
        await self.at_rest()

    async def commit(self, place: int, which: int) -> None:
        await self.consumer.commit()

    async def rebalance(self, place: int, which: int) -> None:
        """All is revoked and some of it comes back. What does not is another worker's, which
        does some of it and commits that, until it comes back too."""
        revoked = set(self.broker.assigned)
        if which % 2:  # the last commit of a revocation
            await self.consumer.commit()
        self.partitions.pause()
        self.assignments += 1
        await self.consumer.on_partitions_revoked(revoked)
        self.broker.assigned = {tp for n, tp in enumerate(PLACES) if n != place or which % 3}
        lost = revoked - self.broker.assigned
        await self.consumer.perform_seek()
        self.consumer._set_active_tps(set(self.broker.assigned))
        await self.assign()
        for tp in lost:
            at = self.broker.committed.get(tp, 0)
            rest = [one.offset for one in self.broker.log[tp] if one.offset >= at]
            if mine := rest[: which % 4]:
                self.done[tp].update(mine)
                self.broker.committed[tp] = mine[-1] + 1

    # -- what must be so --------------------------------------------------------------

    def check(self) -> None:
        """Of what is committed, and of what would be if a commit came now."""
        for partition in self.partitions._owned.values():  # no rebalance leaves any behind
            assert len({batch.epoch for batch, _ in partition.unsettled()}) <= 1
        for tp, log in self.broker.log.items():
            for offset in (self.broker.committed.get(tp), self.consumer._new_offset(tp)):
                before = {one.offset for one in log if one.offset < (offset or 0)}
                assert before <= self.done[tp], f"{tp}: {offset}"


ACTIONS = (
    "produce", "produce", "fetch", "fetch", "step", "fail", "late", "commit", "rebalance",
    "break_off",
)  # fmt: skip
Action = st.tuples(st.sampled_from(ACTIONS), st.integers(0, 1), st.integers(0, 11))
Actions = st.lists(Action, min_size=10, max_size=80)


# `at_rest` waits for every task of the loop: what other tests left in theirs may never end.
own_loop = pytest.mark.asyncio(loop_scope="function")


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(owned_partition_module, "SessionOwner", Session)

    def stock(*_: Any) -> Any:
        raise AssertionError("Faust's own reckoning of offsets ran")

    for name in ("_new_offset", "_add_gap", "_filter_tps_with_pending_acks"):
        monkeypatch.setattr(Consumer, name, stock)
    return monkeypatch


async def live(actions: list[tuple[str, int, int]]) -> World:
    world = World()
    await world.begin()
    for name, place, which in actions:
        await getattr(world, name)(place, which)
        world.check()
    return world


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(Actions)
def test_nothing_is_committed_past_a_message_that_is_not_done(
    in_memory: pytest.MonkeyPatch, actions: list[tuple[str, int, int]]
) -> None:
    async def run() -> None:
        world = await live(actions)
        # And none is held back for ever: when all is done, all of it is committed.
        world.broker.assigned = set(PLACES)
        await world.rebalance(0, 1)
        for _ in range(200):
            await world.fetch(0, 4)
            await world.step(1, 0)
        await world.commit(0, 0)
        world.check()
        for tp, log in world.broker.log.items():
            assert not log or world.broker.committed.get(tp) == log[-1].offset + 1

    asyncio.run(run())


@own_loop
async def test_a_batch_that_is_done_waits_for_the_one_before_it(
    in_memory: pytest.MonkeyPatch,
) -> None:
    world = await live([("produce", 0, 1), ("fetch", 0, 0), ("produce", 0, 2), ("fetch", 0, 0)])
    await world.step(0, 1)  # the second message's session is quicker
    await world.commit(0, 0)
    assert world.broker.committed == {}
    await world.step(0, 0)
    await world.commit(0, 0)
    assert world.broker.committed == {PLACES[0]: world.broker.ends[PLACES[0]]}


@own_loop
async def test_an_acknowledgement_of_an_earlier_assignment_counts_for_nothing(
    in_memory: pytest.MonkeyPatch,
) -> None:
    world = await live([("produce", 0, 1), ("fetch", 0, 0), ("rebalance", 1, 1), ("fetch", 0, 0)])
    (_, earlier), (_, now) = world.handed_out
    assert earlier() is False
    await world.commit(0, 0)
    assert world.broker.committed == {}
    assert now() is True
    await world.commit(0, 0)
    assert world.broker.committed == {PLACES[0]: world.broker.ends[PLACES[0]]}
