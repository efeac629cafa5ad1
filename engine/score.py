"""From rows of logits to answers. Pure numpy; a row is one float32 array over the vocabulary.

Log-probabilities are natural logarithms, at temperature 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Row: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Picked:
    """A token, its log-probability, and its logit less the best other token's.

    `top` are the likeliest tokens with their log-probabilities, where asked for.
    """

    token: int
    log_probability: float
    gap: float
    top: tuple[tuple[int, float], ...] = ()


def log_normaliser(row: Row) -> float:
    """log(sum(exp(row))): a token's log-probability is its logit less this."""
    peak = float(row.max())
    return peak + math.log(float(np.exp(row - np.float32(peak)).sum()))


def pick_greedy(row: Row, with_gap: bool = False) -> Picked:
    """The likeliest token. `gap` is 0 unless asked for, which takes a second look."""
    token = int(row.argmax())
    peak = float(row[token])
    gap = 0.0
    if with_gap:
        others = row.copy()
        others[token] = -np.inf
        gap = peak - float(others.max())
    return Picked(token, peak - log_normaliser(row), gap)


def token_log_probability(row: Row, token: int) -> float:
    """The log-probability of one token."""
    return float(row[token]) - log_normaliser(row)


def softmax(scores: Sequence[float]) -> list[float]:
    """Probabilities of the choices from their summed log-probabilities."""
    peak = max(scores)
    weights = [math.exp(score - peak) for score in scores]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def geometric_mean(log_probabilities: Sequence[float]) -> float:
    """The geometric mean of the probabilities, in 0..1; 0 where there are none."""
    if not log_probabilities:
        return 0.0
    return min(1.0, math.exp(math.fsum(log_probabilities) / len(log_probabilities)))
