"""Answer sets that hold the true answer 9 times of 10, whatever the forecasts are worth.

Adaptive conformal inference (Gibbs and Candes, "Adaptive Conformal Inference Under
Distribution Shift", NeurIPS 2021): an answer's set takes the choices from the likeliest on
until they hold a share of `level`; where the true answer was outside, `level` rises by
STEP * COVERAGE, where it was inside, it falls by STEP * (1 - COVERAGE). So the share of
answers inside comes to COVERAGE in the long run also where the data drifts. A set of all
choices says that the question cannot be answered, one of a single choice that it can.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .softmax import Matrix

COVERAGE: Final = 0.9
STEP: Final = 0.02
LEVEL_MAX: Final = 1.0 + STEP


class AdaptiveSets:
    """The sets of one question's answers."""

    def __init__(self, level: float = COVERAGE) -> None:
        self.level = level

    def answers(self, forecast: Matrix) -> tuple[int, ...]:
        """The choices in the answer's set, the likeliest first; at least that one."""
        order = np.argsort(-forecast, kind="stable")
        held = 0.0
        taken: list[int] = []
        for choice in order:
            # The last choice comes in where `level` is about 1.
            if taken and held >= self.level:
                break
            taken.append(int(choice))
            held += float(forecast[choice])
        return tuple(taken)

    def learn(self, label: int, answers: tuple[int, ...]) -> None:
        """The label of an answer whose set that was."""
        inside = label in answers
        moved = self.level - STEP * (1 - COVERAGE) if inside else self.level + STEP * COVERAGE
        self.level = min(max(moved, 0.0), LEVEL_MAX)
