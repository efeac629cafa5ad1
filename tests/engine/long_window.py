"""A session under an exact window for as many windows' worth of records as wanted, with
sampled updates held against a fresh context (invariants 4 and 5)."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from flashfeed.engine import Engine
from flashfeed.engine.model import Model
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec
from flashfeed.models.window import window_start

from .conftest import LOGITS_WITHIN, NEAR_TIE, Fresh, Recorder

N = 8
SPEC = SessionSpec(type="iot", prompt="Watch.", window=WindowSpec("exact", N), context=384)
UP = FlashQuery(id=1, query="Rising?", choices=("yes", "no"))
QUESTIONS = (
    UP,
    FlashQuery(id=2, query="Alert?", choices=("no", "yes")),
    FlashQuery(id=3, query="Which?", choices=("red hot", "blue cold", "green")),
    FlashQuery(id=4, query="Trend?", choices=("up", "down", "flat")),
)


@dataclass
class Report:
    """What was seen. `worst` is the largest difference of a logit from the fresh
    context's, `wrong` counts other best tokens, near ties (`ties`) apart."""

    windows: int = 0
    sampled: int = 0
    worst: float = 0.0
    wrong: int = 0
    ties: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """The median time of the last tenth of the updates over that of the second tenth."""
        tenth = len(self.seconds) // 10
        return statistics.median(self.seconds[-tenth:]) / statistics.median(
            self.seconds[tenth : 2 * tenth]
        )

    @property
    def is_fresh(self) -> bool:
        """Whether every sampled update was as invariant 5 wants it."""
        return self.sampled > 0 and self.worst <= LOGITS_WITHIN and self.wrong == 0

    def compare(self, fresh: NDArray[np.float32], row: NDArray[np.float32]) -> None:
        """Counts a sampled update."""
        self.sampled += 1
        self.worst = max(self.worst, float(np.abs(fresh - row).max()))
        if fresh.argmax() != row.argmax():
            best, second = np.sort(fresh)[-2:][::-1]
            tie = best - second <= NEAR_TIE
            self.ties += tie
            self.wrong += not tie


def line(n: int) -> str:
    """A short reading."""
    return f"p{n * 7 % 50} {n % 10}"


async def run_windows(
    engine: Engine,
    model: Model,
    fresh: Fresh,
    name: str,
    *,
    windows: int,
    records_max: int = 1,
    sample_every: int = 13,
    questions_always: bool = True,
    progress: Callable[[Report], None] = lambda report: None,
) -> Report:
    """`windows` times N records, by turns 1 to `records_max` an update, with 2 to 4 questions
    each, or only those updates that are sampled."""
    report = Report()
    await engine.open(name, SPEC)
    session = engine._open_sessions()[name]
    question = (*model.tokens(UP.query), *model.tail)
    count = number = 0
    while count < windows * N:
        lines = [line(n) for n in range(count, count + 1 + number % records_max)]
        count += len(lines)
        queries = QUESTIONS[: 2 + number % 3]
        if number % sample_every:
            update = await engine.update(name, lines, queries if questions_always else ())
        else:
            patch = pytest.MonkeyPatch()
            await engine.save(name)  # behind it, the next window is up to date
            recorders = [Recorder(seat.group.context, patch) for seat in session.seats]
            update = await engine.update(name, lines, queries)
            patch.undo()
            answered = next(one for one in recorders if one.rows)
            window = [line(n) for n in range(window_start(SPEC.window, count), count)]
            items = [token for one in window for token in model.tokens(one + "\n")]
            reference = fresh.row((*session.prefix, *items, *question))
            report.compare(reference, answered.rows[0])
        assert update.decodes == 1, "history was decoded again"
        report.seconds.append(update.wall_s)
        report.windows = count // N
        if number % (50 * N) == 0:
            progress(report)
        number += 1
    await engine.close(name, forget=True)
    return report
