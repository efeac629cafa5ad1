"""How right a question's answers were: predict first, then learn (Dawid's prequential way).

Every figure is of forecasts that were published before their labels were known. Sums run
over all labels; what needs the forecasts themselves (AUC, calibration, sharpness, the
interval) is of the newest KEPT_MAX.

brier        mean over the labels of sum_k (p_k - [label is k])^2, halved: 0 is best, and for
             two choices it is (p - y)^2 (Brier, Monthly Weather Review 78, 1950)
skill        1 - brier / brier of a reference: 0 is as good as it, below 0 worse, 1 perfect
log_loss     mean of -ln p of the label, in nats
accuracy     how often the likeliest choice was the label
auc          how likely a random answer that was a choice ranks above one that was not
             (Mann and Whitney); of more than two choices the mean of one against the rest
ece          expected calibration error: |confidence - accuracy| over bins of equal mass,
             merged until neighbours rise (the adaptive bins of isotonic regression are so
             made: pool adjacent violators), which few labels do not inflate as fixed bins do
sharpness    mean confidence less its own lowest value 1/n: how far from "I do not know"
coverage     how often the label was in the conformal set, set_size how many were in it
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from flashfeed.models.learning import Forecast, Prediction

from .softmax import Matrix

KEPT_MAX: Final = 2000
BIN_LABELS_MIN: Final = 20
_NORMAL_95: Final = 1.96


class Scores(msgspec.Struct, frozen=True):
    """A question's figures. None where there are too few labels to say. `skill_low` and
    `skill_high` are the 95% interval of the skill over the base rate."""

    labels: int
    brier: float | None = None
    skill_base_rate: float | None = None
    skill_low: float | None = None
    skill_high: float | None = None
    skill_persistence: float | None = None
    log_loss: float | None = None
    accuracy: float | None = None
    auc: float | None = None
    ece: float | None = None
    sharpness: float | None = None
    coverage: float | None = None
    set_size: float | None = None


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """One scored answer."""

    forecast: Forecast
    base_rate: Forecast
    persistence: Forecast
    label: int
    set_size: int
    inside: bool


class Scorecard:
    """The running score of one question."""

    def __init__(self, n_choices: int) -> None:
        self.n_choices = n_choices
        self.labels = 0
        self.sums = {
            name: 0.0 for name in ("brier", "base_rate", "persistence", "log_loss", "right")
        }
        self.kept: deque[Kept] = deque(maxlen=KEPT_MAX)
        # The same as numbers, in a ring: the learner asks for scores after every chunk of
        # examples, and to make arrays of 2,000 structs took most of their time.
        self._numbers = np.empty((KEPT_MAX, 2 * n_choices + 3))
        self._next = 0

    def learn(self, prediction: Prediction, label: int) -> None:
        """One more label, of an answer that was predicted so."""
        forecast = prediction.forecast
        base, persistence = prediction.parts["base_rate"], prediction.parts["persistence"]
        self.labels += 1
        self.sums["brier"] += brier(forecast, label)
        self.sums["base_rate"] += brier(base, label)
        self.sums["persistence"] += brier(persistence, label)
        self.sums["log_loss"] -= math.log(max(forecast[label], 1e-12))
        self.sums["right"] += max(range(self.n_choices), key=forecast.__getitem__) == label
        answers = prediction.answers
        one = Kept(forecast, base, persistence, label, len(answers), label in answers)
        self.kept.append(one)
        self._numbers[self._next] = (*forecast, *base, label, one.set_size, one.inside)
        self._next = (self._next + 1) % KEPT_MAX

    def scores(self) -> Scores:
        """The figures up to here."""
        n = self.labels
        if not self.kept:
            return Scores(n)
        rows = np.roll(self._numbers, -self._next, axis=0)[-len(self.kept) :]
        forecasts, base_rates, others = np.split(rows, (self.n_choices, 2 * self.n_choices), 1)
        labels = others[:, 0].astype(np.int64)
        low, high = skill_interval(_briers(forecasts, labels), _briers(base_rates, labels))
        sized = others[others[:, 1] > 0]
        return Scores(
            labels=n,
            brier=self.sums["brier"] / n,
            skill_base_rate=_skill(self.sums["brier"], self.sums["base_rate"]),
            skill_low=low,
            skill_high=high,
            skill_persistence=_skill(self.sums["brier"], self.sums["persistence"]),
            log_loss=self.sums["log_loss"] / n,
            accuracy=self.sums["right"] / n,
            auc=auc(forecasts, labels),
            ece=adaptive_ece(forecasts.max(axis=1), forecasts.argmax(axis=1) == labels),
            sharpness=float(forecasts.max(axis=1).mean()) - 1 / self.n_choices,
            coverage=float(sized[:, 2].mean()) if len(sized) else None,
            set_size=float(sized[:, 1].mean()) if len(sized) else None,
        )


def brier(forecast: Sequence[float], label: int) -> float:
    """Half the squared distance of a forecast from what came."""
    return 0.5 * math.fsum((p - (k == label)) ** 2 for k, p in enumerate(forecast))


def _briers(forecasts: Matrix, labels: NDArray[np.int64]) -> Matrix:
    """`brier` of many forecasts at once: scores are worked out after every chunk of examples,
    beside the engine."""
    truth = np.eye(forecasts.shape[1])[labels]
    return np.asarray(0.5 * ((forecasts - truth) ** 2).sum(axis=1))


def _skill(own: float, reference: float) -> float | None:
    return 1 - own / reference if reference > 0 else None


def skill_interval(
    own: Sequence[float] | Matrix, reference: Sequence[float] | Matrix
) -> tuple[float | None, float | None]:
    """The 95% interval of 1 - mean(own) / mean(reference), pairs by pairs (delta method).

    Neighbouring answers are not independent, so that the true interval is wider.
    """
    a, b = np.asarray(own), np.asarray(reference)
    if len(a) < BIN_LABELS_MIN or not b.sum():
        return None, None
    ratio = float(a.mean() / b.mean())
    error = float((a - ratio * b).std(ddof=1) / b.mean()) / math.sqrt(len(a))
    return 1 - ratio - _NORMAL_95 * error, 1 - ratio + _NORMAL_95 * error


def auc(forecasts: Matrix, labels: NDArray[np.int64]) -> float | None:
    """The area under the ROC curve; None where all labels are the same."""
    areas = []
    for choice in range(forecasts.shape[1]):
        positive = labels == choice
        n, m = int(positive.sum()), int((~positive).sum())
        if n and m:
            ranks = _ranks(forecasts[:, choice])
            areas.append((float(ranks[positive].sum()) - n * (n + 1) / 2) / (n * m))
    return sum(areas) / len(areas) if areas else None


def _ranks(values: Matrix) -> Matrix:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse], np.float64)


def binned_ece(confidences: Matrix, right: NDArray[np.bool_], bins: int = 10) -> float:
    """The calibration error over so many bins of equal mass."""
    parts = np.array_split(np.argsort(confidences, kind="stable"), bins)
    gaps = [
        len(part) * abs(float(confidences[part].mean()) - float(right[part].mean()))
        for part in parts
        if len(part)
    ]
    return math.fsum(gaps) / len(confidences)


def adaptive_ece(confidences: Matrix, right: NDArray[np.bool_]) -> float | None:
    """The calibration error over bins of BIN_LABELS_MIN answers and more, neighbours pooled
    where the answers of the surer bin were right less often."""
    bins = reliability(confidences, right)
    if not bins:
        return None
    total = sum(n for n, _, _ in bins)
    return math.fsum(n * abs(confidence - accuracy) for n, confidence, accuracy in bins) / total


def reliability(confidences: Matrix, right: NDArray[np.bool_]) -> list[tuple[int, float, float]]:
    """The bins of the reliability diagram: answers, mean confidence, how often right."""
    n = len(confidences)
    if n < BIN_LABELS_MIN:
        return []
    order = np.argsort(confidences, kind="stable")
    pooled: list[tuple[int, float, float]] = []
    for part in np.array_split(order, max(1, min(20, n // BIN_LABELS_MIN))):
        one = (len(part), float(confidences[part].mean()), float(right[part].mean()))
        while pooled and pooled[-1][2] > one[2]:
            before = pooled.pop()
            size = before[0] + one[0]
            one = (
                size,
                (before[0] * before[1] + one[0] * one[1]) / size,
                (before[0] * before[2] + one[0] * one[2]) / size,
            )
        pooled.append(one)
    return pooled
