"""One engine over the packaged model for the whole folder, and fresh contexts to check it by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from flashfeed.engine import Engine, EngineSettings, fastest_form, find_packaged_model
from flashfeed.engine.context import Context, Decoded
from flashfeed.engine.model import Model
from flashfeed.engine.plan import Pass, Run, cut
from flashfeed.engine.seats import Seat

_numbers = count()
LOGITS_WITHIN, NEAR_TIE = 0.1, 0.2


def seat_of(engine: Engine, session_id: str) -> Seat:
    """The seat that answers for a session."""
    seat = engine._open_sessions()[session_id].senior
    assert seat is not None
    return seat


def tokens_of(engine: Engine, session_id: str) -> list[int]:
    """The tokens that a session answers over."""
    session, seat = engine._open_sessions()[session_id], seat_of(engine, session_id)
    return [*session.prefix, *session.tokens(seat.start, seat.end)]


@pytest.fixture(scope="session")
def model_path() -> Path:
    return fastest_form(find_packaged_model())


@pytest_asyncio.fixture(scope="session")
async def engine(model_path: Path) -> AsyncIterator[Engine]:
    # One thread: threads that wait for one another make a busy machine slower still.
    settings = EngineSettings(
        model_path=model_path, threads=1, context_tokens=512, batch_tokens=256
    )
    one = Engine(settings)
    one.start()
    yield one
    await one.stop()


@pytest.fixture(scope="session")
def model(engine: Engine) -> Model:
    return engine._open_sessions().model


@pytest.fixture
def name() -> str:
    """A session id that no other test has."""
    return f"session-{next(_numbers)}"


def expect_agrees(fresh: NDArray[np.float32], row: NDArray[np.float32]) -> None:
    """Invariant 5's rule: the logits are near a fresh context's, and so is their best."""
    assert float(np.abs(fresh - row).max()) <= LOGITS_WITHIN
    best, second = np.sort(fresh)[-2:][::-1]
    if best - second > NEAR_TIE:
        assert fresh.argmax() == row.argmax()


class Fresh:
    """A context of its own, in which tokens are decoded from the beginning."""

    def __init__(self, model: Model, settings: EngineSettings) -> None:
        self.context = Context(model, settings, 2048)

    def row(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits after the tokens."""
        return self.rows(tokens, 1)[-1]

    def rows(self, tokens: Sequence[int], n: int) -> list[NDArray[np.float32]]:
        """The logits after each of the last n tokens."""
        self.context.clear()
        wanted = tuple(range(len(tokens) - n, len(tokens)))
        kept: list[NDArray[np.float32]] = []
        for one in cut((Run(tuple(tokens), 0, (0,), wanted),), self.context.limits):
            kept.extend(row.copy() for row in self.context.run(one).rows)
        return kept


@pytest.fixture(scope="session")
def fresh(engine: Engine, model: Model) -> Iterator[Fresh]:
    one = Fresh(model, engine.settings)
    yield one
    one.context.free()


class Recorder:
    """Keeps what a context runs: the passes, and copies of their rows."""

    def __init__(self, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passes: list[Pass] = []
        self.rows: list[NDArray[np.float32]] = []
        run = context.run

        def recorded(one: Pass) -> Decoded:
            decoded = run(one)
            self.passes.append(one)
            self.rows.extend(row.copy() for row in decoded.rows)
            return decoded

        monkeypatch.setattr(context, "run", recorded)
