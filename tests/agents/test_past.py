"""Stretches of topics, read once: also where the broker says too low an end of them."""

from __future__ import annotations

import time

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from flashfeed.agents import past
from flashfeed.agents.past import Stretch
from flashfeed.agents.past_feed import in_order
from flashfeed.cli.embedded_broker import free_port, start_broker, stop_broker
from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import Unavailable

from batch_app import RECORDS, fill

MORE = 3


@pytest.mark.broker
async def test_brokers_that_fall_silent_are_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """aiokafka's own stop is a cancellation then, which nobody asked for."""
    monkeypatch.setattr(past, "SILENCE_MAX_S", 2.0)
    port = free_port()
    process = start_broker(port)
    try:
        await fill(f"127.0.0.1:{port}", "t", records=3)
        with pytest.raises(Unavailable, match="gave nothing"):
            async with past.Past(KafkaConfig(brokers=f"127.0.0.1:{port}")) as reader:
                place = TopicPartition("t", 0)
                async for _ in reader.read({place: Stretch(0, 5)}):
                    stop_broker(process)
    finally:
        stop_broker(process)


async def send_more(broker: str, topic: str, partition: int, at_ms: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    await producer.start()
    for number in range(MORE):
        await producer.send_and_wait(
            topic, b"more %d" % number, partition=partition, timestamp_ms=at_ms
        )
    await producer.stop()


@pytest.mark.broker
async def test_a_history_to_now_holds_what_lies_behind_the_ends_that_were_said(
    broker: str,
) -> None:
    topic = f"past-{time.time_ns()}"
    await fill(broker, topic)
    now_ms = int(time.time() * 1000)
    await send_more(broker, topic, 0, now_ms - 1)
    await send_more(broker, topic, 1, now_ms + 3_600_000)
    said = {TopicPartition(topic, number): Stretch(0, 4) for number in (0, 1)}

    async def read(*, to_now: bool) -> list[tuple[int, int]]:
        records = in_order(KafkaConfig(brokers=broker), said, said if to_now else ())
        return sorted([(one.partition, one.offset) async for one in records])

    assert await read(to_now=False) == [(n, offset) for n in (0, 1) for offset in range(4)]
    # What was written after the reading began is not of this past.
    assert await read(to_now=True) == [
        *((0, offset) for offset in range(RECORDS + MORE)),
        *((1, offset) for offset in range(RECORDS)),
    ]
