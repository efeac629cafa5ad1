"""The standing questions over the past: feeds' topics from a place to a place, through sessions
that nobody else knows (replay_sessions.py). No group, no offsets.

The records come in one order (past_feed.py), and `batch` of a session's make a version; a
session's versions, inputs and answers are so the same whenever the same range is replayed.
What was pushed over HTTP, or written to control, is in no feed's topic, and not replayed
(as_live.py does).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

import msgspec
from aiokafka import TopicPartition

from flashfeed.engine import Engine
from flashfeed.models.config import Config
from flashfeed.models.messages import Records

from .feeds import Feed
from .past import Stretch
from .past_feed import in_order, read_supplied
from .replay_hidden import HiddenRows
from .replay_places import Place, Places
from .replay_sessions import Replayed, ReplayOut, ReplaySession, ReplaySessions, Version, begun
from .session_step import STEP_ITEMS_MAX, Waiting
from .supplies import Supplies
from .transport import Batch

BATCH_MAX: Final = STEP_ITEMS_MAX

Heard = Callable[[str, Records], None]
"""Gets every message that goes to a session, and its key."""


class Replay:
    """One replay. `feeds` are those that read each topic, of which `stretches` are replayed, in
    those of `to_now` what came behind their ends before it began as well."""

    after_resume: Final = "sessions begin there anew, with empty windows and version 1"

    def __init__(
        self,
        config: Config,
        engine: Engine,
        supplies: Supplies,
        feeds: Mapping[str, Sequence[Feed]],
        out: ReplayOut,
        stretches: Mapping[TopicPartition, Stretch],
        to_now: Collection[TopicPartition] = (),
        batch: int = 1,
        heard: Heard | None = None,
        hidden: HiddenRows | None = None,
    ) -> None:
        assert 1 <= batch <= BATCH_MAX
        self._config = config
        self._supplies = supplies
        self._feeds = feeds
        self._stretches = stretches
        self._to_now = to_now
        self._batch = batch
        self._heard = heard
        self._open: dict[str, _Open] = {}
        self.places = Places({place: at.first for place, at in stretches.items()})
        self.done = begun(sum(at.end - at.first for at in stretches.values()))
        self._sessions = ReplaySessions(config, engine, out, self.places, self.done, hidden)

    async def run(self) -> Replayed:
        """Replay it. Raises Unavailable, and what stops a worker."""
        records = in_order(self._config.kafka, self._stretches, self._to_now)
        await self._sessions.run(asyncio.create_task(self._work(records), name="replay"))
        return self.done

    async def _work(self, records: AsyncGenerator[Any]) -> None:
        try:
            async with asyncio.TaskGroup() as group, aclosing(records):
                async for raw in records:
                    self.done.read += 1
                    place = Place(raw.topic, raw.partition, int(raw.offset))
                    self.places.hold(place)
                    for feed in self._feeds.get(raw.topic, ()):
                        await self._read(raw, feed, group)
                    self.places.read(place)
                    self.places.let_go([place])
                for one in self._open.values():
                    await one.flush()
                await self._sessions.end()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _read(self, raw: Any, feed: Feed, group: asyncio.TaskGroup) -> None:
        batch = Batch(raw.topic, raw.partition, 0, [raw])
        read = await read_supplied(batch, feed, self._supplies)
        self.done.refuse_letters(read.dead_letters)
        for key, message in read.messages:
            if self._heard is not None:
                self._heard(key, message)
            one = self._open.get(key)
            if one is None:
                one = self._open[key] = _Open(await self._sessions.make(key, group), self.places)
            for record in message.records:
                await one.put(msgspec.structs.replace(message, records=(record,)), self._batch)


class _Open:
    """A session's next version, as long as it has too few records."""

    def __init__(self, session: ReplaySession, places: Places) -> None:
        self._session = session
        self._places = places
        self._messages: list[Waiting] = []
        self._held: list[Place] = []
        self._offset = 0

    async def put(self, message: Records, batch: int) -> None:
        """A message of one record more; waits where too many versions wait."""
        place = Place(message.topic, message.partition, message.records[0].offset)
        self._places.hold(place)
        self._held.append(place)
        self._messages.append(Waiting(self._offset, message))
        self._offset += 1
        if len(self._messages) == batch:
            await self.flush()

    async def flush(self) -> None:
        """What is there makes the version."""
        if self._messages:
            version = Version(self._messages, self._held)
            self._messages, self._held = [], []
            await self._session.put(version)
