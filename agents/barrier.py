"""Reading a topic up to now: a message of our own is written, and read until it comes back.

The broker's own answer to where a partition ends is not to be trusted (DESIGN.md): on
the embedded broker it is too low after batches, elsewhere it counts transactions' marks.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import Unavailable

from .connection import client_settings, stop_consumer
from .kafka_writer import KafkaWriter, Write

BARRIER = b"\x00barrier/"
SILENCE_MAX_S = 30.0


def barrier_write(topic: str, partition: int) -> Write:
    """A barrier: a key that is nobody else's, and no value, so that compaction removes it."""
    return Write(topic, BARRIER + uuid.uuid4().hex.encode(), None, partition=partition)


def is_barrier(key: bytes | None) -> bool:
    """Whether a key is a barrier's, ours or another's."""
    return key is not None and key.startswith(BARRIER)


async def read_back(
    kafka: KafkaConfig, topic: str, partition: int, writer: KafkaWriter
) -> AsyncGenerator[Any, None]:
    """Every committed record of a partition up to now, but the barriers. To be read to its end,
    or closed (`contextlib.aclosing`).

    Raises Unavailable where the broker stays silent before the barrier came back.
    """
    barrier = barrier_write(topic, partition)
    await writer.write([barrier])
    consumer = AIOKafkaConsumer(
        enable_auto_commit=False, isolation_level="read_committed", **client_settings(kafka)
    )
    place = TopicPartition(topic, partition)
    try:
        await consumer.start()
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        while True:
            fetched = await consumer.getmany(place, timeout_ms=int(SILENCE_MAX_S * 1000))
            if not fetched:
                raise Unavailable(
                    f"{topic}[{partition}]: the barrier did not come back in {SILENCE_MAX_S} s"
                )
            for record in fetched[place]:
                if record.key == barrier.key:
                    return
                if not is_barrier(record.key):
                    yield record
    finally:
        await stop_consumer(consumer)
