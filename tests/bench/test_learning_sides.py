"""bench/learning_sides.py: the side that learns does what a worker does for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flashfeed.engine import Update
from flashfeed.models.session import Answer

from session_bench import MemoryEngine

N_EMBD = 4


class Knowing(MemoryEngine):
    """The engine in memory, with hidden states."""

    async def update(self, *args: Any, **more: Any) -> Update:
        done = await super().update(*args, **more)
        choices = {"no": 0.4, "yes": 0.6}
        answers = tuple(
            Answer(one.query_id, "yes", 0.6, 0.4, probabilities=choices) for one in done.answers
        )
        hidden = (np.ones(N_EMBD, "<f2").tobytes(),) * len(answers)
        return replace(done, answers=answers, hidden=hidden)


@pytest.mark.parametrize("learns", [True, False])
async def test_each_update_of_the_side_that_learns_teaches_each_of_its_heads(
    monkeypatch: pytest.MonkeyPatch, learns: bool
) -> None:
    import learning_sides

    monkeypatch.setattr(learning_sides, "EXAMPLES_MAX", 40)
    engine: Any = Knowing(room=1_000_000)
    side = learning_sides.Side(engine, learns, N_EMBD)
    await side.start(history=10)
    for _ in range(8):
        assert await side.take() > 0
    await side.rest()
    # Those of the last five records wait for their outcomes.
    known = 1 + 8 - 5
    assert side.labels == (known * len(learning_sides.ASKED) if learns else 0)
    state = side.state
    assert state is not None
    assert [one.answered_by.head for one in state.head.answers] == (
        ["mixed" if learns else None] * len(learning_sides.ASKED)
    )
    await side.stop()
