"""What a scorecard's answers look like drawn: reliability and learning, as numbers. Pure.

Of the answers that the scorecard keeps (the newest KEPT_MAX).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

from .scorecard import Kept, reliability

_NORMAL_95: Final = 1.959964
_LEAST: Final = 1e-12


class ReliabilityBin(NamedTuple):
    """Answers of about the same confidence: how many, their mean confidence, how often they
    were right, and the 95% interval of that."""

    answers: int
    confidence: float
    right: float
    low: float
    high: float


class LearningPoint(NamedTuple):
    """The mean log loss (nats) of the answers up to a label, counted from 1: of the forecasts,
    of the base rate, and of the last known label."""

    label: int
    own: float
    base_rate: float
    persistence: float


def reliability_bins(kept: Sequence[Kept]) -> list[ReliabilityBin]:
    """The bins of the reliability diagram, least sure first; none of too few answers."""
    if not kept:
        return []
    forecasts = np.array([one.forecast for one in kept])
    labels = np.array([one.label for one in kept])
    found = reliability(forecasts.max(axis=1), forecasts.argmax(axis=1) == labels)
    return [
        ReliabilityBin(n, confidence, right, *wilson_interval(right, n))
        for n, confidence, right in found
    ]


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """The 95% interval of a share seen in n independent cases (Wilson, "Probable Inference, the
    Law of Succession, and Statistical Inference", JASA 22, 1927)."""
    z2 = _NORMAL_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _NORMAL_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def learning_curve(kept: Iterable[Kept], points: int = 200) -> list[LearningPoint]:
    """The running losses at `points` labels at most, evenly apart, the last one among them."""
    answers = list(kept)
    if not answers:
        return []
    curves = [
        _running(answers, share)
        for share in (
            lambda one: one.forecast[one.label],
            lambda one: one.base_rate[one.label],
            lambda one: one.persistence[one.label],
        )
    ]
    n = len(answers)
    places = sorted({round((number + 1) * n / min(points, n)) for number in range(min(points, n))})
    return [LearningPoint(at, *(float(curve[at - 1]) for curve in curves)) for at in places]


def _running(answers: Sequence[Kept], share: Callable[[Kept], float]) -> Sequence[float]:
    losses = [-math.log(max(share(one), _LEAST)) for one in answers]
    means: Sequence[float] = (np.cumsum(losses) / np.arange(1, len(losses) + 1)).tolist()
    return means
