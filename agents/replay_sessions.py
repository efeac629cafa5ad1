"""The sessions of a replay, which nobody else knows: versions in, events out.

They run as live ones do (session_owner.py), as many at once as the engine has room for. A
version's messages are one step, however many they are: how much a live session takes at once
depends on how fast the machine is, and the same range must give the same versions again.
Nothing is dropped or merged for want of time either. Of one session a version begins when the
events of the one before it are written.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from flashfeed.engine import Engine
from flashfeed.models.config import Config
from flashfeed.models.errors import FlashfeedError
from flashfeed.models.events import DataUpdated
from flashfeed.models.session import SessionSpec
from flashfeed.models.views import SessionEvent

from .dead_letters import DeadLetter
from .kafka_writer import Write
from .metrics import Metrics
from .replay_hidden import HiddenRows
from .replay_places import Place, Places
from .session_outputs import OutputTopics
from .session_owner import OwnerParts, SessionOwner
from .session_queue import take_together
from .session_step import SessionState, Waiting, any_feed

AHEAD_MAX: Final = 8
"""Versions of one session that are read and wait for the engine."""
NAMED_MAX: Final = 5
"""Of the records refused for one reason so many are named."""


class ReplayOut(Protocol):
    """Where a replay's events go."""

    async def write(self, events: Sequence[SessionEvent]) -> None:
        """Write the events of one version; they are safe when it returns."""
        ...


class Version(NamedTuple):
    """The messages of a session's next version, and the places that are done with after it."""

    messages: Sequence[Waiting]
    places: Sequence[Place] = ()


@dataclass(slots=True)
class Replayed:
    """How far a replay is; `total` is what the range holds, as far as the broker says.
    `refused` counts records by the reason, `named` has the first ones of each."""

    total: int
    began_s: float
    read: int = 0
    versions: int = 0
    answers: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=dict)

    def left_s(self, now_s: float) -> float | None:
        """An estimate of the time left; None before there is one."""
        if not self.read:
            return None
        return (now_s - self.began_s) / self.read * max(0, self.total - self.read)

    def refuse(self, reason: str, what: str) -> None:
        """One more record that could not be used."""
        self.refused[reason] += 1
        named = self.named.setdefault(reason, [])
        if len(named) < NAMED_MAX:
            named.append(what)

    def refuse_letters(self, letters: Sequence[DeadLetter]) -> None:
        """What a feed could not use."""
        for one in letters:
            self.refuse(one.reason, one.detail)


class ReplaySessions:
    """All sessions of a replay; what they share. `hidden`: where its answers' hidden states go,
    None where nobody reads them."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        out: ReplayOut,
        places: Places,
        done: Replayed,
        hidden: HiddenRows | None = None,
    ) -> None:
        self.done = done
        self.places = places
        self.out = out
        self._hidden = hidden
        self._specs: dict[str, SessionSpec] = {
            name: template.spec() for name, template in config.templates.items()
        }
        self._may_step = asyncio.Event()
        self._may_step.set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._by_key: dict[str, ReplaySession] = {}
        self._numbered: list[ReplaySession] = []
        self._parts = self._owner_parts(config, engine)

    def template(self, name: str) -> SessionSpec | None:
        """A template's spec."""
        return self._specs.get(name)

    def find(self, key: str) -> ReplaySession | None:
        """A session that was made already."""
        return self._by_key.get(key)

    async def make(
        self, key: str, group: asyncio.TaskGroup, state: SessionState | None = None
    ) -> ReplaySession:
        """A session, from a state or from nothing; it runs in the group."""
        session = ReplaySession(key, len(self._numbered), self)
        self._by_key[key] = session
        self._numbered.append(session)
        if state is not None:
            await session.restore(state)
        group.create_task(session.run())
        return session

    async def run(self, work: asyncio.Task[None]) -> None:
        """Wait for the work that hands versions over; raises what stops a worker."""
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

    async def end(self) -> None:
        """No session gets any more versions."""
        for session in self._numbered:
            await session.put(Version(()))

    def new_owner(self, key: str, number: int) -> SessionOwner:
        """An owner, not started."""
        return SessionOwner(key, number, self._parts)

    def _owner_parts(self, config: Config, engine: Engine) -> OwnerParts:
        return OwnerParts(
            engine=engine,
            steps=_Nowhere(self.done),
            metrics=Metrics(),
            templates=self._specs.get,
            admit=any_feed,
            queue_records_max=config.bridge.queue_records_max,
            topics=OutputTopics("/flashfeed/replay", "", "", "", "", ""),
            publish=self._publish,
            ended=self._hidden.ended if self._hidden is not None else lambda _: None,
            settled=self._settled,
            fatal=self._fatal,
            may_step=self._may_step,
            take=take_together,
            updated=self._hidden.updated if self._hidden is not None else None,
        )

    def _publish(self, event: SessionEvent) -> None:
        if isinstance(event, DataUpdated):
            self.done.versions += 1
        else:
            self.done.answers += 1
            if self._hidden is not None:
                self._hidden.published(event)
        self._by_key[event.session_id].events.append(event)

    def _settled(self, number: int, offset: int, _: FlashfeedError | None) -> None:
        self._numbered[number].settled(offset)

    def _fatal(self, error: BaseException) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)


class ReplaySession:
    """One session's versions, handed to its owner one by one. `number` is where the owner
    takes its partition's number from: no two sessions share one here."""

    def __init__(self, key: str, number: int, sessions: ReplaySessions) -> None:
        self.key = key
        self.events: list[SessionEvent] = []
        self._number = number
        self._sessions = sessions
        self._ready: asyncio.Queue[Version] = asyncio.Queue(AHEAD_MAX)
        self._settled = -1
        self._woken = asyncio.Event()
        self.owner = sessions.new_owner(key, number)

    async def restore(self, state: SessionState) -> None:
        """Begin with that state."""
        await self.owner.rebuild(state)

    async def put(self, version: Version) -> None:
        """The next version; waits where too many do. One without messages is the end."""
        await self._ready.put(version)

    async def run(self) -> None:
        """Hand the versions over, each when the one before it is answered and written."""
        self.owner.start()
        while (version := await self._ready.get()).messages:
            if self.owner.gone:  # it could not be made: the next records try again
                self.owner = self._sessions.new_owner(self.key, self._number)
                self.owner.start()
            for one in version.messages:
                self.owner.put(one)
            while self._settled < version.messages[-1].offset:
                self._woken.clear()
                await self._woken.wait()
            events, self.events = self.events, []
            if events:
                await self._sessions.out.write(events)
            self._sessions.places.let_go(version.places)

    def settled(self, offset: int) -> None:
        """The owner is done with that message."""
        self._settled = max(self._settled, offset)
        self._woken.set()


class _Nowhere:
    """A StepWriter that keeps the sessions' steps to itself, and counts what they refuse."""

    atomic = True

    def __init__(self, done: Replayed) -> None:
        self._done = done

    async def publish(
        self, partition: int, refused: list[Write], changelog: list[Write], events: list[Write]
    ) -> None:
        """Count the dead letters among what would be written."""
        for write in refused:
            named = _letter_headers(dict(write.headers))
            if reason := named.get("reason"):
                at = "{topic}[{partition}] offset {offset}".format_map(_Named(named))
                self._done.refuse(reason, f"{named.get('detail', '')} ({at})")


class _Named(dict[str, str]):
    """A letter's headers; what is not among them stands as nothing."""

    def __missing__(self, key: str) -> str:
        return ""


def _letter_headers(headers: Mapping[str, bytes]) -> dict[str, str]:
    ours = "flashfeed_"
    return {
        name.removeprefix(ours): value.decode(errors="replace")
        for name, value in headers.items()
        if name.startswith(ours)
    }


def begun(total: int) -> Replayed:
    """A replay that begins now."""
    return Replayed(total, time.monotonic())
