"""One producer for all that flashfeed writes, and what a failed write means.

A write is done when Kafka acknowledged it (acks=all). aiokafka retries what is
retriable until the request timeout; what still fails is fatal for the worker, because
nothing later may go out after a lost write (DESIGN.md, one history): it stops, and
goes on from its committed offsets when it is started again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import RequestError, Unavailable, WriteUncertain

from .connection import client_settings


class Write(NamedTuple):
    """One Kafka record to write. `partition` None: by the key's hash."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int | None = None


class Written(NamedTuple):
    """Where a record stands now."""

    partition: int
    offset: int


class KafkaWriter:
    """Writes records and waits for their acknowledgement."""

    def __init__(self, kafka: KafkaConfig) -> None:
        self._producer = AIOKafkaProducer(
            acks="all", max_request_size=4_000_000, **client_settings(kafka)
        )

    async def start(self) -> None:
        """Connect. Raises Unavailable where no broker answers."""
        try:
            await self._producer.start()
        except KafkaError as error:
            raise Unavailable(f"cannot reach the brokers: {error}") from error

    async def stop(self) -> None:
        """Flush and disconnect."""
        await self._producer.stop()

    async def write(self, writes: Iterable[Write]) -> list[Written]:
        """Write all of them and wait until every one is acknowledged, in order.

        Raises Unavailable where nothing was written, WriteUncertain where the broker did
        not acknowledge in time, RequestError where a record is larger than Kafka takes.
        """
        pending: list[asyncio.Future[Any]] = []
        try:
            for one in writes:
                pending.append(
                    await self._producer.send(
                        one.topic,
                        one.value,
                        key=one.key,
                        partition=one.partition,
                        headers=list(one.headers),
                    )
                )
            done = await asyncio.gather(*pending)
        except MessageSizeTooLargeError as error:
            raise RequestError(f"a record is too large for Kafka: {error}") from error
        except KafkaError as error:
            if not pending:
                raise Unavailable(f"Kafka took no write: {error!r}") from error
            raise WriteUncertain(f"Kafka did not acknowledge a write: {error!r}") from error
        return [Written(meta.partition, meta.offset) for meta in done]

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        return len(await self._producer.partitions_for(topic))
