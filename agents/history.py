"""Writing to a session's one history, `flashfeed.records`, and waiting for what comes of it.

A message is written, comes back through the session's owner, and is settled there: done,
or refused with an error that is raised to whoever waits here.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections import OrderedDict
from typing import NamedTuple

from flashfeed.models.errors import FlashfeedError, WriteUncertain
from flashfeed.models.messages import Message, encode_message

from .kafka_writer import KafkaWriter, Write, Written
from .key_partition import partition_of
from .service import NOTED

APPLY_TIMEOUT_S = 30.0
SETTLED_KEPT = 4096


class _Pushed(NamedTuple):
    session_id: str
    records: int
    n_bytes: int


class History:
    """The records topic as this worker's callers write it."""

    def __init__(self, writer: KafkaWriter, topic: str, partition_count: int) -> None:
        self._writer = writer
        self._topic = topic
        self._partition_count = partition_count
        self._recent: OrderedDict[Written, FlashfeedError | None] = OrderedDict()
        self._waiters: dict[Written, asyncio.Future[None]] = {}
        self._pushed: dict[Written, _Pushed] = {}
        self._revocations: Tally[int] = Tally()

    def partition_of(self, session_id: str) -> int:
        """The partition that a session's key hashes to (Kafka's default partitioner)."""
        return partition_of(session_id, self._partition_count)

    async def push(self, session_id: str, message: Message, records: int) -> None:
        """Write a message of so many records; returns at Kafka's acknowledgement."""
        number = self.partition_of(session_id)
        revocations = self._revocations[number]
        written, n_bytes = await self._write(session_id, message)
        # Where the partition went meanwhile nobody here will hear what became of it.
        if written not in self._recent and self._revocations[number] == revocations:
            self._pushed[written] = _Pushed(session_id, records, n_bytes)

    def on_the_way(self, session_id: str, arrived: set[int]) -> tuple[int, int]:
        """Records pushed here that have not come back from Kafka, and their messages' bytes:
        those that wait at the owner (`arrived` are their offsets) are its own to count."""
        away = [
            one
            for written, one in self._pushed.items()
            if one.session_id == session_id and written.offset not in arrived
        ]
        return sum(one.records for one in away), sum(one.n_bytes for one in away)

    async def apply(self, session_id: str, message: Message) -> None:
        """Write a message and wait until its owner has applied it; raises its error."""
        written, _ = await self._write(session_id, message)
        if written in self._recent:
            error = self._recent[written]
            if error is not None:
                raise error
            return
        waiter = self._waiters[written] = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait_for(waiter, APPLY_TIMEOUT_S)
        except TimeoutError:
            raise WriteUncertain(
                f"written, but not applied within {APPLY_TIMEOUT_S:.0f} s"
            ) from None
        finally:
            self._waiters.pop(written, None)

    def settled(self, number: int, offset: int, error: FlashfeedError | None) -> None:
        """A message of partition `number` was applied, or refused."""
        written = Written(number, offset)
        self._pushed.pop(written, None)
        waiter = self._waiters.get(written)
        if waiter is not None and not waiter.done():
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
        self._recent[written] = error
        if len(self._recent) > SETTLED_KEPT:
            self._recent.popitem(last=False)

    def revoked(self, number: int) -> None:
        """What was written to the partition is another worker's to apply."""
        self._revocations[number] += 1
        for written, waiter in self._waiters.items():
            if written.partition == number and not waiter.done():
                waiter.set_exception(
                    WriteUncertain("written, but the session moved to another worker meanwhile")
                )
        self._pushed = {key: at for key, at in self._pushed.items() if key.partition != number}

    async def _write(self, session_id: str, message: Message) -> tuple[Written, int]:
        number = self.partition_of(session_id)
        key, value = session_id.encode(), encode_message(message)
        noted = NOTED.get()
        if noted is not None:
            noted.wrote = True
        [written] = await self._writer.write([Write(self._topic, key, value, partition=number)])
        return written, len(value)
