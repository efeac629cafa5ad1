"""The output topics over Kafka: every event since the stored position, in each session's order.

No consumer group: each reader reads all partitions and keeps its own position, so that
readers do not disturb one another and a position can live where the caller's data lives.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from .errors import PositionLost, Unreachable
from .event import Event, Wanted, read_data, removed_answer
from .position import PositionStore
from .reader import SEEN_MAX, Reader

log = logging.getLogger(__name__)

FLASH_READY: Final = "flashfeed.flash_ready"
DATA_UPDATED: Final = "flashfeed.data_updated"
ANSWERS: Final = "flashfeed.answers"

FETCH_WAIT_MS = 100
WAIT_MS = 60_000
RECORDS_MAX = 500


class TopicEvents(Reader):
    """Events of the output topics.

    `start` is where to begin on partitions without a stored position. `connection` are
    aiokafka's own settings for TLS and SASL (`security_protocol`, `ssl_context`,
    `sasl_mechanism` ...). A message that is no event of ours is passed over, logged and
    counted in `malformed`.

    Raises Unreachable where no broker answers, PositionLost where Kafka has dropped what
    was not read yet, MalformedPosition.
    """

    def __init__(
        self,
        brokers: str | Sequence[str],
        topics: Sequence[str] = (FLASH_READY,),
        *,
        wanted: Wanted | None = None,
        start: Literal["earliest", "latest"] = "latest",
        position: PositionStore | Path | str | None = None,
        connection: Mapping[str, Any] | None = None,
        seen_max: int = SEEN_MAX,
    ) -> None:
        super().__init__(position, seen_max)
        self._brokers = brokers if isinstance(brokers, str) else list(brokers)
        self._topics = tuple(topics)
        self._wanted = wanted or Wanted()
        self._start = start
        self._connection = dict(connection or {})
        self._consumer: Any = None
        self._fetched: deque[ConsumerRecord] = deque()
        self.malformed = 0

    async def _open(self) -> None:
        self._consumer = AIOKafkaConsumer(
            *self._topics,
            bootstrap_servers=self._brokers,
            auto_offset_reset="none",  # a position that is gone is said, not jumped over
            isolation_level="read_committed",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            **self._connection,
        )
        try:
            await self._consumer.start()
            await self._seek_all()
        except PositionLost:
            await self._close()
            raise
        except KafkaError as error:
            await self._close()
            raise Unreachable(
                f"cannot read {', '.join(self._topics)} at {self._brokers}: {error}"
            ) from error

    async def _seek_all(self) -> None:
        """Stand at the stored position, else at the start; and keep where that is, so that
        a restart misses nothing that comes before the first event is handled."""
        consumer = self._consumer
        partitions = sorted(consumer.assignment())
        begins = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions) if self._start == "latest" else begins
        for partition in partitions:
            stored = self._progress.offsets.setdefault(_name(partition), ends[partition])
            if stored < begins[partition]:
                raise _lost(partition, stored)
            consumer.seek(partition, stored)
        self._progress.save()

    async def _next(self) -> Event:
        while True:
            while self._fetched:
                if event := self._take(self._fetched.popleft()):
                    return event
            try:
                batches = await self._consumer.getmany(timeout_ms=WAIT_MS, max_records=RECORDS_MAX)
            except NoOffsetForPartitionError as error:  # a topic has more partitions now
                partition = error.args[0]
                offset = self._progress.offsets.setdefault(_name(partition), 0)
                self._consumer.seek(partition, offset)
                continue
            except OffsetOutOfRangeError as error:
                partition, offset = next(iter(error.args[0].items()))
                raise _lost(partition, offset) from error
            except KafkaError as error:
                if error.retriable:  # aiokafka connects again by itself
                    log.warning("reading %s: %s", ", ".join(self._topics), error)
                    continue
                raise Unreachable(f"cannot read from {self._brokers}: {error}") from error
            for records in batches.values():
                self._fetched.extend(records)

    def _take(self, record: ConsumerRecord) -> Event | None:
        """The event in a record where it is to be delivered."""
        partition = f"{record.topic}/{record.partition}"
        place = f"{partition}/{record.offset}"
        headers = dict(record.headers)
        try:
            if record.value is None:
                event = Event(place, removed_answer(record.key), place)
            else:
                type_ = headers.get("ce_type", b"").decode(errors="replace")
                content = headers.get("content-type", b"application/json")
                data = read_data(type_, record.value, content.decode(errors="replace"))
                event = Event(headers["ce_id"].decode(), data, place)
        except (ValueError, KeyError) as error:
            self.malformed += 1
            log.warning("%s is passed over: %s", place, error)
            self._progress.passed(partition, record.offset)
            return None
        # The same event stands on flash_ready and on answers: it is new on each of them.
        identity = f"{record.topic}:{event.id}"
        if not self._progress.is_new(identity) or not self._wanted(event.data):
            self._progress.passed(partition, record.offset)
            return None
        self._progress.deliver(identity, partition, record.offset)
        return event

    async def _close(self) -> None:
        if self._consumer is None:
            return
        try:
            await self._consumer.stop()
        except asyncio.CancelledError:
            # aiokafka raises this where a fetch that failed waits to be tried again, and leaves
            # its connections open. Where it is not that, it is ours.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            await self._consumer._client.close()


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}/{partition.partition}"


def _lost(partition: TopicPartition, offset: int) -> PositionLost:
    return PositionLost(
        f"{_name(partition)} no longer has offset {offset}, the stored position: events are "
        'gone; remove the position to begin anew, with start="earliest" at what is left'
    )
