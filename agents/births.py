"""Sparkplug births: read from the compacted topic, noted, waited for, kept.

A birth names the metrics of an edge node or device, and the data behind it may name them by
alias alone. Birth and data stand under different keys, so perhaps in different partitions
and with different workers: every worker reads the whole topic and follows it. A feed's batch
writes the births it read with its records, before it is acknowledged (invariant 1).

A wait that ended in vain is remembered until the birth comes: the next alias of that edge is
a dead letter at once, or its partition would wait again for every message.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from flashfeed.codecs.codec import Birth, BirthWanted
from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import BirthMissing, Unavailable

from .connection import client_settings
from .kafka_writer import KafkaWriter, Write
from .metrics import Metrics

log = logging.getLogger(__name__)

BARRIER: Final = b"\x00barrier/"
SILENCE_MAX_S: Final = 30.0
EDGES_MAX: Final = 100_000
VALUE_BYTES_MAX: Final = 900_000

_decoder = msgspec.msgpack.Decoder(Birth)
_encoder = msgspec.msgpack.Encoder()


class BirthBook:
    """The births at hand (codecs/codec.py's Births). Pure but for its clock."""

    def __init__(self, metrics: Metrics, now: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._now = now
        self._births: OrderedDict[str, Birth] = OrderedDict()
        self._fresh: dict[str, Birth] = {}
        self._missing: dict[str, None] = {}
        self._numbers: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._read: list[tuple[tuple[str, str], int]] = []
        self._came = asyncio.Event()

    def begin(self) -> None:
        """A batch is read from its beginning: numbers of a reading cut short do not count."""
        self._read.clear()

    def note(self, edge: str, birth: Birth) -> None:
        """A birth was read from a feed: it counts, and is written with the batch."""
        if self._births.get(edge) != birth:
            self._fresh[edge] = birth
            self._metrics.birth("read")
        self.learn(edge, birth)

    def learn(self, edge: str, birth: Birth | None) -> None:
        """What the topic says of an edge; None: nothing any more."""
        if birth is None:
            self._births.pop(edge, None)
            return
        self._births[edge] = birth
        self._births.move_to_end(edge)
        if len(self._births) > EDGES_MAX:
            self._births.popitem(last=False)
        self._missing.pop(edge, None)
        self._came.set()
        self._came = asyncio.Event()

    def find(self, edge: str, wait_s: float) -> Birth:
        """An edge's birth. Raises BirthWanted, or BirthMissing after a wait in vain."""
        birth = self._births.get(edge)
        if birth is not None:
            return birth
        if edge in self._missing:
            raise BirthMissing(f"no birth of {edge} came, and a metric has only an alias")
        raise BirthWanted(edge, wait_s)

    def sequence(self, topic: str, node: str, number: int) -> None:
        """An edge node's message had that number; looked at when the batch is read whole."""
        self._read.append(((topic, node), number))

    def _count_gaps(self) -> None:
        for place, number in self._read:
            last = self._numbers.get(place)
            # A birth begins again at 0.
            if last is not None and number not in (0, (last + 1) % 256):
                self._metrics.sequence_gap()
            self._numbers[place] = number
            self._numbers.move_to_end(place)
            if len(self._numbers) > EDGES_MAX:
                self._numbers.popitem(last=False)
        self._read.clear()

    async def wait(self, edge: str, wait_s: float) -> None:
        """Wait for a birth, and give it up after `wait_s`."""
        self._metrics.birth("waited for")
        deadline = self._now() + wait_s
        while edge not in self._births:
            left = deadline - self._now()
            if left <= 0:
                break
            came = self._came
            try:
                await asyncio.wait_for(came.wait(), left)
            except TimeoutError:
                break
        if edge not in self._births:
            self._metrics.birth("missing")
            log.warning("no birth of %s came within %g s", edge, wait_s)
            if len(self._missing) >= EDGES_MAX:
                del self._missing[next(iter(self._missing))]
            self._missing[edge] = None

    def take_writes(self, topic: str) -> list[Write]:
        """A batch was read whole: the births not written yet, as Kafka records."""
        self._count_gaps()
        fresh, self._fresh = self._fresh, {}
        writes = []
        for edge, birth in fresh.items():
            value = _encoder.encode(birth)
            if len(value) > VALUE_BYTES_MAX:
                log.error("the birth of %s is too large to be kept: %d bytes", edge, len(value))
            else:
                writes.append(Write(topic, edge.encode(), value))
        return writes


class BirthTopic:
    """Reads the births topic into a book, and follows it."""

    def __init__(self, kafka: KafkaConfig, topic: str, book: BirthBook) -> None:
        self._kafka = kafka
        self._topic = topic
        self._book = book
        self._consumer: Any = None
        self._following: asyncio.Task[None] | None = None

    async def start(self, writer: KafkaWriter, on_failure: Callable[[BaseException], None]) -> None:
        """Read what there is, and go on in the background. Raises Unavailable."""
        count = await writer.partitions(self._topic)
        places = [TopicPartition(self._topic, number) for number in range(count)]
        barrier = BARRIER + uuid.uuid4().hex.encode()
        await writer.write(
            [Write(self._topic, barrier, None, partition=number) for number in range(count)]
        )
        self._consumer = AIOKafkaConsumer(
            enable_auto_commit=False,
            isolation_level="read_committed",
            **client_settings(self._kafka),
        )
        await self._consumer.start()
        self._consumer.assign(places)
        await self._consumer.seek_to_beginning(*places)
        behind = set(places)
        while behind:
            fetched = await self._consumer.getmany(timeout_ms=int(SILENCE_MAX_S * 1000))
            if not fetched:
                raise Unavailable(f"{self._topic}: the barrier did not come back")
            behind -= self._take(fetched, barrier)
        self._following = asyncio.create_task(self._follow(on_failure), name="births")

    async def stop(self) -> None:
        """Disconnect."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._consumer is not None:
            await self._consumer.stop()

    async def _follow(self, on_failure: Callable[[BaseException], None]) -> None:
        try:
            while True:
                self._take(await self._consumer.getmany(timeout_ms=1000), b"")
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            on_failure(error)

    def _take(self, fetched: Any, barrier: bytes) -> set[TopicPartition]:
        """Learn what was fetched; returns the partitions whose barrier came back."""
        reached = set()
        for place, records in fetched.items():
            for record in records:
                if record.key == barrier:
                    reached.add(place)
                elif record.key and not record.key.startswith(BARRIER):
                    self._learn(record)
        return reached

    def _learn(self, record: Any) -> None:
        edge = record.key.decode(errors="replace")
        try:
            birth = None if record.value is None else _decoder.decode(record.value)
        except (msgspec.ValidationError, msgspec.DecodeError) as bad:
            log.error("%s: the birth of %s cannot be read: %s", self._topic, edge, bad)
            return
        self._book.learn(edge, birth)
