"""Partitions that stand still: which, told apart by why; and a client that stopped fetching
one of its partitions, healed without a record lost or read twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from faust.types import TP
from prometheus_client import CollectorRegistry

from flashfeed.agents.stall_watch import REBALANCE, StallWatch
from flashfeed.agents.stalls import Seen, StallDetector
from flashfeed.agents.transport import Batch
from flashfeed.models.config import KafkaConfig

from batch_app import RECORDS, committed, fill, make_app, records_of, until

MORE = 20


def looks(*shown: Seen | None, after_s: float = 10.0) -> list[tuple[int, int]]:
    """How many silent and held ones there are after each look, five seconds apart."""
    detector: StallDetector[str] = StallDetector(after_s)
    counts = []
    for step, one in enumerate(shown):
        detector.look(5.0 * step, {"p": one} if one is not None else {})
        counts.append((len(detector.silent), len(detector.held)))
    return counts


NOTHING, SILENT, HELD = (0, 0), (1, 0), (0, 1)
STUCK, READ, BUSY = Seen(5, 9, None), Seen(9, 9, None), Seen(9, 9, 5)


@pytest.mark.parametrize(
    ("shown", "found"),
    [
        ([READ] * 4, [NOTHING] * 4),
        ([STUCK] * 4, [NOTHING, NOTHING, SILENT, SILENT]),
        ([STUCK, STUCK, STUCK, Seen(6, 9, None)], [NOTHING, NOTHING, SILENT, NOTHING]),
        ([STUCK, Seen(6, 9, None), Seen(7, 20, None), READ], [NOTHING] * 4),
        ([BUSY] * 4, [NOTHING, NOTHING, HELD, HELD]),
        ([BUSY, BUSY, Seen(12, 12, 5), Seen(12, 12, 9)], [NOTHING, NOTHING, HELD, NOTHING]),
        # It has been done, and since then nothing comes.
        ([BUSY, STUCK, STUCK, STUCK], [NOTHING, NOTHING, NOTHING, SILENT]),
        # The end grows, but nothing comes of it.
        ([READ, Seen(9, 10, None), Seen(9, 20, None), Seen(9, 30, None)],
         [NOTHING, NOTHING, NOTHING, SILENT]),
        ([STUCK, STUCK, None, STUCK], [NOTHING] * 4),  # another worker's meanwhile
        ([STUCK, STUCK, STUCK, None], [NOTHING, NOTHING, SILENT, NOTHING]),
        ([Seen(None, 9, None)] * 3, [NOTHING, NOTHING, SILENT]),
        ([Seen(None, 0, None)] * 3, [NOTHING] * 3),
    ],
)  # fmt: skip
def test_what_stands_still_is_told_apart(
    shown: list[Seen | None], found: list[tuple[int, int]]
) -> None:
    assert looks(*shown) == found


def test_a_heal_that_did_not_help_is_asked_for_again_and_what_is_held_is_said_once() -> None:
    detector: StallDetector[str] = StallDetector(10.0)
    said = [detector.look(5.0 * n, {"s": STUCK, "h": BUSY}) for n in range(6)]
    assert [silent for silent, _ in said] == [[], [], ["s"], [], ["s"], []]
    assert [held for _, held in said] == [[], [], ["h"], [], [], []]


def paused_by_the_client(consumer: Any, tp: TP) -> None:
    consumer._thread._ensure_consumer().pause(TopicPartition(*tp))


def left_out_of_fetches(consumer: Any, tp: TP) -> None:
    consumer._active_partitions.discard(tp)


async def send(broker: str, topic: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    await producer.start()
    for place in range(MORE):
        for partition in (0, 1):
            await producer.send_and_wait(topic, b"%d" % place, partition=partition)
    await producer.stop()


def series(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return registry.get_sample_value(name, labels) or 0.0


@pytest.mark.broker
@pytest.mark.parametrize("stop", [paused_by_the_client, left_out_of_fetches])
async def test_a_partition_that_silently_stopped_is_healed(
    broker: str, stop: Callable[[Any, TP], None]
) -> None:
    topic = group = f"silent-{time.time_ns()}"
    await fill(broker, topic)
    app, got, registry = make_app(broker, group), list[Batch](), CollectorRegistry()

    @app.agent(app.topic(topic))  # type: ignore[untyped-decorator, unused-ignore]
    async def read(batches: Any) -> None:
        async for event in batches.noack().events():
            got.append(event.value)
            event.ack()

    await app.start()
    watch = StallWatch(app.consumer, KafkaConfig(brokers=broker, stalled_s=1.0), registry)
    task = asyncio.create_task(watch.run())
    try:
        await until(lambda: all(len(records_of(got, n)) == RECORDS for n in (0, 1)))
        stop(app.consumer, TP(topic, 0))
        await send(broker, topic)
        await until(lambda: watch.stalled() == [f"{topic}[0]"])
        await until(lambda: len(records_of(got, 0)) == RECORDS + MORE)
        await until(lambda: watch.stalled() == [])
        await asyncio.sleep(0.5)  # a commit interval
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await app.stop()
    for partition in (0, 1):
        assert records_of(got, partition) == list(range(RECORDS + MORE))
    assert await committed(broker, group, topic) == {0: RECORDS + MORE, 1: RECORDS + MORE}
    assert series(registry, "flashfeed_silent_partitions_total", topic=topic) >= 1


@pytest.mark.broker
async def test_what_is_held_back_is_said_and_left_alone(broker: str) -> None:
    topic = group = f"held-{time.time_ns()}"
    await fill(broker, topic)
    app, got, registry = make_app(broker, group), list[Batch](), CollectorRegistry()
    waiting: list[Any] = []

    @app.agent(app.topic(topic))  # type: ignore[untyped-decorator, unused-ignore]
    async def read(batches: Any) -> None:
        async for event in batches.noack().events():
            got.append(event.value)
            if event.value.partition == 1:
                waiting.append(event)
            else:
                event.ack()

    def still(why: str) -> float:
        return series(registry, "flashfeed_still_partitions", why=why)

    await app.start()
    watch = StallWatch(app.consumer, KafkaConfig(brokers=broker, stalled_s=1.0), registry)
    task = asyncio.create_task(watch.run())
    try:
        await until(lambda: still("held") == 1)
        assert watch.stalled() == []
        assert series(registry, "flashfeed_silent_partitions_total", topic=topic) == 0
        for event in waiting:
            event.ack()
        await until(lambda: still("held") == 0)

        app.consumer.stop_flow()  # as a rebalance does
        await until(lambda: watch.stalled() == [REBALANCE])
        app.consumer.resume_flow()
        await until(lambda: watch.stalled() == [])
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await app.stop()
    assert records_of(got, 0) == list(range(RECORDS))


@pytest.mark.broker
async def test_a_look_that_fails_is_not_the_last(
    broker: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    topic = group = f"look-{time.time_ns()}"
    await fill(broker, topic)
    app = make_app(broker, group)

    @app.agent(app.topic(topic))  # type: ignore[untyped-decorator, unused-ignore]
    async def read(batches: Any) -> None:
        async for event in batches.noack().events():
            event.ack()

    def fails(tp: TP) -> int:
        raise IndexError(f"no place for {tp}")

    await app.start()
    watch = StallWatch(
        app.consumer, KafkaConfig(brokers=broker, stalled_s=1.0), CollectorRegistry()
    )
    task = asyncio.create_task(watch.run())
    try:
        with monkeypatch.context() as patched:
            patched.setattr(app.consumer, "undone", fails)
            await until(lambda: "no place for" in caplog.text or task.done())
        app.consumer.stop_flow()
        await until(lambda: watch.stalled() == [REBALANCE])
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await app.stop()
