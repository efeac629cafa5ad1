"""Scaling: known slopes and biases are found again, and what says nothing gives the base rate."""

from __future__ import annotations

import numpy as np
import pytest

from flashfeed.heads.softmax import PROBABILITY_MIN, bounded, fit_scaling, softmax, unbounded


@pytest.mark.parametrize(
    ("slope", "bias"),
    [(1.0, (0.0, 0.0)), (0.3, (0.5, -0.5)), (4.0, (0.0, 1.0, -1.0)), (-1.0, (0.2, -0.2))],
)
def test_a_known_scaling_is_found_again(slope: float, bias: tuple[float, ...]) -> None:
    draw = np.random.default_rng(1)
    scores = draw.normal(size=(4000, len(bias)))
    scores -= scores.mean(axis=1, keepdims=True)
    shares = softmax(slope * scores + np.array(bias))
    labels = np.array([draw.choice(len(bias), p=row) for row in shares])
    fitted = fit_scaling(scores, labels)
    assert fitted.slope == pytest.approx(slope, abs=0.15)
    assert fitted.bias - fitted.bias.mean() == pytest.approx(np.array(bias), abs=0.15)


def test_scores_that_say_nothing_give_the_base_rate() -> None:
    draw = np.random.default_rng(2)
    labels = (draw.random(2000) < 0.2).astype(np.int64)
    fitted = fit_scaling(draw.normal(size=(2000, 2)) * 50, labels)
    assert fitted.apply(np.array([80.0, -80.0]))[1] == pytest.approx(labels.mean(), abs=0.05)


def test_scores_that_say_all_stay_within_the_bounds() -> None:
    labels = np.arange(40) % 2
    scores = np.eye(2)[labels] * 1000
    shares = fit_scaling(scores, labels).apply(scores)
    assert np.isfinite(shares).all()
    assert (shares.argmax(axis=1) == labels).all()
    assert shares.min() >= PROBABILITY_MIN


def test_bounded_probabilities_add_up_to_one() -> None:
    shares = bounded(np.array([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]))
    assert shares.sum(axis=1) == pytest.approx(1.0)
    assert shares.min() >= PROBABILITY_MIN


def test_what_was_bounded_is_found_again() -> None:
    for shares in ([0.7, 0.3], [1.0, 0.0], [0.5, 0.499, 1e-3], [1e-7, 1 - 1e-7]):
        row = np.array(shares)
        assert unbounded(bounded(row)) == pytest.approx(row, rel=1e-6, abs=1e-15)
        assert (unbounded(bounded(row)) >= 0).all()
