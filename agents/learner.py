"""Learning: the owner of a partition of `flashfeed.examples` learns its heads, in topic order.

Of each chunk of examples it writes what the heads keep (`flashfeed.reservoirs`), then the
heads as they are after it (`flashfeed.heads`), then scores that are due (`flashfeed.scores`); only
then is the batch acknowledged. With transactions that is one. Without, a crash leaves at most
reservoir slots beyond the published head, which need nothing that they overwrote
(head_learning.py). A head's message says up to which offset it has learnt, so that what is
read again is skipped, and the same examples in the same order give the same heads, whoever
learns them (inv. 1, 2, 8).

What is no example, or of another kind than the head's, is counted, logged and left out: it
never blocks the partition (inv. 6).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from flashfeed.models.config import Config
from flashfeed.models.errors import Fenced, RequestError
from flashfeed.models.learning import ExampleRecord, HeadRecord, Learnt

from .barrier import read_back
from .followed_topic import FollowedTopic
from .head_learning import (
    CHUNK_EXAMPLES_MAX,
    HeadLearning,
    read_reservoirs,
    reservoir_key,
)
from .kafka_writer import KafkaWriter, Write
from .learned_heads import LearnedHeads
from .metrics import Metrics
from .metrics_learning import HeadScore
from .score_events import score_write
from .step_writer import KafkaStepWriter
from .transport import Batch

log = logging.getLogger(__name__)

Acknowledge = Callable[[], Any]
_decoder = msgspec.json.Decoder(ExampleRecord)


@dataclass(slots=True)
class _Partition:
    """One owned partition: its heads by key. `ready` once they are there, or it is `gone`;
    `turn` is held while a chunk is learnt and written."""

    number: int
    gone: bool = False
    heads: dict[str, HeadLearning] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class _Chunk(NamedTuple):
    """What a chunk of examples gave to write, and how many of them were what."""

    kept: list[Write]
    heads: list[Write]
    scores: list[Write]
    counts: dict[str, int]


class Learner:
    """The heads of the partitions that this worker owns."""

    def __init__(
        self,
        config: Config,
        writer: KafkaWriter,
        heads: LearnedHeads,
        followed: FollowedTopic,
        metrics: Metrics,
        fatal: Callable[[BaseException], None],
    ) -> None:
        kafka = config.kafka
        # Its own transactional ids: partition 0 of the records is somebody else's.
        own = msgspec.structs.replace(kafka, group=f"{kafka.group}-learner")
        self._steps = KafkaStepWriter(own, writer, fatal)
        self._config = config
        self._writer = writer
        self._heads = heads
        self._followed = followed
        self._metrics = metrics
        self._fatal = fatal
        self._owned: dict[int, _Partition] = {}
        self._change: asyncio.Task[None] | None = None

    # -- assignment -----------------------------------------------------------------

    def assign(self, numbers: Iterable[int]) -> None:
        """Own these partitions and no others, from now on; each is recovered in the background,
        also one that was owned before: it may have been another worker's meanwhile."""
        before, self._owned = self._owned, {number: _Partition(number) for number in numbers}
        for partition in before.values():
            partition.gone = True
        work = self._reassign(self._change, [*before.values()], [*self._owned.values()])
        self._change = asyncio.create_task(work, name="assign heads")

    async def stop(self) -> None:
        """Let go of everything."""
        self.assign(())
        assert self._change is not None
        await asyncio.gather(self._change, return_exceptions=True)

    async def _reassign(
        self,
        earlier: asyncio.Task[None] | None,
        lost: Sequence[_Partition],
        fresh: Sequence[_Partition],
    ) -> None:
        if earlier is not None:
            await asyncio.gather(earlier, return_exceptions=True)
        try:
            for partition in lost:
                async with partition.turn:  # what is under way is finished, or fenced
                    await self._steps.close(partition.number)
                partition.ready.set()
            # All of them first: a transaction that was left open in one hides what lies behind it
            # in the heads of the others.
            for partition in [one for one in fresh if not one.gone]:
                await self._steps.open(partition.number)  # nobody else writes from here on
            for partition in fresh:
                if not partition.gone:
                    await self._recover(partition)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fatal(error)

    async def _recover(self, partition: _Partition) -> None:
        number = partition.number
        await self._followed.sync()
        found, corrupt = read_reservoirs(await self._read_reservoirs(number))
        for what in corrupt:
            log.error("%s[%d], left out: %s", self._config.topics.reservoirs, number, what)
        records = self._heads.records(number)
        for record in records:
            learning = self._restored(record, found.get(record.head.key, {}))
            if learning is not None:
                partition.heads[record.head.key] = learning
        partition.ready.set()
        if records:
            log.info("learning goes on: %d heads of partition %d", len(records), number)

    @staticmethod
    def _restored(record: HeadRecord, reservoir: dict[int, Learnt]) -> HeadLearning | None:
        try:
            learning = HeadLearning.restored(record, reservoir)
        except RequestError as error:
            log.error("head %s: begins anew: %s", record.head.key, error)
            return None
        if not learning.whole:
            log.warning(
                "head %s: %d of its examples are there; it goes on with those",
                record.head.key,
                len(learning.head.examples),
            )
        return learning

    async def _read_reservoirs(self, number: int) -> list[tuple[bytes, bytes | None]]:
        """Everything in a partition of the reservoirs up to now. Raises Unavailable."""
        kafka, topic = self._config.kafka, self._config.topics.reservoirs
        newest: dict[bytes, bytes | None] = {}
        async with aclosing(read_back(kafka, topic, number, self._writer)) as records:
            async for record in records:
                if record.key is not None:
                    newest[record.key] = record.value
        return list(newest.items())

    # -- examples ---------------------------------------------------------------------

    async def take(self, batch: Batch, acknowledge: Acknowledge) -> None:
        """Learn a batch's examples, write what came of it, then acknowledge it."""
        partition = self._owned.get(batch.partition)
        if partition is None:
            return  # the next owner reads it again
        await partition.ready.wait()
        for first in range(0, len(batch.records), CHUNK_EXAMPLES_MAX):
            async with partition.turn:
                if partition.gone:
                    return
                chunk = batch.records[first : first + CHUNK_EXAMPLES_MAX]
                # A fit may take a second: the sessions go on meanwhile.
                done = await asyncio.to_thread(self._learn, partition, chunk)
                try:
                    number = partition.number
                    await self._steps.publish(number, done.kept, done.heads, done.scores)
                except Fenced:  # another worker learns them
                    partition.gone = True
                    return
                for result, count in done.counts.items():
                    self._metrics.learning.examples(result, count)
        acknowledge()

    def _learn(self, partition: _Partition, records: Sequence[Any]) -> _Chunk:
        done = _Chunk([], [], [], {"learnt": 0, "repeated": 0, "refused": 0})
        changed: dict[str, HeadLearning] = {}
        for raw in records:
            try:
                record = _decoder.decode(raw.value or b"")
                key = record.head.key
                learning = partition.heads.get(key)
                if learning is None:
                    heads_max = self._config.learning.heads_max
                    if len(self._heads) >= heads_max or len(partition.heads) >= heads_max:
                        raise RequestError(f"learning.heads_max: there are {heads_max} heads")
                    learning = HeadLearning.new(record.head)
                if raw.offset <= learning.offset or learning.knows(record.id):
                    done.counts["repeated"] += 1
                    continue
                learnt = learning.learn(record)
            except (msgspec.MsgspecError, RequestError) as error:
                done.counts["refused"] += 1
                log.warning(
                    "%s[%d] offset %d: no example that can be learnt: %s",
                    raw.topic, raw.partition, raw.offset, error,
                )  # fmt: skip
                continue
            except Exception:  # ours to mend; the partition goes on (invariant 6)
                done.counts["refused"] += 1
                log.exception(
                    "%s[%d] offset %d: an example was not learnt",
                    raw.topic, raw.partition, raw.offset,
                )  # fmt: skip
                continue
            partition.heads[key] = learning
            learning.offset = int(raw.offset)
            done.counts["learnt"] += 1
            done.kept.append(
                Write(
                    self._config.topics.reservoirs,
                    reservoir_key(key, learnt.number),
                    msgspec.json.encode(learnt),
                    partition=partition.number,
                )
            )
            changed[key] = learning
        topics = self._config.topics
        for one in changed.values():
            name, value = one.name.key.encode(), one.message(partition.number)
            done.heads.append(Write(topics.heads, name, value, partition=0))
            if one.score_is_due:
                one.scored()
                done.scores.append(score_write(topics.scores, one))
        return done

    def scores(self) -> list[HeadScore]:
        """How right the heads were that this worker learns."""
        return [
            HeadScore(one.name, one.scores, one.head.version, one.head.drifted)
            for partition in self._owned.values()
            for one in list(partition.heads.values())
        ]
