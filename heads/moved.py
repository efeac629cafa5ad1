"""What a probe reads of a hidden state: the state, and how it moved.

A hidden state says, beside the answer, what all of the session's context is like: its price
level, where its window begins, which lines happen to stand in it. That drifts, and a probe that
was fitted on last month's contexts reads this month's badly. What the last answers of the
session had in common is just that, so that it is taken off: beside the state itself stands

    moved = hidden - mean,    mean <- mean + (hidden - mean) / MEMORY_ANSWERS

the mean being that of the question's answers before this one (an exponential mean; of a first
answer nothing has moved). It needs no labels. What is about a level that stays (is it above
140?) is read from the state, what is about the last line from how it moved; the probe's fit
says which. docs/CONFIDENCE.md has what it is worth.
"""

from __future__ import annotations

from typing import Final

import numpy as np

MEMORY_ANSWERS: Final = 3
_LIMIT: Final = float(np.finfo("<f2").max)


def with_move(hidden: bytes, mean: bytes) -> tuple[bytes, bytes]:
    """The hidden state and its move, and the mean after it, all float16, little-endian. A mean
    of another size, as b"", is none: nothing has moved."""
    state = np.frombuffer(hidden, "<f2").astype(np.float32)
    before = np.frombuffer(mean if len(mean) == len(hidden) else hidden, "<f2").astype(np.float32)
    moved = state - before
    row = np.concatenate([state, np.clip(moved, -_LIMIT, _LIMIT)])
    return row.astype("<f2").tobytes(), (before + moved / MEMORY_ANSWERS).astype("<f2").tobytes()
