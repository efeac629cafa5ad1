"""Sparkplug births: noted, waited for, kept on a compacted topic.

A birth names the metrics of an edge node or device, and the data behind it may name them by
alias alone. Birth and data stand under different keys, so perhaps in different partitions
and with different workers: every worker reads the whole topic and follows it
(followed_topic.py). A feed's batch writes the births it read with its records, before it
is acknowledged (invariant 1).

A wait that ended in vain is remembered until the birth comes: the next alias of that edge is
a dead letter at once, or its partition would wait again for every message.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from flashfeed.codecs.codec import Birth, BirthWanted
from flashfeed.models.errors import BirthMissing

from .kafka_writer import Write
from .supply_counts import SupplyCounts

log = logging.getLogger(__name__)

EDGES_MAX: Final = 100_000
VALUE_BYTES_MAX: Final = 900_000

_decoder = msgspec.msgpack.Decoder(Birth)
_encoder = msgspec.msgpack.Encoder()


class BirthBook:
    """The births at hand (codecs/codec.py's Births). Pure but for its clock."""

    def __init__(self, counts: SupplyCounts, now: Callable[[], float] = time.monotonic) -> None:
        self._counts = counts
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
            self._counts.birth("read")
        self.learn(edge, birth)

    def take(self, key: bytes, value: bytes | None) -> None:
        """What came on the topic; what cannot be read is told and passed over."""
        edge = key.decode(errors="replace")
        try:
            self.learn(edge, None if value is None else _decoder.decode(value))
        except (msgspec.ValidationError, msgspec.DecodeError) as bad:
            log.error("the birth of %s on the births topic cannot be read: %s", edge, bad)

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
                self._counts.sequence_gap()
            self._numbers[place] = number
            self._numbers.move_to_end(place)
            if len(self._numbers) > EDGES_MAX:
                self._numbers.popitem(last=False)
        self._read.clear()

    async def wait(self, edge: str, wait_s: float) -> None:
        """Wait for a birth, and give it up after `wait_s`."""
        self._counts.birth("waited")
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
            self._counts.birth("missing")
            log.warning("no birth of %s came within %g s", edge, wait_s)
            if len(self._missing) >= EDGES_MAX:
                del self._missing[next(iter(self._missing))]
            self._missing[edge] = None

    def writes(self, topic: str) -> list[Write]:
        """A batch was read whole: the births that are not on the topic yet, as Kafka records.
        They stay so until `written`: a batch may be cut short while it is written."""
        self._count_gaps()
        writes = []
        for edge, birth in list(self._fresh.items()):
            value = _encoder.encode(birth)
            if len(value) > VALUE_BYTES_MAX:
                log.error("the birth of %s is too large to be kept: %d bytes", edge, len(value))
                del self._fresh[edge]
            else:
                writes.append(Write(topic, edge.encode(), value))
        return writes

    def written(self, writes: Sequence[Write]) -> None:
        """These births are on the topic."""
        for write in writes:
            edge = (write.key or b"").decode()
            # A newer one may have come meanwhile.
            if edge in self._fresh and _encoder.encode(self._fresh[edge]) == write.value:
                del self._fresh[edge]
