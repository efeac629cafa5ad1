"""The newest messages of topics, to look at: no group, no commit."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import ConfigError, Unavailable

from .connection import client_settings, stop_consumer
from .rights import READ, denied
from .topics import count_partitions
from .unreachable import why_unreachable

SILENCE_MAX_S = 5.0


async def sample_topics(
    kafka: KafkaConfig, patterns: Sequence[str], count: int, brokers: str | None = None
) -> list[Any]:
    """The newest `count` records of every topic that a pattern names, oldest first. Raises
    ConfigError where there is no such topic, Unavailable where no broker answers."""
    if brokers:
        kafka = msgspec.structs.replace(kafka, brokers=brokers)
    settings = client_settings(kafka)
    consumer = AIOKafkaConsumer(
        enable_auto_commit=False, isolation_level="read_committed", **settings
    )
    try:
        try:
            await consumer.start()
        except KafkaError as error:
            why = await why_unreachable(settings, error)
            raise Unavailable(
                f"no broker answers at {kafka.brokers} (kafka.brokers, --brokers): {why}"
            ) from None
        topics = await consumer.topics()
        named = [one for one in sorted(topics) if any(map(lambda p: _names(p, one), patterns))]
        if not named:
            raise ConfigError(
                f"no topic is named {' or '.join(patterns)}; there are "
                f"{', '.join(sorted(one for one in topics if not one.startswith('__'))) or 'none'}"
            )
        counts = await count_partitions(kafka, named)
        places = [
            TopicPartition(topic, number) for topic in named for number in range(counts[topic])
        ]
        return await _newest(consumer, places, count)
    except KafkaError as error:
        raise Unavailable(denied(error, READ) or f"the brokers refuse: {error}") from error
    finally:
        await stop_consumer(consumer)


def _names(pattern: str, topic: str) -> bool:
    hidden = topic.startswith(("__", "flashfeed.")) and "*" in pattern
    return not hidden and fnmatch.fnmatchcase(topic, pattern)


async def _newest(
    consumer: AIOKafkaConsumer, places: list[TopicPartition], count: int
) -> list[Any]:
    consumer.assign(places)
    first = await consumer.beginning_offsets(places)
    end = await consumer.end_offsets(places)
    for place in places:
        consumer.seek(place, max(first[place], end[place] - count))
    records: list[Any] = []
    left = {place for place in places if end[place] > first[place]}
    while left:
        fetched = await consumer.getmany(timeout_ms=int(SILENCE_MAX_S * 1000))
        if not fetched:
            break  # end offsets count what no reader gets, transaction markers among them
        for place, batch in fetched.items():
            records += [one for one in batch if one.offset < end[place]]
            if batch[-1].offset >= end[place] - 1:
                left.discard(place)
    return sorted(records, key=lambda one: (one.timestamp, one.topic, one.offset))[-count:]
