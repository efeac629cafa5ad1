"""How right a question's answers were: predict first, then learn (Dawid's prequential way).

Every figure is of forecasts that were published before their labels were known. Sums run
over all labels; what needs the forecasts themselves (AUC, calibration, sharpness, coverage) is
of the newest KEPT_MAX.

brier        mean over the labels of sum_k (p_k - [label is k])^2, halved: 0 is best, and for
             two choices it is (p - y)^2 (Brier, Monthly Weather Review 78, 1950)
skill        1 - brier / brier of a reference: 0 is as good as it, below 0 worse, 1 perfect
log_loss     mean of -ln p of the label, in nats
accuracy     how often the likeliest choice was the label
auc          how likely a random answer that was a choice ranks above one that was not
             (Mann and Whitney); of more than two choices the mean of one against the rest
ece          expected calibration error (Naeini, Cooper and Hauskrecht, AAAI 2015): the mean of
             |confidence - accuracy| over bins of equal mass (Nguyen and O'Connor, EMNLP 2015).
             n^(1/3) of them (Futami and Fujisawa, NeurIPS 2024), for chance alone looks like
             an error where bins have few answers; what is left of that falls as n^(-1/3).
             No bin is merged for what was right in it: errors of opposite sign stay errors
sharpness    mean confidence less its own lowest value 1/n: how far from "I do not know"
coverage     how often the label was in the conformal set, set_size how many were in it
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from flashfeed.models.learning import Forecast, Prediction

from .softmax import Matrix

KEPT_MAX: Final = 2000
BIN_LABELS_MIN: Final = 20
_NORMAL_95: Final = 1.96
_SUMMED: Final = (
    "brier",
    "base_rate",
    "persistence",
    "log_loss",
    "right",
    "paired",
    "brier_squared",
    "brier_base_rate",
    "base_rate_squared",
)
"""What runs over the labels: losses, how many were right, and the squares and products that the
skill's interval is made of, `paired` labels of them."""


class Scores(msgspec.Struct, frozen=True):
    """A question's figures. None where there are too few labels to say. `skill_low` and
    `skill_high` are the 95% interval of the skill over the base rate, of all labels as it is."""

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
        self.sums = dict.fromkeys(_SUMMED, 0.0)
        self.kept: deque[Kept] = deque(maxlen=KEPT_MAX)
        # The same as numbers, in a ring: the learner asks for scores after every chunk of
        # examples, and to make arrays of 2,000 structs took most of their time.
        self._numbers = np.empty((KEPT_MAX, n_choices + 3))
        self._next = 0

    def learn(self, prediction: Prediction, label: int) -> None:
        """One more label, of an answer that was predicted so."""
        forecast = prediction.forecast
        base, persistence = prediction.parts["base_rate"], prediction.parts["persistence"]
        own, reference = brier(forecast, label), brier(base, label)
        self.labels += 1
        self.sums["brier"] += own
        self.sums["base_rate"] += reference
        self.sums["paired"] += 1
        self.sums["brier_squared"] += own * own
        self.sums["brier_base_rate"] += own * reference
        self.sums["base_rate_squared"] += reference * reference
        self.sums["persistence"] += brier(persistence, label)
        self.sums["log_loss"] -= math.log(max(forecast[label], 1e-12))
        self.sums["right"] += max(range(self.n_choices), key=forecast.__getitem__) == label
        answers = prediction.answers
        one = Kept(forecast, base, persistence, label, len(answers), label in answers)
        self.kept.append(one)
        self._numbers[self._next] = (*forecast, label, one.set_size, one.inside)
        self._next = (self._next + 1) % KEPT_MAX

    def resume(self, labels: int, sums: Mapping[str, float]) -> None:
        """Goes on from what was summed over `labels` labels, of which the newest were learnt
        here again. What is not in `sums`, because an older version wrote them, stays the sum of
        those."""
        self.labels = labels
        self.sums |= {name: sums[name] for name in _SUMMED if name in sums}

    def scores(self) -> Scores:
        """The figures up to here."""
        n = self.labels
        if not self.kept:
            return Scores(n)
        rows = np.roll(self._numbers, -self._next, axis=0)[-len(self.kept) :]
        forecasts, others = np.split(rows, (self.n_choices,), 1)
        labels = others[:, 0].astype(np.int64)
        low, high = skill_interval(n, self.sums)
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
            ece=calibration_error(forecasts.max(axis=1), forecasts.argmax(axis=1) == labels),
            sharpness=float(forecasts.max(axis=1).mean()) - 1 / self.n_choices,
            coverage=float(sized[:, 2].mean()) if len(sized) else None,
            set_size=float(sized[:, 1].mean()) if len(sized) else None,
        )


def brier(forecast: Sequence[float], label: int) -> float:
    """Half the squared distance of a forecast from what came."""
    return 0.5 * math.fsum((p - (k == label)) ** 2 for k, p in enumerate(forecast))


def _skill(own: float, reference: float) -> float | None:
    return 1 - own / reference if reference > 0 else None


def skill_interval(labels: int, sums: Mapping[str, float]) -> tuple[float | None, float | None]:
    """The 95% interval of 1 - mean(own) / mean(reference) over `labels` pairs (delta method;
    Cochran, "Sampling Techniques", 3rd edition, 1977, section 2.11), from the sums over them.

    The residuals own - ratio * reference have mean 0 over all pairs. Where their squares are of
    the newest pairs alone (a score that an older version began) their spread is that of those.
    Neighbouring answers are not independent, so that the true interval is wider.
    """
    paired = sums["paired"]
    if labels < BIN_LABELS_MIN or paired < BIN_LABELS_MIN or not sums["base_rate"]:
        return None, None
    ratio = sums["brier"] / sums["base_rate"]
    squares = (
        sums["brier_squared"]
        - 2 * ratio * sums["brier_base_rate"]
        + ratio * ratio * sums["base_rate_squared"]
    )
    spread = math.sqrt(max(0.0, squares) / (paired - 1))  # rounding may take a 0 below it
    half = _NORMAL_95 * spread * math.sqrt(labels) / sums["base_rate"]
    return 1 - ratio - half, 1 - ratio + half


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


def calibration_error(
    confidences: Matrix, right: NDArray[np.bool_], bins: int | None = None
) -> float | None:
    """The expected calibration error over the bins of `reliability`; None where it has none."""
    found = reliability(confidences, right, bins)
    if not found:
        return None
    gaps = [n * abs(confidence - accuracy) for n, confidence, accuracy in found]
    return math.fsum(gaps) / len(confidences)


def reliability(
    confidences: Matrix, right: NDArray[np.bool_], bins: int | None = None
) -> list[tuple[int, float, float]]:
    """The bins of the reliability diagram, least sure first: answers, mean confidence, how often
    right. `bins` of about equal mass at most, by default as many as the answers bear; answers
    that are as sure as one another are in one. None below BIN_LABELS_MIN answers."""
    n = len(confidences)
    if n < BIN_LABELS_MIN:
        return []
    most = bins or max(1, min(math.ceil(math.cbrt(n)), n // BIN_LABELS_MIN))
    # By rank, which equals share: to cut between them would be to sort them by chance.
    places = ((_ranks(confidences) - 0.5) * most / n).astype(np.int64)
    counts = np.bincount(places)
    sums = np.bincount(places, confidences), np.bincount(places, right)
    return [
        (int(count), float(sure / count), float(hits / count))
        for count, sure, hits in zip(counts, *sums, strict=True)
        if count
    ]
