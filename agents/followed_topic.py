"""A compacted topic of one partition that every worker reads whole, and then follows.

What one worker writes is known to all, in the same order. `put` returns when this worker
has read its own write back, and so everything that was written before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, TopicPartition

from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import Unavailable

from .barrier import SILENCE_MAX_S, barrier_write, is_barrier
from .connection import client_settings, stop_consumer
from .kafka_writer import KafkaWriter, Write

FETCH_WAIT_MS = 100
"""The embedded broker holds a fetch back for as long as this lets it."""

Take = Callable[[bytes, bytes | None], None]


class FollowedTopic:
    """Reads a topic into `take(key, value)`, from its beginning, as long as it runs."""

    def __init__(
        self,
        kafka: KafkaConfig,
        topic: str,
        writer: KafkaWriter,
        take: Take,
        fatal: Callable[[BaseException], None],
    ) -> None:
        self._kafka = kafka
        self._topic = topic
        self._place = TopicPartition(topic, 0)
        self._writer = writer
        self._take = take
        self._fatal = fatal
        self._position = 0
        self._moved = asyncio.Condition()
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, most_s: float = SILENCE_MAX_S) -> None:
        """Read everything that is there now, and go on reading. Raises Unavailable where it takes
        longer than `most_s`; what comes is read all the same, until `stop`."""
        self._consumer = AIOKafkaConsumer(
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            **client_settings(self._kafka),
        )
        await self._consumer.start()
        self._consumer.assign([self._place])
        await self._consumer.seek_to_beginning(self._place)
        self._task = asyncio.create_task(self._follow(), name=f"follow {self._topic}")
        await self._written([barrier_write(self._topic, 0)], most_s)

    async def stop(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._consumer is not None:
            await stop_consumer(self._consumer)

    async def put(self, *entries: tuple[bytes, bytes | None]) -> None:
        """Write entries (a value of None erases its key); done when they are read back.

        Raises what the writer raises, and Unavailable where they do not come back: they
        are written then.
        """
        writes = [Write(self._topic, key, value, partition=0) for key, value in entries]
        await self._written(writes)

    async def sync(self) -> None:
        """Read everything that was written before now."""
        await self._written([barrier_write(self._topic, 0)])

    async def _written(self, writes: list[Write], most_s: float = SILENCE_MAX_S) -> None:
        last = (await self._writer.write(writes))[-1].offset
        try:
            async with asyncio.timeout(most_s), self._moved:
                await self._moved.wait_for(lambda: self._position > last)
        except TimeoutError:
            raise Unavailable(f"{self._topic}: not read back within {most_s:.0f} s") from None

    async def _follow(self) -> None:
        assert self._consumer is not None
        try:
            while True:
                fetched = await self._consumer.getmany(self._place, timeout_ms=1000)
                for record in fetched.get(self._place, ()):
                    if record.key is not None and not is_barrier(record.key):
                        self._take(record.key, record.value)
                    self._position = record.offset + 1
                async with self._moved:
                    self._moved.notify_all()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fatal(error)
