"""One producer for all that flashfeed writes, and what a failed write means.

A write is done when Kafka acknowledged it (acks=all). aiokafka retries what is retriable;
what still fails shuts the writer for good and stops the worker, because nothing later may
go out after a lost write (DESIGN.md, one history). Started again it goes on from its
committed offsets.

Where the broker gives out producer ids, writes are idempotent: a retry whose first try
came through is not there twice, and it is tried for ever. Elsewhere it is tried until the
request timeout, and the sessions' watermarks drop the repeats.

What is too large is refused here, before anything is sent. A broker refuses the whole batch
that it came in, and an idempotent producer has spent the batch's sequence numbers: all that
it would write to the partition from then on is out of order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    UnknownError,
    UnsupportedVersionError,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import RequestError, Unavailable, WriteUncertain

from .connection import client_settings
from .rights import WRITE, denied
from .unreachable import why_unreachable

# What a record may have, everything included, on every topic of ours: some less than the
# usual max.message.bytes. Topics that take less are refused at the start (topics.py).
RECORD_BYTES_MAX = 1_000_000
MESSAGE_BYTES_MAX = RECORD_BYTES_MAX - 50_000  # its value: key and headers have room beside it
# Of what waits for a partition, that much goes in one batch. A partition has one batch on the
# way at a time, so with aiokafka's 16 KiB sessions of one partition waited for each other. Far
# below what a topic takes: a batch that is too large would fail every record in it.
BATCH_BYTES_MAX = 262_144
FAILURES = ("refused", "too_large", "not_acknowledged", "fenced")


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


async def send(producer: AIOKafkaProducer, one: Write) -> asyncio.Future[Any]:
    """Hand a record over to a producer; what is returned waits for its acknowledgement."""
    sent: asyncio.Future[Any] = await producer.send(
        one.topic, one.value, key=one.key, partition=one.partition, headers=list(one.headers)
    )
    return sent


class KafkaWriter:
    """Writes records and waits for their acknowledgement. `failures` counts what was not
    written, by why."""

    def __init__(self, kafka: KafkaConfig, on_failure: Callable[[BaseException], None]) -> None:
        self._kafka = kafka
        self._on_failure = on_failure
        self._failure: BaseException | None = None
        self._producer: Any = None
        self._bytes_max: dict[str, int] = {}
        self.idempotent = False
        self.failures = dict.fromkeys(FAILURES, 0)

    async def start(self, bytes_max: Mapping[str, int] | None = None) -> None:
        """Connect, idempotently where the broker can. `bytes_max` is what a record may have,
        by topic (RECORD_BYTES_MAX elsewhere). Raises Unavailable where no broker answers."""
        self._bytes_max = dict(bytes_max or {})
        sender_log = logging.getLogger("aiokafka.producer.sender")
        level = sender_log.level
        try:
            sender_log.setLevel(logging.CRITICAL)  # it logs a traceback of what we handle
            await self._connect(idempotent=True)
        except (UnknownError, UnsupportedVersionError):  # the embedded broker: no producer ids
            await self._connect(idempotent=False)
        except KafkaError as error:
            why = denied(error) or await why_unreachable(client_settings(self._kafka), error)
            raise Unavailable(f"cannot reach the brokers: {why}") from error
        finally:
            sender_log.setLevel(level)

    async def _connect(self, *, idempotent: bool) -> None:
        self._producer = self.producer(enable_idempotence=idempotent)
        try:
            await self._producer.start()
        except BaseException:
            await self._producer.stop()
            raise
        self.idempotent = idempotent

    async def stop(self) -> None:
        """Flush and disconnect."""
        if self._producer is not None:
            await self._producer.stop()

    async def write(self, writes: Iterable[Write]) -> list[Written]:
        """Write all of them and wait until every one is acknowledged, in order.

        Raises RequestError where a record is larger than its topic takes, and Unavailable:
        then nothing was written. WriteUncertain where the broker did not acknowledge.
        """
        [written] = await self.write_in_order(writes)
        return written

    async def write_in_order(self, *groups: Iterable[Write]) -> list[list[Written]]:
        """Write groups, each when the one before it is acknowledged; raises as `write` does.
        Where a record of any is too large nothing is written."""
        kept = [list(group) for group in groups]
        for group in kept:
            self.check(group)
        return [await self._write(group) for group in kept]

    async def _write(self, writes: Sequence[Write]) -> list[Written]:
        if self._failure is not None:
            raise Unavailable(f"the worker stops after a lost write: {self._failure}")
        pending: list[asyncio.Future[Any]] = []
        try:
            for one in writes:
                pending.append(await send(self._producer, one))
            done = await asyncio.gather(*pending)
        except KafkaError as error:
            why = denied(error, WRITE) or repr(error)
            if not pending:
                self.failures["refused"] += 1
                raise Unavailable(f"Kafka took no write: {why}") from error
            self.failures["not_acknowledged"] += 1
            uncertain = WriteUncertain(f"Kafka did not acknowledge a write: {why}")
            self.fail(uncertain)
            raise uncertain from error
        return [Written(meta.partition, meta.offset) for meta in done]

    def fail(self, error: WriteUncertain) -> None:
        """Nothing goes out behind a write that may be lost: stop the worker."""
        self._failure = error
        self._on_failure(error)

    def producer(self, **more: Any) -> AIOKafkaProducer:
        """A producer that takes what our topics take; it is to be started."""
        return AIOKafkaProducer(
            acks="all",
            max_request_size=max([RECORD_BYTES_MAX, *self._bytes_max.values()]),
            max_batch_size=BATCH_BYTES_MAX,
            **client_settings(self._kafka),
            **more,
        )

    def check(self, writes: Iterable[Write]) -> None:
        """Raises RequestError where a record is larger than its topic takes."""
        for one in writes:
            size = DefaultRecordBatchBuilder.estimate_size_in_bytes(
                one.key, one.value, list(one.headers)
            )
            if size > self._bytes_max.get(one.topic, RECORD_BYTES_MAX):
                self.failures["too_large"] += 1
                raise RequestError(
                    f"{one.topic}: a record of {size} bytes is larger than the topic takes, "
                    f"{self._bytes_max.get(one.topic, RECORD_BYTES_MAX)} (its max.message.bytes)"
                )

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        return len(await self._producer.partitions_for(topic))
