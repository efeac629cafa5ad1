"""The two sides of `pass_overhead` (hidden.py): a session as a worker has it, whose four questions
learn from their outcomes, and one whose questions do not.

Real owner, engine, learner and heads; Kafka is a dictionary's worth of routing, so that what is
left out is the producer's and the consumers' own work. Of the side that learns each update

- reads the hidden states, and how they moved
- is answered by heads that have learnt EXAMPLES_MAX examples
- writes four answers that wait for their labels, and four that have one now
- gives four examples, from which the learner beside it learns, writes each head and its scores,
  and fits them when they are due; the next update is answered by the new heads
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from flashfeed.agents.fetched_record import FetchedRecord
from flashfeed.agents.head_learning import HeadLearning, reservoir_key
from flashfeed.agents.kafka_writer import KafkaWriter, Write, Written
from flashfeed.agents.learned_heads import LearnedHeads
from flashfeed.agents.learner import Learner
from flashfeed.agents.metrics import Metrics
from flashfeed.agents.session_learning import head_name
from flashfeed.agents.session_outputs import OutputTopics
from flashfeed.agents.session_owner import OwnerParts, SessionOwner
from flashfeed.agents.session_step import SessionState, Waiting, any_feed
from flashfeed.agents.step_writer import KafkaStepWriter
from flashfeed.agents.transport import Batch
from flashfeed.cli import sample_data
from flashfeed.engine import Engine
from flashfeed.heads.learner import EXAMPLES_MAX
from flashfeed.models.config import Config, KafkaConfig
from flashfeed.models.learning import Example, ExampleRecord, Features, HeadName, Learnt
from flashfeed.models.messages import PackedRecord, Records
from flashfeed.models.session import (
    FlashQuery,
    OutcomeSpec,
    SessionSpec,
    WindowSpec,
    with_query_ids,
)

CONFIG = Config(kafka=KafkaConfig(transactions=False))
AFTER = "5 records"
ASKED = (
    ("Does the last line say up?", "yes if close@0 > close@-1 else no"),
    ("Does the last line say high?", "yes if volume@0 > volume@-1 else no"),
    ("Is the last close above that of five days ago?", "yes if close@0 > close@-5 else no"),
    ("Will the close be higher in five days?", "yes if close > close@0 else no"),
)
CHOICES = ("no", "yes")

Fatal = Callable[[BaseException], None]


def spec_of(learns: bool) -> SessionSpec:
    """The session's spec: the same questions on both sides."""
    flash = tuple(
        FlashQuery(
            query,
            choices=CHOICES,
            learn=learns,
            outcome=OutcomeSpec(label, AFTER) if learns else None,
        )
        for query, label in ASKED
    )
    return with_query_ids(
        SessionSpec(
            type="ohlcv",
            prompt="Daily candles of a stock.",
            window=WindowSpec("grow"),
            flash=flash,
            overflow="block",
        )
    )


def candles() -> Iterator[dict[str, Any]]:
    """A stock's daily candles, as they stand in a record."""
    for row in sample_data.candles("MSFT"):
        short = {name[0]: row[name] for name in ("open", "high", "low", "close", "volume")}
        yield short | {"timestamp": row["start"]}


class Memory(KafkaWriter):
    """Kafka in memory: examples go to the learner, heads to who answers, all else nowhere."""

    def __init__(self, fatal: Fatal) -> None:
        super().__init__(CONFIG.kafka, fatal)
        self.heads: LearnedHeads | None = None
        self.examples = asyncio.Queue[FetchedRecord]()
        self._sent = 0

    async def _write(self, writes: Sequence[Write]) -> list[Written]:
        for one in writes:
            if self.heads is None:
                continue
            if one.topic == CONFIG.topics.heads:
                self.heads.take(one.key or b"", one.value)
            elif one.topic == CONFIG.topics.examples:
                self._sent += 1
                self.examples.put_nowait(
                    FetchedRecord(one.topic, 0, self._sent, 0, 0, one.key, one.value)
                )
        return []


class Filled(Learner):
    """A learner that takes heads over which have learnt all that they keep."""

    def __init__(
        self, names: Iterable[HeadName], numbers: int, writer: Memory, fatal: Fatal
    ) -> None:
        self._stored: list[tuple[bytes, bytes | None]] = []
        heads = writer.heads = LearnedHeads()
        synced: Any = self  # nothing is followed: what is written is known at once
        super().__init__(CONFIG, writer, heads, synced, Metrics(), fatal)
        learning, kept = learnt(next(iter(names)), numbers)
        for name in names:
            learning.name = name
            heads.take(name.key.encode(), learning.message(0))
            self._stored += [
                (reservoir_key(name.key, one.number), msgspec.json.encode(one)) for one in kept
            ]
        self._examples = writer.examples
        self._rests = asyncio.Event()

    async def sync(self) -> None:
        """Everything is read already."""

    async def _read_reservoirs(self, number: int) -> list[tuple[bytes, bytes | None]]:
        return self._stored

    async def run(self) -> None:
        """Learn what comes, as it comes."""
        while True:
            if self._examples.empty():
                self._rests.set()
            batch = [await self._examples.get()]
            self._rests.clear()
            while not self._examples.empty():
                batch.append(self._examples.get_nowait())
            await self.take(Batch(batch[0].topic, 0, 0, batch), lambda: None)

    async def rest(self) -> None:
        """Wait until all that came is learnt."""
        while not (self._examples.empty() and self._rests.is_set()):
            await asyncio.sleep(0.001)


def learnt(name: HeadName, numbers: int) -> tuple[HeadLearning, list[Learnt]]:
    """A head of EXAMPLES_MAX examples whose hidden states, of so many numbers and as many of
    their moves, half know the label; and its reservoir."""
    draw = np.random.default_rng(0)
    learning = HeadLearning.new(name)
    kept = []
    for number in range(EXAMPLES_MAX):
        label = int(draw.integers(2))
        row = draw.normal(0.0, 1.0, 2 * numbers)
        row[:8] += label - 0.5
        features = Features((math.log(0.4), math.log(0.6)), row.astype("<f2").tobytes())
        prediction = learning.head.predict("before", features, (0.4, 0.6))
        example = Example("before", features, label, prediction)
        record = ExampleRecord(
            f"e{number}", name, number, name.subject.choices[label], "rule", None, example
        )
        kept.append(learning.learn(record))
    return learning, kept


class Side:
    """A session's owner over its engine, with a learner beside it or without."""

    def __init__(self, engine: Engine, learns: bool, n_embd: int) -> None:
        self._records = candles()
        self._put = 0
        self._settled = asyncio.Queue[int | BaseException]()
        self._spec = spec_of(learns)
        self._engine = engine
        self._writer = Memory(self._settled.put_nowait)
        self.learner: Filled | None = None
        self._learning: asyncio.Task[None] | None = None
        if learns:
            names = [head_name(self._spec, query, engine.model_hash) for query in self._spec.flash]
            self.learner = Filled(names, n_embd, self._writer, self._settled.put_nowait)

    async def start(self, history: int) -> None:
        """Make the session, with so many records and no label yet."""
        if self.learner is not None:
            self.learner.assign([0])
            self._learning = asyncio.create_task(self.learner.run())
        topics = CONFIG.topics
        may_step = asyncio.Event()
        may_step.set()
        parts = OwnerParts(
            engine=self._engine,
            steps=KafkaStepWriter(CONFIG.kafka, self._writer, self._settled.put_nowait),
            metrics=Metrics(),
            templates=lambda _: self._spec,
            admit=any_feed,
            queue_records_max=10_000,
            topics=OutputTopics(
                "/bench",
                topics.changelog,
                topics.dead_letters,
                topics.flash_ready,
                topics.data_updated,
                topics.answers,
                topics.examples,
                topics.outcomes,
            ),
            publish=lambda _: None,
            ended=lambda _: None,
            settled=lambda _, offset, __: self._settled.put_nowait(offset),
            fatal=self._settled.put_nowait,
            may_step=may_step,
            heads=self._writer.heads.find if self._writer.heads is not None else None,
        )
        self._owner = SessionOwner("bench", 0, parts)
        self._owner.start()
        await self.take(history)

    async def take(self, records: int = 1) -> float:
        """Seconds until that many more records, one message, are applied and answered."""
        packed = tuple(
            PackedRecord(self._put + place, 0, 0, fields)
            for place, fields in enumerate(islice(self._records, records))
        )
        message = Records(type="ohlcv", records=packed, topic="t", template="x")
        began = time.perf_counter()
        self._owner.put(Waiting(self._put, message))
        self._put += records
        settled = await self._settled.get()
        if isinstance(settled, BaseException):
            raise settled
        return time.perf_counter() - began

    async def rest(self) -> None:
        """Wait until the learner has learnt all that there is."""
        if self.learner is not None:
            await self.learner.rest()

    @property
    def labels(self) -> int:
        """How many labels the heads have learnt here."""
        if self.learner is None:
            return 0
        return sum(one.version for one in self.learner.scores()) - len(ASKED) * EXAMPLES_MAX

    @property
    def state(self) -> SessionState | None:
        """The session's state after the last update."""
        return self._owner.state

    async def stop(self) -> None:
        """Give everything back."""
        await self._owner.stop()
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.gather(self._learning, return_exceptions=True)
