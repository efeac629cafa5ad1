"""Any operation on an engine in any order: what hypothesis may do, one rule each.

Each rule calls the engine as a worker would, sometimes while decodes fail. A call returns
or raises a FlashfeedError, and what it says is what happened: after every rule each
session holds the lines that were applied to it (mirrored.py), and the engine's books are
right (books.py). At the end each session answers as a fresh context does (inv. 5).
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
from hypothesis import HealthCheck, Phase, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flashfeed.engine import DecodeFailed, Engine, EngineSettings, pool
from flashfeed.engine.context import Context
from flashfeed.models.chat import ChatRequest
from flashfeed.models.errors import (
    ContextFull,
    FlashfeedError,
    Overloaded,
    RequestError,
    SessionExists,
    SessionUnknown,
)
from flashfeed.models.generation import GenerateOptions
from flashfeed.models.session import FlashQuery, SessionSpec

from . import asked
from .books import expect_books
from .mirrored import Mirrored

_NAMES: Final = ("s0", "s1", "s2", "s3", "s4", "s5")
_OPERATIONS: Final = (
    *("open", "reopen", "push", "update", "rewind", "generate", "together", "talk over"),
    *("mark_prefix", "evict", "save", "close"),
)
_CALL_S: Final = 120.0
_EXPECTED: Final = (ContextFull, Overloaded, RequestError, SessionExists, SessionUnknown)
"""What a caller may be told while llama.cpp itself does not fail."""


class Faults:
    """Decodes that fail: the one after `after` good ones returns `code`, having run or not."""

    def __init__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.armed: asked.Fault | None = None
        self.failed = 0
        decode = Context._decode

        def failing(context: Context, batch: Any) -> int:
            if self.armed is not None:
                after, code, ran = self.armed
                self.armed = (after - 1, code, ran) if after else None
                if not after:
                    self.failed += 1
                    if ran:
                        assert decode(context, batch) == 0
                    return code
            return decode(context, batch)

        self.patch.setattr(Context, "_decode", failing)
        self.patch.setattr(pool, "_SEAT_WAIT_S", 0.3)  # nobody waits as long as a worker would


def _some_open(machine: AnyOrder) -> bool:
    return machine.made is not None and bool(machine.made.mirrors)


class AnyOrder(RuleBasedStateMachine):
    """The machine. `done` counts, over all runs, operations and (errors) by name."""

    done: ClassVar[Counter[str]] = Counter()
    model_path: ClassVar[Path]

    @classmethod
    def operations(cls) -> int:
        """How many operations were called, refused ones included."""
        return sum(n for what, n in cls.done.items() if what in _OPERATIONS)

    @classmethod
    def run(cls, first_seed: int, *, examples: int, steps: int) -> None:
        """So many runs of at most so many steps, the same ones for the same seed."""
        run_state_machine_as_test(
            seed(first_seed)(cls),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.faults = Faults()
        self.folder = Path(tempfile.mkdtemp(prefix="flashfeed-machine-"))
        self.made: Mirrored | None = None

    @initialize(
        seats=st.integers(2, 5),
        a_context=st.sampled_from((2, 3)),
        batch=st.sampled_from((32, 64, 256)),
        outputs=st.sampled_from((3, 32)),
        snapshots=st.sampled_from((True, True, False)),
        first=st.lists(asked.specs, max_size=3),
    )
    def make(
        self,
        seats: int,
        a_context: int,
        batch: int,
        outputs: int,
        snapshots: bool,
        first: list[SessionSpec],
    ) -> None:
        self.made = Mirrored(
            EngineSettings(
                model_path=self.model_path,
                threads=1,
                context_tokens=256,
                sessions_per_context=a_context,
                sessions_max=5,
                seats_max=seats,
                batch_tokens=batch,
                outputs_max=outputs,
                forks_max=16,
                generations_max=2,
                snapshots=self.folder / "kv" if snapshots else None,
                snapshot_bytes_max=40 << 20,
                snapshot_interval_s=2.0,
            )
        )
        for name, spec in zip(_NAMES, first, strict=False):
            self._call("open", self.all.open(name, spec, [], [], 0))

    @property
    def all(self) -> Mirrored:
        """The sessions, and what they must hold."""
        assert self.made is not None
        return self.made

    @property
    def engine(self) -> Engine:
        return self.all.engine

    def _call(self, what: str, *calls: Coroutine[Any, Any, None]) -> None:
        """Makes the calls at once; each may end well or with an error that it may raise."""
        self.done[what] += len(calls)
        failed = self.faults.failed
        for end in self.loop.run_until_complete(_at_once(calls)):
            if end is None:
                continue
            assert isinstance(end, FlashfeedError), repr(end)
            was_told = self.faults.failed > failed and isinstance(end, DecodeFailed)
            if not (was_told or isinstance(end, _EXPECTED)):
                raise end
            note(f"{what}: {type(end).__name__}: {str(end)[:90]}")
            self.done[f"({type(end).__name__})"] += 1
        self.loop.run_until_complete(expect_books(self.engine))
        self.faults.armed = None

    def _name(self, place: int) -> str:
        names = sorted(self.all.mirrors)
        return names[place % len(names)]

    # -- rules ----------------------------------------------------------------------

    @rule(
        name=st.sampled_from(_NAMES),
        spec=asked.specs,
        frozen=st.lists(asked.lines, max_size=2),
    )
    def open(self, name: str, spec: SessionSpec, frozen: list[str]) -> None:
        if name in self.all.mirrors:
            with pytest.raises((SessionExists, RequestError)):
                self.loop.run_until_complete(self.engine.open(name, spec))
        else:
            self._call("open", self.all.open(name, spec, frozen, [], 0))

    @rule(name=st.sampled_from(_NAMES), keep=st.integers(0, 3))
    def reopen(self, name: str, keep: int) -> None:
        """As a recovery does: with the lines of its window, and some before them."""
        if name in self.all.mirrors or name not in self.all.left:
            return
        old = self.all.left[name]
        items = old.items[max(0, old.start - keep) :]
        self._call("reopen", self.all.open(name, old.spec, old.frozen, items, len(old.items)))

    @precondition(_some_open)
    @rule(place=st.integers(0, 9), lines=asked.batches, queries=asked.queries, fault=asked.faults)
    def update(
        self,
        place: int,
        lines: list[str],
        queries: list[FlashQuery],
        fault: asked.Fault | None,
    ) -> None:
        self.faults.armed = fault
        self._call("update", self.all.update(self._name(place), lines, queries))

    @precondition(_some_open)
    @rule(
        place=st.integers(0, 9),
        lines=st.one_of(asked.batches, st.lists(asked.lines, min_size=4, max_size=6)),
        rewind=st.integers(1, 4),
        queries=asked.queries,
        fault=asked.faults,
    )
    def rewind(
        self, place: int, lines: list[str], rewind: int, queries: Any, fault: asked.Fault | None
    ) -> None:
        """The last lines are written again, and perhaps more after them."""
        self.faults.armed = fault
        self._call("rewind", self.all.update(self._name(place), lines, queries, rewind))

    @precondition(_some_open)
    @rule(place=st.integers(0, 9), n=st.integers(1, 12))
    def push(self, place: int, n: int) -> None:
        """Line after line: windows move again and again."""
        for number in range(n):
            self._call("push", self.all.update(self._name(place), [f"p{number}"], []))

    @precondition(_some_open)
    @rule(
        place=st.integers(0, 9),
        prompt=asked.prompts,
        options=asked.options,
        pieces_max=asked.pieces_max,
        fault=asked.faults,
    )
    def generate(
        self,
        place: int,
        prompt: str | ChatRequest,
        options: GenerateOptions,
        pieces_max: int,
        fault: asked.Fault | None,
    ) -> None:
        self.faults.armed = fault
        self._call("generate", self.all.generate(self._name(place), prompt, options, pieces_max))

    @precondition(_some_open)
    @rule(
        data=st.data(),
        lines=st.lists(st.tuples(asked.batches, asked.queries), min_size=1, max_size=5),
        talks=st.lists(st.tuples(asked.prompts, asked.options, asked.pieces_max), max_size=4),
        fault=asked.faults,
    )
    def together(self, data: Any, lines: Any, talks: Any, fault: Any) -> None:
        """Updates of several sessions, and generations over any of them, at once."""
        names = sorted(self.all.mirrors)
        place = st.sampled_from(names)
        calls = [
            self.all.update(name, *one)
            for name, one in zip(data.draw(st.permutations(names)), lines, strict=False)
        ]
        talking = [self.all.generate(data.draw(place), *one) for one in talks]
        calls = talking + calls if data.draw(st.booleans()) else calls + talking
        self.faults.armed = fault
        self._call("together", *calls)

    @precondition(_some_open)
    @rule(
        place=st.integers(0, 9),
        options=asked.options,
        after=st.integers(0, 3),
        batches=st.lists(asked.batches, min_size=1, max_size=3),
        then=st.sampled_from(("close", "mark_prefix", "evict", "save", "")),
        queries=asked.queries,
    )
    def talk_over(
        self, place: int, options: Any, after: int, batches: Any, then: str, queries: Any
    ) -> None:
        """A generation is read while its session takes data, and then something else."""
        name = self._name(place)

        async def one_after_another() -> None:
            running = self.engine.generate(name, "Go on.", options)
            try:
                for _ in range(after):
                    await anext(running, None)
                for batch in batches:
                    await self.all.update(name, batch, queries)
                    await anext(running, None)
                if then == "close":
                    await self.all.close(name, forget=False)
                elif then == "mark_prefix":
                    await self.all.mark_prefix(name)
                elif then:
                    await getattr(self.engine, then)(name)
                rest = [piece async for piece in running]
                assert not rest or rest[-1].finish_reason is not None
            finally:
                await running.aclose()

        self._call("talk over", one_after_another())

    @precondition(_some_open)
    @rule(place=st.integers(0, 9), fault=asked.faults)
    def mark_prefix(self, place: int, fault: asked.Fault | None) -> None:
        self.faults.armed = fault
        self._call("mark_prefix", self.all.mark_prefix(self._name(place)))

    @precondition(_some_open)
    @rule(places=st.sets(st.integers(0, 5), min_size=1), fault=asked.faults)
    def mark_prefixes(self, places: set[int], fault: asked.Fault | None) -> None:
        names = sorted({self._name(place) for place in places})
        self.faults.armed = fault
        self._call("mark_prefix", *(self.all.mark_prefix(name) for name in names))

    @precondition(_some_open)
    @rule(place=st.integers(0, 9))
    def evict(self, place: int) -> None:
        self._call("evict", self.engine.evict(self._name(place)))

    @precondition(_some_open)
    @rule(place=st.integers(0, 9))
    def save(self, place: int) -> None:
        self._call("save", self.engine.save(self._name(place)))

    @precondition(_some_open)
    @rule(place=st.integers(0, 9), forget=st.booleans())
    def close(self, place: int, forget: bool) -> None:
        self._call("close", self.all.close(self._name(place), forget))

    @rule(name=st.sampled_from(("nobody", "", "s\ud800")))
    def unknown(self, name: str) -> None:
        for call in (self.engine.update(name, ["x"], ()), self.engine.mark_prefix(name)):
            with pytest.raises(SessionUnknown):
                self.loop.run_until_complete(call)

    # -- what is true between them --------------------------------------------------

    @invariant()
    def sessions_hold_what_was_applied(self) -> None:
        if self.made is not None:
            self.loop.run_until_complete(self.made.expect_mirrored())

    def teardown(self) -> None:
        self.faults.armed = None
        try:
            if self.made is not None:
                self.done["compared"] += self.loop.run_until_complete(self.made.expect_fresh())
        finally:
            self.faults.patch.undo()
            if self.made is not None:
                self.loop.run_until_complete(self.made.stop())
            self.loop.close()
            shutil.rmtree(self.folder, ignore_errors=True)


async def _at_once(calls: Sequence[Coroutine[Any, Any, None]]) -> list[BaseException | None]:
    ended = asyncio.gather(*calls, return_exceptions=True)
    return await asyncio.wait_for(ended, _CALL_S)
