"""A linear probe on the hidden state: ridge regression, then its scores made probabilities.

Ridge regression of each choice's indicator on the standardised hidden state (Hoerl and
Kennard, Technometrics 12, 1970). How strongly it is regularised, and how its scores become
probabilities, is decided on forecasts of examples that it was not fitted on: neighbouring
examples share most of their context, so that whole blocks of consecutive examples are left
out (h-block cross-validation: Burman, Chow and Nolan, Biometrika 81, 1994), and in closed
form: with the hat matrix H, the residuals of a left-out block B are (I - H_BB)^-1 times
its residuals in the whole fit.

Cost: one eigendecomposition of the smaller of (examples, dimensions), at most
2,000 x 2,000.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .softmax import Matrix, Scaling, fit_scaling

BLOCKS: Final = 10
_PENALTIES: Final = tuple(10.0**power for power in np.arange(-2.5, 1.51, 0.5))
"""The strengths that are tried, in units of the mean eigenvalue of the examples' Gram matrix."""
_DEVIATION_MIN: Final = 1e-6


class Probe:
    """Scores of the choices from a hidden state: `hidden @ weights + offset`, and their
    scaling to probabilities."""

    def __init__(self, weights: Matrix, offset: Matrix, scaling: Scaling) -> None:
        self.weights = weights
        self.offset = offset
        self.scaling = scaling

    def scores(self, hidden: Matrix) -> Matrix:
        """One row of scores for each hidden state."""
        return np.asarray(hidden @ self.weights + self.offset)

    def apply(self, hidden: Matrix) -> Matrix:
        """Probabilities of the choices for each hidden state."""
        return self.scaling.apply(self.scores(hidden))


def fit_probe(hidden: Matrix, labels: NDArray[np.int64], n_choices: int) -> Probe:
    """The probe of these examples, which are in the order in which their labels came."""
    n = len(labels)
    centre = hidden.mean(axis=0)
    deviation = np.maximum(hidden.std(axis=0), _DEVIATION_MIN)
    x = (hidden - centre) / deviation
    truth = np.eye(n_choices)[labels]
    base = truth.mean(axis=0)
    y = truth - base
    # x = u * sqrt(values) @ v.T; in the smaller of the two shapes.
    if x.shape[1] <= n:
        values, v = np.linalg.eigh(x.T @ x)
        values = np.maximum(values, 0.0)
        rotated = x @ v
    else:
        values, left = np.linalg.eigh(x @ x.T)
        values = np.maximum(values, 0.0)
        rotated = left * np.sqrt(values)
        v = x.T @ left / np.sqrt(np.maximum(values, 1e-12 * values.max() + 1e-300))
    target = rotated.T @ y
    blocks = np.array_split(np.arange(n), min(BLOCKS, n))
    scale = float(values.mean()) + 1e-300
    best: tuple[float, float, Matrix] | None = None
    for penalty in _PENALTIES:
        shrunk = 1.0 / (values + penalty * scale)
        left_out = _left_out(rotated, shrunk, y, rotated @ (shrunk[:, None] * target), blocks)
        error = float(((left_out - y) ** 2).mean())
        if best is None or error < best[0]:
            best = (error, penalty, left_out)
    assert best is not None
    _, penalty, left_out = best
    shrunk = 1.0 / (values + penalty * scale)
    weights = (v @ (shrunk[:, None] * target)) / deviation[:, None]
    scaling = fit_scaling(left_out + base, labels)
    return Probe(weights, base - centre @ weights, scaling)


def _left_out(
    rotated: Matrix, shrunk: Matrix, y: Matrix, fitted: Matrix, blocks: list[NDArray[np.int64]]
) -> Matrix:
    """What the fit without each block says of the block."""
    found = np.empty_like(y)
    for block in blocks:
        part = rotated[block]
        hat = (part * shrunk) @ part.T
        residual = np.linalg.solve(np.eye(len(block)) - hat, y[block] - fitted[block])
        found[block] = y[block] - residual
    return found
