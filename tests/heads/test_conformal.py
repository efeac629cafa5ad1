"""Answer sets hold the truth 9 times of 10: for good forecasts, bad ones, and drifting ones."""

from __future__ import annotations

import numpy as np
import pytest

from flashfeed.heads.conformal import COVERAGE, AdaptiveSets
from flashfeed.heads.softmax import Matrix, softmax


def run(forecasts: Matrix, labels: Matrix) -> tuple[float, float]:
    """How often the label was inside, and how large the sets were, over the second half."""
    sets = AdaptiveSets()
    inside, sizes = [], []
    for forecast, label in zip(forecasts, labels, strict=True):
        answers = sets.answers(forecast)
        inside.append(int(label) in answers)
        sizes.append(len(answers))
        sets.learn(int(label), answers)
    half = len(labels) // 2
    return float(np.mean(inside[half:])), float(np.mean(sizes[half:]))


@pytest.mark.parametrize("sureness", [0.2, 1.0, 5.0])
def test_coverage_comes_to_the_target_however_sure_the_forecasts_are(sureness: float) -> None:
    draw = np.random.default_rng(4)
    scores = draw.normal(size=(6000, 4)) * 2
    labels = np.array([draw.choice(4, p=row) for row in softmax(scores)])
    coverage, _ = run(softmax(sureness * scores), labels)
    assert coverage == pytest.approx(COVERAGE, abs=0.03)


def test_coverage_comes_back_after_the_forecasts_turn_wrong() -> None:
    draw = np.random.default_rng(5)
    scores = draw.normal(size=(8000, 4)) * 2
    labels = np.array([draw.choice(4, p=row) for row in softmax(scores)])
    labels[3000:] = (labels[3000:] + 1) % 4
    coverage, size = run(softmax(scores), labels)
    assert coverage == pytest.approx(COVERAGE, abs=0.03)
    assert size > 2.5


def test_good_forecasts_give_small_sets_and_useless_ones_large_sets() -> None:
    draw = np.random.default_rng(6)
    labels = draw.integers(0, 4, 4000)
    sharp = softmax(np.eye(4)[labels] * 8.0)
    useless = softmax(draw.normal(size=(4000, 4)))
    assert run(sharp, labels)[1] < 1.2
    assert run(useless, labels)[1] > 3.4


def test_a_set_begins_with_the_likeliest_and_is_never_empty() -> None:
    assert AdaptiveSets(0.0).answers(np.array([0.1, 0.7, 0.2])) == (1,)
    assert AdaptiveSets(0.8).answers(np.array([0.1, 0.7, 0.2])) == (1, 2)
    assert AdaptiveSets(1.01).answers(np.array([0.1, 0.7, 0.2])) == (1, 2, 0)
