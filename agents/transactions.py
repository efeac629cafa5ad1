"""The transactions of one partition of `flashfeed.records`, as its owner writes them.

The transactional id is the group's name and the partition's number. Whoever takes the
partition over initialises a producer of that id (InitProducerId): the broker aborts what its
predecessor left open, and refuses all that it still tries to write. So `start` comes before
the changelog is read.

A transaction whose end nobody knows (a broker went away in the middle) breaks the producer, and
not the worker: the partition is begun anew, by the same way.

One transaction is under way at a time, and takes all steps that wait when it begins: the
more sessions there are, the less of its cost falls on each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from aiokafka.errors import KafkaError, ProducerFenced, TransactionalIdAuthorizationFailed

from flashfeed.models.errors import Fenced, Unavailable, WriteUncertain

from .kafka_writer import KafkaWriter, Write, send
from .rights import WRITE, denied

log = logging.getLogger(__name__)

STEPS_MAX = 256
START_MAX_S = 60.0
STOP_MAX_S = 10.0
COMMIT_MAX_S = 60.0
"""A transaction that takes longer is aborted by the broker (its transaction timeout)."""


class _Step(NamedTuple):
    writes: Sequence[Write]
    done: asyncio.Future[None]


class Transactions:
    """Writes steps in transactions, those that wait together in one."""

    def __init__(
        self,
        group: str,
        partition: int,
        writer: KafkaWriter,
        fenced: Callable[[int], None],
        uncertain: Callable[[int, WriteUncertain], None],
    ) -> None:
        self.id = f"{group}-{partition}"
        self._partition = partition
        self._writer = writer
        self._on_fenced = fenced
        self._on_uncertain = uncertain
        self._waiting: list[_Step] = []
        self._wake = asyncio.Event()
        self._ends = False
        self._failure: Exception | None = None
        self._producer: Any = None
        self._task: asyncio.Task[None] | None = None

    @property
    def broken(self) -> bool:
        """Whether nothing more can be written under the id by this producer."""
        return self._failure is not None

    async def start(self) -> None:
        """Take the id over; returns when nobody else can write under it. Raises Unavailable."""
        self._producer = self._writer.producer(
            transactional_id=self.id, transaction_timeout_ms=int(COMMIT_MAX_S * 1000)
        )
        try:
            async with asyncio.timeout(START_MAX_S):
                await self._producer.start()
        except BaseException as error:
            await self._producer.stop()
            if isinstance(error, (KafkaError, TimeoutError)):
                raise Unavailable(self._refused(error)) from error
            raise
        self._task = asyncio.create_task(self._run(), name=f"transactions {self.id}")

    def _refused(self, error: Exception) -> str:
        what = f"the brokers give no transactions under the id {self.id!r}"
        if isinstance(error, TimeoutError):
            why = f"no answer within {START_MAX_S:.0f} s: are there enough brokers for "
            why += "transaction.state.log.replication.factor and .min.isr"
        elif isinstance(error, TransactionalIdAuthorizationFailed):
            why = "it wants Write and Describe on this TransactionalId"
        else:
            why = repr(error)
        return f"{what} ({why}); kafka.transactions = false does without"

    async def stop(self) -> None:
        """Finish the transaction under way and disconnect; what waits is not written."""
        self._ends = True
        self._wake.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(STOP_MAX_S):
                await self._producer.stop()
        except (TimeoutError, KafkaError) as error:  # brokers are away: they abort what is open
            log.warning("%s: its producer did not stop in order: %r", self.id, error)
            await self._producer.client.close()

    async def write(self, writes: Sequence[Write]) -> None:
        """Write a step; returns when its transaction is committed.

        Raises Fenced where the partition is another worker's, and where the broker did not
        acknowledge: then it is begun anew, which tells whether the step is there.
        """
        if self._failure is not None:
            raise self._failure
        step = _Step(writes, asyncio.get_running_loop().create_future())
        self._waiting.append(step)
        self._wake.set()
        await step.done

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            if self._ends:
                self._fail(self._waiting, Fenced(f"partition {self._partition} was let go"))
                return
            steps = self._waiting[:STEPS_MAX]
            if not steps:
                self._wake.clear()
                continue
            del self._waiting[: len(steps)]
            try:
                async with asyncio.timeout(COMMIT_MAX_S):
                    await self._commit([write for step in steps for write in step.writes])
            except Exception as error:
                self._failed([*steps, *self._waiting], error)
                return
            for step in steps:
                if not step.done.done():
                    step.done.set_result(None)

    async def _commit(self, writes: Sequence[Write]) -> None:
        producer = self._producer
        await producer.begin_transaction()
        sent: list[asyncio.Future[Any]] = []
        try:
            for one in writes:
                sent.append(await send(producer, one))
        except BaseException:
            asyncio.gather(*sent, return_exceptions=True)  # or asyncio's log has each of them
            raise
        await asyncio.gather(*sent)
        await producer.commit_transaction()

    def _failed(self, steps: Sequence[_Step], error: BaseException) -> None:
        """Nothing more is written: another worker has the id, or nobody knows what is there."""
        _fetch_failures(self._producer)
        sender = self._producer._sender.sender_task
        if sender.done() and not sender.cancelled() and sender.exception() is not None:
            error = sender.exception()  # what `send` says then is what came of it
        if isinstance(error, ProducerFenced):
            self._writer.failures["fenced"] += 1
            what = f"partition {self._partition} is another worker's: {self.id!r} is fenced"
            self._fail(steps, Fenced(what))
            self._on_fenced(self._partition)
            return
        self._writer.failures["not_acknowledged"] += 1
        why = denied(error, WRITE)
        uncertain = WriteUncertain(f"Kafka did not acknowledge a transaction: {why or repr(error)}")
        if why:  # to begin anew would end here again
            self._fail(steps, uncertain)
            self._writer.fail(uncertain)
            return
        self._fail(steps, Fenced(f"partition {self._partition} is to be begun anew: {uncertain}"))
        self._on_uncertain(self._partition, uncertain)

    def _fail(self, steps: Sequence[_Step], failure: Exception) -> None:
        self._failure = failure
        for step in steps:
            if not step.done.done():
                step.done.set_exception(failure)
        self._waiting.clear()


def _fetch_failures(producer: Any) -> None:
    """Fetch what aiokafka (0.14) leaves in futures of its own where its sender failed, or
    asyncio's log says of each, with a traceback, that nobody did."""
    batches = producer._message_accumulator._batches.values()
    waiters = [batch._drain_waiter for queue in batches for batch in queue]
    for one in (producer._txn_manager.wait_for_transaction_end(), *waiters):
        if one is not None and one.done() and not one.cancelled():
            one.exception()
