"""What lies on topics already, read once: no group, no commit, nobody notices.

A stretch of a partition is from an offset to an offset, or from a time to a time; its end is
fixed before the first record is read, so a topic that is being written is read up to now.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import ConfigError, Unavailable

from .connection import client_settings, stop_consumer
from .rights import READ, denied
from .topics import count_partitions
from .unreachable import why_unreachable

SILENCE_MAX_S: Final = 30.0
POLL_S: Final = 1.0
TAIL_S: Final = 0.5
TAIL_BEHIND_S: Final = 2.0
"""How long nothing more may come before a topic is read up to now: where the broker said the
true end, and where there was more behind it."""
FETCH_WAIT_MS: Final = 100
"""The embedded broker holds a fetch back for as long as this lets it."""


class Stretch(NamedTuple):
    """The offsets `first` to `end` - 1 of a partition."""

    first: int
    end: int


class Past:
    """A reader of stretches; `async with` connects it. Raises Unavailable where no broker
    answers, ConfigError where there is no such topic."""

    def __init__(self, kafka: KafkaConfig) -> None:
        self._kafka = kafka
        self._consumer: Any = None
        self._began_ms = 0

    async def __aenter__(self) -> Past:
        self._consumer = AIOKafkaConsumer(
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            **client_settings(self._kafka),
        )
        try:
            await self._consumer.start()
        except KafkaError as error:
            await stop_consumer(self._consumer)
            why = await why_unreachable(client_settings(self._kafka), error)
            raise Unavailable(
                f"no broker answers at {self._kafka.brokers} (kafka.brokers): {why}"
            ) from None
        await asyncio.sleep(0)  # aiokafka cannot close what had no turn since it started
        self._began_ms = int(time.time() * 1000)  # of stretches that another reader asked for
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _at: object) -> None:
        await stop_consumer(self._consumer)
        if isinstance(error, KafkaError):
            raise Unavailable(denied(error, READ) or f"the brokers refuse: {error}") from error

    async def topics(self) -> list[str]:
        """The names of the topics there are."""
        return sorted(await self._consumer.topics())

    async def partitions(self, topic: str) -> list[TopicPartition]:
        """A topic's partitions."""
        if topic not in await self._consumer.topics():
            raise ConfigError(f"there is no topic {topic} at {self._kafka.brokers}")
        count = (await count_partitions(self._kafka, [topic]))[topic]
        return [TopicPartition(topic, number) for number in range(count)]

    async def stretches(
        self,
        places: Iterable[TopicPartition],
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> dict[TopicPartition, Stretch]:
        """What the partitions hold now, by time from `since_ms` to before `until_ms` (None:
        from the beginning, up to now), by the times that Kafka keeps of its records."""
        places = list(places)
        self._began_ms = int(time.time() * 1000)
        if not places:
            return {}
        first = await self._consumer.beginning_offsets(places)
        end = await self._consumer.end_offsets(places)
        begins = {} if since_ms is None else await self._at(places, since_ms)
        ends = {} if until_ms is None else await self._at(places, until_ms)
        return {
            place: Stretch(
                max(first[place], begins.get(place, first[place])), ends.get(place, end[place])
            )
            for place in places
        }

    async def _at(self, places: list[TopicPartition], ms: int) -> dict[TopicPartition, int]:
        """The first offset of that time or later, the end where nothing is."""
        end = await self._consumer.end_offsets(places)
        found = await self._consumer.offsets_for_times(dict.fromkeys(places, ms))
        return {
            place: end[place] if (at := found.get(place)) is None else at.offset for place in places
        }

    async def read(
        self, stretches: Mapping[TopicPartition, Stretch], *, to_now: bool = False
    ) -> AsyncIterator[list[Any]]:
        """The stretches' records: lists of one partition's in offset order. `to_now`: and what
        was written behind their ends before they were asked for (of another reader's stretches:
        before this one connected), which an embedded broker leaves out of its answer. Raises
        Unavailable where the broker falls silent."""
        left = {place: at for place, at in stretches.items() if at.end > at.first or to_now}
        if not left:
            return
        consumer = self._consumer
        consumer.assign(list(left))
        for place, at in left.items():
            consumer.seek(place, at.first)
        silent_s, tail_s = 0.0, TAIL_S
        while any([await consumer.position(place) < at.end for place, at in left.items()]):
            fetched = await consumer.getmany(timeout_ms=int(POLL_S * 1000))
            silent_s = 0.0 if fetched else silent_s + POLL_S
            if silent_s >= SILENCE_MAX_S:
                raise Unavailable(f"the brokers gave nothing for {SILENCE_MAX_S:.0f} s")
            for place, records in fetched.items():
                kept = [one for one in records if self._wanted(one, left[place], to_now)]
                if kept:
                    if kept[-1].offset >= left[place].end:  # the embedded broker: too low an end
                        tail_s = TAIL_BEHIND_S
                    yield kept
                if not to_now and await consumer.position(place) >= left[place].end:
                    consumer.pause(place)
        while to_now and (fetched := await consumer.getmany(timeout_ms=int(tail_s * 1000))):
            found = False
            for place, records in fetched.items():
                kept = [one for one in records if self._wanted(one, left[place], to_now)]
                if kept:
                    found = True
                    yield kept
            if not found:
                return

    def _wanted(self, record: Any, at: Stretch, to_now: bool) -> bool:
        behind = to_now and record.timestamp <= self._began_ms
        # An offset that is not there yet is sought in vain, and the fetch begins anew.
        return bool(at.first <= record.offset and (record.offset < at.end or behind))
