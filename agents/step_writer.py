"""Publishes a step: the one place where the order of writes is decided.

With transactions (Apache Kafka; transactions.py), 1 to 3 are one: readers see all of a step
or nothing, and whoever lost its partition can write nothing more.

Without (a broker that gives out no producer ids, or `kafka.transactions = false`) the order,
and what breaks where it moves:

1. dead letters, tombstones   before 2, or a crash moves the session past a record whose
   of removed answers         letter was never written: nobody writes it again. A repeat
                              of either does no harm
2. changelog                  before 3, or a crash publishes a version that nobody knows
                              and answers the same records under another id (invariant 2)
3. events, answers            before 4, or a crash commits past events that never went
                              out (invariant 1)

Each is acknowledged before the next begins. A crash between 2 and 3 is mended on
recovery: the last version's events are built again from the changelog's head, byte for
byte, and published under the same ids.

4. the batch's offset         by the transport, once every message of it is settled. It is in
                              no transaction: the changelog's head says how far its session
                              is, so what is read again is skipped (invariant 2), and the
                              consumer's own commit is fenced by the group's generation,
                              which a producer's (aiokafka 0.14) is not
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import Fenced, Unavailable, WriteUncertain

from .kafka_writer import KafkaWriter, Write
from .transactions import Transactions

FENCED_SESSION_TIMEOUTS = 5
"""The group says sooner who has a partition."""
BREAKS_MAX = 3
"""A partition that broke so often in twice that time is not begun anew once more."""


class StepWriter(Protocol):
    """Makes a step durable and visible."""

    @property
    def atomic(self) -> bool:
        """Whether a crash leaves no step half written."""

    async def publish(
        self, partition: int, refused: list[Write], changelog: list[Write], events: list[Write]
    ) -> None:
        """Write a step of a session in `partition` of flashfeed.records. Raises RequestError
        where one of its records is larger than its topic takes: then none is written; Fenced
        where the partition is another worker's now; else what a KafkaWriter raises."""


class KafkaStepWriter:
    """Writes steps to Kafka: in transactions where the broker has them."""

    def __init__(
        self, kafka: KafkaConfig, writer: KafkaWriter, fatal: Callable[[BaseException], None]
    ) -> None:
        self._kafka = kafka
        self._writer = writer
        self._fatal = fatal
        self._open: dict[int, Transactions] = {}
        self._breaks: dict[int, list[float]] = {}
        self._begin_anew: Callable[[int], None] | None = None

    def on_broken(self, begin_anew: Callable[[int], None]) -> None:
        """Call `begin_anew(partition)` where nothing more can be written for a partition that
        the group leaves with this worker."""
        self._begin_anew = begin_anew

    def broken(self, partition: int) -> bool:
        """Whether nothing more can be written for a partition that is open here."""
        opened = self._open.get(partition)
        return opened is not None and opened.broken

    @property
    def atomic(self) -> bool:
        """Whether steps are written in transactions."""
        return self._kafka.transactions and self._writer.idempotent

    @property
    def guarantee(self) -> str:
        """What the worker says at its start about how it writes."""
        if self.atomic:
            return "one transaction a step: whoever reads what is committed sees it once"
        return (
            "ordered writes without transactions: a crash may publish a version's events twice, "
            "under the same ids"
        )

    async def open(self, partition: int) -> None:
        """Begin to write for a partition that is ours now; from here on nobody else can.
        Raises Unavailable where the brokers do not let us."""
        if self.atomic:
            opened = Transactions(
                self._kafka.group, partition, self._writer, self._fenced, self._uncertain
            )
            await opened.start()
            self._open[partition] = opened

    async def close(self, partition: int) -> None:
        """The partition is another's: what is being written is finished, and nothing more."""
        opened = self._open.pop(partition, None)
        if opened is not None:
            await opened.stop()

    async def publish(
        self, partition: int, refused: list[Write], changelog: list[Write], events: list[Write]
    ) -> None:
        """1 what was refused or removed, 2 the changelog, 3 what readers see."""
        if not self.atomic:
            await self._writer.write_in_order(refused, changelog, events)
            return
        if partition not in self._open:
            raise Fenced(f"partition {partition} is not this worker's")
        writes = [*refused, *changelog, *events]
        self._writer.check(writes)
        await self._open[partition].write(writes)

    def _breaks_again(self, partition: int) -> bool:
        """Note that a partition broke; whether it did so too often of late to be begun anew."""
        now = asyncio.get_running_loop().time()
        span_s = 2 * FENCED_SESSION_TIMEOUTS * self._kafka.session_timeout_s
        lately = [at for at in self._breaks.get(partition, ()) if now - at < span_s]
        self._breaks[partition] = [*lately, now]
        return self._begin_anew is None or len(lately) >= BREAKS_MAX

    def _uncertain(self, partition: int, error: WriteUncertain) -> None:
        """A transaction may be there or not. To begin the partition anew says which: taking
        its id over ends the transaction, and the changelog has the step or has it not."""
        if self._breaks_again(partition) or self._begin_anew is None:
            self._fatal(error)
        else:
            self._begin_anew(partition)

    def _fenced(self, partition: int) -> None:
        """Another producer has the partition's id: the group is about to say that it is
        another worker's. Where it does not, it was one that had lost it (stalled between its
        claim and its first transaction), and the partition is begun anew; where that happens
        again and again, or changes nothing, the worker is."""
        fenced, loop = self._open.get(partition), asyncio.get_running_loop()
        timeout_s = self._kafka.session_timeout_s

        def still_ours() -> bool:
            return fenced is not None and self._open.get(partition) is fenced

        def anew() -> None:
            if self._begin_anew is not None and still_ours():
                self._begin_anew(partition)

        def give_up() -> None:
            if still_ours():
                self._fatal(
                    Unavailable(
                        f"partition {partition}: fenced, and no worker of the group has it. Does "
                        f"another group or cluster use kafka.group = {self._kafka.group!r} here?"
                    )
                )

        if not self._breaks_again(partition):
            loop.call_later(timeout_s, anew)
        loop.call_later(FENCED_SESSION_TIMEOUTS * timeout_s, give_up)
