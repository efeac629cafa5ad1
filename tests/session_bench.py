"""An owner over an engine and a changelog in memory, for tests of what they agree on.

The engine here is its contract in memory: it holds lines, and has room for so many
characters of them. An update waits for its `gate`, where there is one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flashfeed.agents.changelog import SlotsRead
from flashfeed.agents.graves import Graves
from flashfeed.agents.kafka_writer import Write
from flashfeed.agents.metrics import Metrics
from flashfeed.agents.session_outputs import OutputTopics
from flashfeed.agents.session_owner import OwnerParts, SessionOwner
from flashfeed.agents.session_step import Waiting, any_feed
from flashfeed.engine import Update
from flashfeed.models.errors import (
    ContextFull,
    FlashfeedError,
    RequestError,
    SessionExists,
    SessionUnknown,
)
from flashfeed.models.generation import GeneratedPiece, GenerateOptions
from flashfeed.models.session import Answer, FlashQuery, SessionSpec, WindowSpec
from flashfeed.models.window import window_length

TOPICS = OutputTopics("/x", "changelog", "letters", "flash", "updated", "answers")


@dataclass
class Held:
    window: WindowSpec
    frozen: list[str]
    lines: list[str]
    count: int


@dataclass
class MemoryEngine:
    """The engine's contract. `room` is in characters; `errors` are raised by the next calls."""

    room: int = 10_000
    model_hash: str = "m"
    model_name: str = "memory"
    held: dict[str, Held] = field(default_factory=dict)
    errors: deque[Exception] = field(default_factory=deque)
    open_errors: deque[Exception] = field(default_factory=deque)
    close_errors: deque[Exception] = field(default_factory=deque)
    opens: int = 0
    saved: dict[str, list[str]] = field(default_factory=dict)
    gate: asyncio.Event | None = None
    pieces: tuple[str, ...] = (" It", " rises", ". ")
    finish_reason: Literal["stop", "length", "cancelled"] = "stop"

    async def open(
        self,
        session_id: str,
        spec: SessionSpec,
        lines: Sequence[str] = (),
        count: int | None = None,
        frozen: Sequence[str] = (),
    ) -> int:
        if session_id in self.held:
            raise SessionExists(session_id)
        if self.open_errors:
            raise self.open_errors.popleft()
        count = len(lines) if count is None else count
        assert len(lines) == window_length(spec.window, count)
        self._check(frozen, lines)
        self.opens += 1
        self.held[session_id] = Held(spec.window, list(frozen), list(lines), count)
        return 1

    def kv_tokens(self, session_id: str) -> int:
        return len(self.held[session_id].lines) if session_id in self.held else 0

    async def update(
        self,
        session_id: str,
        lines: Sequence[str],
        queries: Sequence[FlashQuery],
        rewind: int = 0,
    ) -> Update:
        held = self._at(session_id)
        if self.gate is not None:
            await self.gate.wait()
        if self.errors:
            raise self.errors.popleft()
        count = held.count - rewind + len(lines)
        window = [*held.lines[: len(held.lines) - rewind], *lines]
        window = window[len(window) - window_length(held.window, count) :]
        self._check(held.frozen, [*window, *(query.query for query in queries)])
        held.lines, held.count = window, count
        answers = tuple(
            Answer(q.id, "yes", 0.75, 1.0, probabilities={"yes": 0.75, "no": 0.25}) for q in queries
        )
        return Update(answers, len(lines), len(queries), 0, 1 + len(window), 0.0, 0.0, 1)

    async def generate(
        self, session_id: str, prompt: str, options: GenerateOptions
    ) -> AsyncGenerator[GeneratedPiece]:
        self._at(session_id)
        for place, text in enumerate(self.pieces, start=1):
            ends = place == len(self.pieces)
            yield GeneratedPiece(text, place, place, 0.5, self.finish_reason if ends else None)

    def model_hash_of(self, session_id: str) -> str:
        return self.model_hash

    def count_tokens(self, text: str, session_id: str = "") -> int:
        return len(text.split())

    async def mark_prefix(self, session_id: str) -> None:
        held = self._at(session_id)
        held.frozen += held.lines
        held.lines, held.count = [], 0

    async def close(self, session_id: str, *, forget: bool = False, save: bool = True) -> None:
        self._at(session_id)
        if self.close_errors:
            raise self.close_errors.popleft()
        if save and not forget:
            self.saved[session_id] = list(self.held[session_id].lines)
        del self.held[session_id]

    def _at(self, session_id: str) -> Held:
        if session_id not in self.held:
            raise SessionUnknown(session_id)
        return self.held[session_id]

    def _check(self, frozen: Sequence[str], lines: Sequence[str]) -> None:
        needed = sum(len(line) + 1 for line in (*frozen, *lines))
        if needed > self.room:
            raise ContextFull(f"{needed} of {self.room}")


class Steps:
    """A step writer that keeps everything, and the changelog as it is read back; of an entry
    it takes at most `bytes_max`."""

    atomic = False

    def __init__(self) -> None:
        self.log = SlotsRead()
        self.bytes_max = 1 << 20
        self.letters: list[Write] = []
        self.events: list[Write] = []

    async def publish(
        self, partition: int, refused: list[Write], changelog: list[Write], events: list[Write]
    ) -> None:
        if any(len(one.value or b"") > self.bytes_max for one in changelog):
            raise RequestError("a record is too large for Kafka")
        self.letters += [one for one in refused if one.topic == "letters"]
        for one in changelog:
            self.log.take(one.key or b"", one.value)
        self.events += events


class Bench:
    """An owner over the engine and the writer in memory."""

    def __init__(self, spec: SessionSpec, room: int = 10_000) -> None:
        self.engine = MemoryEngine(room)
        self.steps = Steps()
        self.metrics = Metrics()
        self.outcomes: dict[int, FlashfeedError | None] = {}
        self.listener: Callable[[int, int, FlashfeedError | None], None] | None = None
        self.fatal: list[BaseException] = []
        self.ended: list[str] = []
        self.may_step = asyncio.Event()
        self.may_step.set()
        self.spec = spec
        self.started = False
        self.tracing: Any = None
        self.owner = self.make_owner()

    def make_owner(self) -> SessionOwner:
        engine: Any = self.engine
        return SessionOwner(
            "s",
            0,
            OwnerParts(
                engine=engine,
                steps=self.steps,
                metrics=self.metrics,
                templates=lambda _: self.spec,
                admit=any_feed,
                queue_records_max=10_000,
                topics=TOPICS,
                publish=lambda event: None,
                ended=self.ended.append,
                settled=self.settled,
                fatal=self.fatal.append,
                may_step=self.may_step,
                tracing=self.tracing,
            ),
            Graves(self.steps.log.graves.values()),
        )

    def settled(self, number: int, offset: int, error: FlashfeedError | None) -> None:
        self.outcomes[offset] = error
        if self.listener is not None:
            self.listener(number, offset, error)

    async def apply(self, *waiting: Waiting) -> None:
        """Put messages one by one and wait until each is settled; all agree after it."""
        for one in waiting:
            if self.owner.gone:  # a partition makes another then
                self.owner, self.started = self.make_owner(), False
            self.owner.put(one)
            if not self.started:
                self.owner.start()
                self.started = True
            async with asyncio.timeout(5):
                while one.offset not in self.outcomes and not self.fatal:
                    await asyncio.sleep(0)
                while self.owner.state is None and not (self.owner.gone or self.fatal):
                    await asyncio.sleep(0)
            assert not self.fatal, self.fatal
            self.assert_agreed()

    def assert_agreed(self) -> None:
        """State, engine and changelog hold the same window."""
        states = self.steps.log.states()
        assert not self.steps.log.bad and not self.steps.log.quarantined
        if self.owner.state is None:
            assert states == []
            assert self.engine.held == {}
            return
        state, held = self.owner.state, self.engine.held["s"]
        assert [item.line for item in state.items] == held.lines
        assert (state.head.count, list(state.head.frozen)) == (held.count, held.frozen)
        assert state.head.window == held.window
        [back] = states
        assert (back.head, back.items, back.last) == (state.head, state.items, state.last)

    def halvings(self) -> float:
        return self.metrics.registry.get_sample_value("flashfeed_window_halvings_total") or 0.0

    async def come_back(self, room: int | None = None) -> None:
        """Another worker takes over, from the changelog alone."""
        await self.owner.stop()
        self.engine.room = room or self.engine.room
        self.owner = self.make_owner()
        self.started = False
        for state in self.steps.log.states():
            await self.owner.rebuild(state)

    @property
    def window(self) -> int:
        assert self.owner.state is not None
        return self.owner.state.head.window.items
