"""The probe finds a direction that is there, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from flashfeed.heads.probe import _left_out, fit_probe
from flashfeed.heads.scorecard import auc
from flashfeed.heads.softmax import Matrix


def data(n: int, dims: int, strength: float, seed: int = 0) -> tuple[Matrix, Matrix]:
    """Hidden states of which one random direction says the label; of scales that differ."""
    draw = np.random.default_rng(seed)
    direction = draw.normal(size=dims) / np.sqrt(dims)
    rows = draw.normal(size=(n, dims))
    odds = strength * rows @ direction
    labels = (draw.random(n) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    return rows * np.exp(draw.normal(size=dims)) + 3, labels


@pytest.mark.parametrize(("n", "dims"), [(600, 40), (400, 576)])
def test_a_direction_is_found_with_more_and_with_fewer_examples_than_numbers(
    n: int, dims: int
) -> None:
    rows, labels = data(n + 400, dims, strength=8.0)
    forecasts = fit_probe(rows[:n], labels[:n], 2).apply(rows[n:])
    found = auc(forecasts, labels[n:])
    assert found is not None
    assert found > (0.9 if n > dims else 0.65)
    base = np.array([labels[:n].mean()] * 400)
    truth = labels[n:]
    assert ((forecasts[:, 1] - truth) ** 2).mean() < ((base - truth) ** 2).mean()


def test_noise_is_not_believed() -> None:
    rows, labels = data(300, 576, strength=0.0)
    forecasts = fit_probe(rows[:200], labels[:200], 2).apply(rows[200:])
    assert np.abs(forecasts[:, 1] - labels[:200].mean()).mean() < 0.12


def test_a_number_that_never_changes_does_no_harm() -> None:
    rows, labels = data(200, 20, strength=8.0)
    rows[:, 3] = 7.0
    assert np.isfinite(fit_probe(rows, labels, 2).apply(rows)).all()


def test_what_was_left_out_is_what_a_fit_without_it_says() -> None:
    draw = np.random.default_rng(3)
    x, y = draw.normal(size=(30, 5)), draw.normal(size=(30, 2))
    penalty = 2.0
    values, v = np.linalg.eigh(x.T @ x)
    rotated = x @ v
    shrunk = 1 / (values + penalty)
    blocks = np.array_split(np.arange(30), 4)
    fitted = rotated @ (shrunk[:, None] * (rotated.T @ y))
    found = _left_out(rotated, shrunk, y, fitted, blocks)
    for block in blocks:
        rest = np.setdiff1d(np.arange(30), block)
        weights = np.linalg.solve(x[rest].T @ x[rest] + penalty * np.eye(5), x[rest].T @ y[rest])
        assert found[block] == pytest.approx(x[block] @ weights)
