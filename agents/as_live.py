"""The versions that workers made, made again: the same messages of `flashfeed.records`, step by
step as the live events say (live_history.py), through sessions that nobody else knows.

A session begins at the version before the range, as it was then (as_live_state.py), or with its
first message. From there its messages go to it in the live versions' steps: records of feeds and
pushes over HTTP, texts, corrections, open candles, questions that come or go, its end. What a
full queue dropped or merged is in no event; its versions differ then, which is told.

Each version's inputs and answers are held against the live ones (as_live_compared.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from flashfeed.engine import Engine
from flashfeed.models.config import Config
from flashfeed.models.errors import DecodeFault
from flashfeed.models.events import DataUpdated
from flashfeed.models.messages import Records, decode_message
from flashfeed.models.views import SessionEvent

from .as_live_compared import Compared
from .as_live_state import Fold, goes_on, state_at
from .live_history import History, LiveSession, LiveVersion
from .past import Past
from .replay import Heard
from .replay_hidden import HiddenRows
from .replay_places import Places
from .replay_sessions import (
    Replayed,
    ReplayOut,
    ReplaySession,
    ReplaySessions,
    Version,
    begun,
)
from .session_step import Waiting

RECORDS_GONE: Final = "their records are not on the records topic any more"
NO_EARLIER: Final = "nothing is known of the version before them"


class LiveReplay:
    """One replay of live versions; `history` says which."""

    after_resume: Final = "the versions go on as they were"

    def __init__(
        self,
        config: Config,
        engine: Engine,
        history: History,
        out: ReplayOut,
        heard: Heard | None = None,
        hidden: HiddenRows | None = None,
    ) -> None:
        self._config = config
        self._history = history
        self._heard = heard
        self.compared = Compared()
        self.places = Places({place: at.first for place, at in history.asked.items()})
        stretches = history.stretches.values()
        self.done = begun(sum(at.end - at.first for at in stretches))
        comparing = _Comparing(out, history, self.compared)
        self._sessions = ReplaySessions(config, engine, comparing, self.places, self.done, hidden)
        self._followed = {key: _Followed(key, live, self) for key, live in history.sessions.items()}
        for live in history.sessions.values():
            for version in live.versions:
                self.places.read(version.place)
                self.places.hold(version.place)

    async def run(self) -> Replayed:
        """Replay it. Raises Unavailable, and what stops a worker."""
        await self._sessions.run(asyncio.create_task(self._work(), name="replay"))
        live = sum(len(one.versions) for one in self._history.sessions.values())
        made = self.compared.versions + self.compared.skipped.total()
        self.compared.missing = max(0, live - made)
        return self.done

    async def _work(self) -> None:
        began = {place.partition: at.first for place, at in self._history.stretches.items()}
        try:
            async with asyncio.TaskGroup() as group, Past(self._config.kafka) as past:
                async for records in past.read(self._history.stretches):
                    for raw in records:
                        self.done.read += 1
                        await self._read(raw, group, began[raw.partition])
                for one in self._followed.values():
                    await one.end()
                await self._sessions.end()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _read(self, raw: Any, group: asyncio.TaskGroup, retained: int) -> None:
        followed = self._followed.get((raw.key or b"").decode(errors="replace"))
        if followed is None:
            return
        try:
            message = decode_message(raw.value)
        except DecodeFault as fault:  # its worker made a dead letter of it
            place = f"{raw.topic}[{raw.partition}] offset {raw.offset}"
            self.done.refuse("decode", f"{fault} ({place})")
            return
        one = Waiting(int(raw.offset), message, len(raw.value or b""), raw.timestamp or 0)
        followed.begin(retained)
        await followed.take(one, group)

    def hear(self, key: str, one: Waiting) -> None:
        """A message of the range goes to its session."""
        if self._heard is not None and isinstance(one.message, Records):
            self._heard(key, one.message)

    def skip(self, versions: Sequence[LiveVersion], why: str) -> None:
        """These are left out."""
        if versions:
            self.compared.skipped[why] += len(versions)
            self.places.let_go([one.place for one in versions])

    @property
    def sessions(self) -> ReplaySessions:
        """Those that run."""
        return self._sessions


class _Followed:
    """One session on the records topic: folded up to where it begins, then handed over in the
    live versions' steps."""

    def __init__(self, key: str, live: LiveSession, replay: LiveReplay) -> None:
        self._key = key
        self._replay = replay
        self._versions = live.versions
        self._start: LiveVersion | None = live.before
        self._at = 0
        self._begun = self._over = False
        self._folds: list[Fold] = []
        self._session: ReplaySession | None = None
        self._messages: list[Waiting] = []

    def begin(self, retained: int) -> None:
        """The first message is there; `retained` is where its partition begins now."""
        if self._begun:
            return
        self._begun = True
        first = self._versions[0].updated
        if self._start is None and first.data_version > 1:
            self._start_later(NO_EARLIER)
        while not self._over and self._context_begins() < retained:
            self._start_later(RECORDS_GONE)
        templates = self._replay.sessions.template
        if self._start is not None:
            self._folds = [Fold(self._key, templates)]
            if retained:
                self._folds.append(Fold(self._key, templates, wide=True))

    def _context_begins(self) -> int:
        if self._start is not None:
            return self._start.updated.records_first
        return self._versions[0].updated.records_first if self._at == 0 else 0

    def _start_later(self, why: str) -> None:
        """Begin after one version more."""
        if self._at == len(self._versions):
            self._over = True
            return
        self._start = self._versions[self._at]
        self._replay.skip([self._start], why)
        self._at += 1
        self._over = self._at == len(self._versions)

    async def take(self, one: Waiting, group: asyncio.TaskGroup) -> None:
        """The session's next message; waits where too many versions wait."""
        if self._over:
            return
        start = self._start.updated.records_last if self._start is not None else -1
        if one.offset <= start:
            for fold in self._folds:
                fold.apply(one)
            return
        if self._session is None:
            await self._make(group)
            if self._session is None:
                return
        while not self._over and one.offset > self._versions[self._at].updated.records_last:
            await self._flush()
        if self._over:
            return
        self._replay.hear(self._key, one)
        self._messages.append(one)
        if one.offset == self._versions[self._at].updated.records_last:
            await self._flush()

    async def end(self) -> None:
        """There are no more messages."""
        if not self._over and self._messages:
            await self._flush()
        if not self._over:
            self._replay.skip(self._versions[self._at :], RECORDS_GONE)

    async def _make(self, group: asyncio.TaskGroup) -> None:
        state = None
        if self._start is not None:
            narrow, wide = self._folds[0], self._folds[-1] if len(self._folds) > 1 else None
            found = state_at(
                self._start.updated, narrow.state, wide.state if wide is not None else None
            )
            if isinstance(found, str):
                self._over = True
                self._replay.skip(self._versions[self._at :], found)
                return
            answers = [*self._versions[self._at].answers.values()]
            state = goes_on(found, self._start.updated.data_version, answers, narrow)
            self._folds = []
        self._session = await self._replay.sessions.make(self._key, group, state)

    async def _flush(self) -> None:
        """What is there made the next version."""
        version = self._versions[self._at]
        self._at += 1
        self._over = self._at == len(self._versions)
        messages, self._messages = self._messages, []
        if not messages:
            self._replay.skip([version], RECORDS_GONE)
            return
        assert self._session is not None
        await self._session.put(Version(messages, [version.place]))


class _Comparing:
    """An output that holds every event against the live one first."""

    def __init__(self, out: ReplayOut, history: History, compared: Compared) -> None:
        self._out = out
        self._compared = compared
        self._live = {
            (key, one.updated.data_version, one.updated.records_last): one
            for key, session in history.sessions.items()
            for one in session.known()
        }

    async def write(self, events: Sequence[SessionEvent]) -> None:
        """Compare them, and write them."""
        for event in events:
            live = self._live.get((event.session_id, event.data_version, event.records_last))
            if isinstance(event, DataUpdated):
                if live is not None:
                    self._compared.update(event, live.updated)
                else:
                    self._compared.alone += 1
            elif live is not None and event.id in live.answers:
                self._compared.answer(event, live.answers[event.id])
            else:
                self._compared.alone += 1
        await self._out.write(events)
