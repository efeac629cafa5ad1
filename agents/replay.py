"""The standing questions over the past: feeds' topics from a time to a time, through sessions
that nobody else knows. No group, no offsets, nothing is written to Kafka.

The records come in one order (past_feed.py), and `batch` of a session's make a version; a
session's versions, inputs and answers are so the same whenever the same range is replayed.
The sessions run as live ones do (session_owner.py), as many at once as the engine has room
for. What was pushed over HTTP, or written to control, is in no feed's topic, and not replayed.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from aiokafka import TopicPartition

from flashfeed.engine import Engine
from flashfeed.models.config import Config
from flashfeed.models.errors import FlashfeedError
from flashfeed.models.events import DataUpdated
from flashfeed.models.messages import Records
from flashfeed.models.session import SessionSpec
from flashfeed.models.views import SessionEvent

from .feeds import Feed
from .kafka_writer import Write
from .metrics import Metrics
from .past import Stretch
from .past_feed import in_order, read_supplied
from .session_outputs import OutputTopics
from .session_owner import OwnerParts, SessionOwner
from .session_step import STEP_ITEMS_MAX, Waiting, any_feed
from .supplies import Supplies
from .transport import Batch

BATCH_MAX: Final = STEP_ITEMS_MAX
AHEAD_MAX: Final = 8
"""Versions of one session that are read and wait for the engine."""


@dataclass(slots=True)
class Replayed:
    """How far a replay is; `total` is what the range holds, as far as the broker says."""

    total: int
    began_s: float
    read: int = 0
    versions: int = 0
    answers: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def left_s(self, now_s: float) -> float | None:
        """An estimate of the time left; None before there is one."""
        if not self.read:
            return None
        return (now_s - self.began_s) / self.read * max(0, self.total - self.read)


class Replay:
    """One replay; `take` gets every event as its version is answered."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        supplies: Supplies,
        feeds: Mapping[str, Sequence[Feed]],
        batch: int,
        take: Callable[[SessionEvent], None],
    ) -> None:
        assert 1 <= batch <= BATCH_MAX
        self._config = config
        self._supplies = supplies
        self._feeds = feeds
        self._batch = batch
        self._take = take
        self._specs: dict[str, SessionSpec] = {
            name: template.spec() for name, template in config.templates.items()
        }
        self._may_step = asyncio.Event()
        self._may_step.set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sessions: dict[str, _Session] = {}
        self._numbered: list[_Session] = []
        self.done = Replayed(0, time.monotonic())
        self._parts = self._owner_parts(engine)

    async def run(
        self, stretches: Mapping[TopicPartition, Stretch], *, to_now: bool = False
    ) -> Replayed:
        """Replay the stretches; `feeds` are those that read each topic. Raises Unavailable,
        and what stops a worker."""
        self.done.total = sum(at.end - at.first for at in stretches.values())
        records = in_order(self._config.kafka, stretches, to_now=to_now)
        work = asyncio.create_task(self._work(records), name="replay")
        try:
            await asyncio.wait({work, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
            await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            for session in self._numbered:
                await session.owner.stop()
        return self.done

    async def _work(self, records: AsyncGenerator[Any]) -> None:
        try:
            async with asyncio.TaskGroup() as group, aclosing(records):
                async for raw in records:
                    self.done.read += 1
                    for feed in self._feeds.get(raw.topic, ()):
                        await self._read(raw, feed, group)
                for session in self._numbered:
                    await session.end()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _read(self, raw: Any, feed: Feed, group: asyncio.TaskGroup) -> None:
        batch = Batch(raw.topic, raw.partition, 0, [raw])
        read = await read_supplied(batch, feed, self._supplies)
        self.done.refused.update(letter.reason for letter in read.dead_letters)
        for key, message in read.messages:
            session = self._sessions.get(key)
            if session is None:
                session = _Session(key, len(self._numbered), self._parts, self._batch)
                self._sessions[key] = session
                self._numbered.append(session)
                group.create_task(session.run())
            for record in message.records:
                await session.put(msgspec.structs.replace(message, records=(record,)))

    # -- what sessions share ------------------------------------------------------

    def _owner_parts(self, engine: Engine) -> OwnerParts:
        return OwnerParts(
            engine=engine,
            steps=_Nowhere(self.done.refused),
            metrics=Metrics(),
            templates=self._specs.get,
            admit=any_feed,
            queue_records_max=self._config.bridge.queue_records_max,
            topics=OutputTopics("/flashfeed/replay", "", "", "", "", ""),
            publish=self._publish,
            ended=lambda _: None,
            settled=self._settled,
            fatal=self._fatal,
            may_step=self._may_step,
        )

    def _publish(self, event: SessionEvent) -> None:
        if isinstance(event, DataUpdated):
            self.done.versions += 1
        else:
            self.done.answers += 1
        self._take(event)

    def _settled(self, number: int, offset: int, _: FlashfeedError | None) -> None:
        self._numbered[number].settled(offset)

    def _fatal(self, error: BaseException) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)


class _Session:
    """One session's records, handed to its owner a version at a time. `number` is where the
    owner takes its partition's number from: no two sessions share one here."""

    def __init__(self, key: str, number: int, parts: OwnerParts, batch: int) -> None:
        self._key = key
        self._number = number
        self._parts = parts
        self._batch = batch
        self._read: list[Waiting] = []
        self._ready: asyncio.Queue[list[Waiting]] = asyncio.Queue(AHEAD_MAX)
        self._offset = 0
        self._settled = -1
        self._woken = asyncio.Event()
        self.owner = self._new_owner()

    async def put(self, message: Records) -> None:
        """The session's next record; waits where too many versions wait."""
        self._read.append(Waiting(self._offset, message))
        self._offset += 1
        if len(self._read) == self._batch:
            await self._flush()

    async def end(self) -> None:
        """There are no more; what is left makes the last version."""
        if self._read:
            await self._flush()
        await self._ready.put([])

    async def _flush(self) -> None:
        await self._ready.put(self._read)
        self._read = []

    async def run(self) -> None:
        """Hand the versions over, each when the one before it is answered."""
        while version := await self._ready.get():
            if self.owner.gone:  # it could not be made: the next records try again
                self.owner = self._new_owner()
            for one in version:
                self.owner.put(one)
            while self._settled < version[-1].offset:
                self._woken.clear()
                await self._woken.wait()

    def settled(self, offset: int) -> None:
        """The owner is done with that message."""
        self._settled = max(self._settled, offset)
        self._woken.set()

    def _new_owner(self) -> SessionOwner:
        owner = SessionOwner(self._key, self._number, self._parts)
        owner.start()
        return owner


class _Nowhere:
    """A StepWriter that keeps the sessions' steps to itself, and counts what they refuse."""

    atomic = True

    def __init__(self, refused: Counter[str]) -> None:
        self._refused = refused

    async def publish(
        self, partition: int, refused: list[Write], changelog: list[Write], events: list[Write]
    ) -> None:
        """Count the dead letters among what would be written."""
        for write in refused:
            reason = dict(write.headers).get("flashfeed_reason")
            if reason is not None:
                self._refused[reason.decode()] += 1
