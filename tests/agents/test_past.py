"""Stretches of topics, read once: also where the broker says too low an end of them."""

from __future__ import annotations

import time

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from flashfeed.agents.past import Stretch
from flashfeed.agents.past_feed import in_order
from flashfeed.models.config import KafkaConfig

from batch_app import RECORDS, fill

MORE = 3


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
        records = in_order(KafkaConfig(brokers=broker), said, to_now=to_now)
        return sorted([(one.partition, one.offset) async for one in records])

    assert await read(to_now=False) == [(n, offset) for n in (0, 1) for offset in range(4)]
    # What was written after the reading began is not of this past.
    assert await read(to_now=True) == [
        *((0, offset) for offset in range(RECORDS + MORE)),
        *((1, offset) for offset in range(RECORDS)),
    ]
