"""What the engine's measures share: the model, engines that end, timing, what they report."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bare import Bare, DecodeMeter
from llama_server import ServerSettings
from work import CHOICES, choice_tokens, question_tokens

from flashfeed.engine import Engine, EngineSettings, Update
from flashfeed.engine.model import Model
from flashfeed.models.session import FlashQuery

QUIET_S = 0.03
"""Threads of OpenMP spin a few milliseconds after their work: the next side waits so long."""


@dataclass
class Report:
    """What a measure found: figures by name, rows for the table, and remarks in words."""

    figures: dict[str, float] = field(default_factory=dict)
    rows: list[tuple[str, ...]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass
class Rig:
    """The model and how it is run; every side of a comparison is set up from here."""

    path: Path
    model: Model
    threads: int
    quick: bool
    batch_tokens: int = 512
    server: ServerSettings | None = None
    best: ServerSettings | None = None
    in_one_request: bool = False

    @contextlib.asynccontextmanager
    async def engine(self, **settings: Any) -> AsyncIterator[Engine]:
        """A running engine."""
        engine = Engine(
            EngineSettings(
                model_path=self.path,
                threads=self.threads,
                batch_tokens=self.batch_tokens,
                **settings,
            )
        )
        engine.start()
        try:
            yield engine
        finally:
            await engine.stop()

    @contextlib.contextmanager
    def bare(self, cells: int) -> Iterator[Bare]:
        """A context with nothing around it."""
        bare = Bare(
            self.model.handle,
            cells=cells,
            batch_tokens=self.batch_tokens,
            threads=self.threads,
        )
        try:
            yield bare
        finally:
            bare.free()

    @property
    def questions(self) -> list[int]:
        """The tokens of all four questions, one after another."""
        return [token for tokens in question_tokens(self.model) for token in tokens]

    @property
    def filler(self) -> int:
        """Any token."""
        return self.model.tokens("a")[0]

    @property
    def first_choices(self) -> list[list[int]]:
        """The first tokens of each question's choices."""
        return choice_tokens(self.model)


async def timed(
    engine: Engine, session: str, lines: Sequence[str], queries: Sequence[FlashQuery] = CHOICES
) -> tuple[float, Update]:
    """Seconds from the call of an update to all its answers, as its caller sees them."""
    began = time.perf_counter()
    update = await engine.update(session, lines, queries)
    return time.perf_counter() - began, update


async def settle(meter: DecodeMeter) -> None:
    """Wait until nothing was decoded for `QUIET_S`."""
    began = time.perf_counter()
    while min(meter.idle_for(), time.perf_counter() - began) < QUIET_S:
        await asyncio.sleep(QUIET_S / 3)


@contextlib.contextmanager
def endless_answers() -> Iterator[None]:
    """Models that are loaded meanwhile never end a free answer before its max_tokens."""
    begin = Model.__init__

    def without_ends(self: Model, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self.ends = frozenset()

    Model.__init__ = without_ends  # type: ignore[method-assign]
    try:
        yield
    finally:
        Model.__init__ = begin  # type: ignore[method-assign]


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the ratios of what was measured side by side."""
    return median(a / b for a, b in zip(numerators, denominators, strict=True))


def ms(seconds: Sequence[float]) -> str:
    """The median in milliseconds, for the table; nothing where nothing was measured."""
    return f"{median(seconds) * 1000:.0f}" if seconds else ""


def say(text: str) -> None:
    """Progress, beside the results."""
    print(text, file=sys.stderr, flush=True)
