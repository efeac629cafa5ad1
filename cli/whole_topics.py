"""Everything that is on topics of flashfeed's own, for commands that look at them once.

Nothing is committed and nothing written there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from flashfeed.agents.connection import client_settings, stop_consumer
from flashfeed.agents.rights import READ, denied
from flashfeed.agents.unreachable import why_unreachable
from flashfeed.models.config import Config
from flashfeed.models.errors import ConfigError, Unavailable

SILENCE_S: Final = 1.0
"""Beside the end offsets, which the embedded broker may say too low: so long nothing came."""
READ_MAX_S: Final = 60.0

Messages = list[tuple[bytes, bytes | None]]


async def read_topics(config: Config, topics: Sequence[str], why_none: str) -> list[Messages]:
    """Each topic's messages, keyed ones alone. Raises Unavailable; ConfigError where there is no
    such topic, with `why_none`."""
    settings = client_settings(config.kafka)
    consumer = AIOKafkaConsumer(
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        **settings,
    )
    try:
        async with asyncio.timeout(READ_MAX_S):
            await consumer.start()
            return [await _read(consumer, topic, why_none) for topic in topics]
    except (KafkaError, TimeoutError, OSError) as error:
        why = denied(error, READ) or await why_unreachable(settings, str(error) or "no answer")
        raise Unavailable(f"cannot read {', '.join(topics)}: {why}") from error
    finally:
        await stop_consumer(consumer)


async def _read(consumer: AIOKafkaConsumer, topic: str, why_none: str) -> Messages:
    numbers = consumer.partitions_for_topic(topic)
    if not numbers and topic not in await consumer.topics():
        raise ConfigError(f"there is no topic {topic}: {why_none}")
    places = [TopicPartition(topic, number) for number in sorted(numbers or {0})]
    consumer.assign(places)
    await consumer.seek_to_beginning(*places)
    ends = await consumer.end_offsets(places)
    found: Messages = []
    fetched: Any = True
    while fetched or any([await consumer.position(one) < ends[one] for one in places]):
        fetched = await consumer.getmany(*places, timeout_ms=int(SILENCE_S * 1000))
        for records in fetched.values():
            found += [(one.key, one.value) for one in records if one.key is not None]
    return found
