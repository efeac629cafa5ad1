"""Probabilities from scores, and a multinomial logistic fit of a few parameters. numpy."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

PROBABILITY_MIN: Final = 1e-4
"""No forecast is surer than that: what was never seen in 10,000 labels may come."""


def softmax(scores: Matrix) -> Matrix:
    """Probabilities along the last axis."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Matrix = weights / weights.sum(axis=-1, keepdims=True)
    return shares


def bounded(shares: Matrix) -> Matrix:
    """The same probabilities, none below PROBABILITY_MIN, adding up to 1."""
    n = shares.shape[-1]
    mixed: Matrix = shares * (1 - n * PROBABILITY_MIN) + PROBABILITY_MIN
    return mixed


def unbounded(shares: Matrix) -> Matrix:
    """The probabilities that `bounded` was given."""
    n = shares.shape[-1]
    given: Matrix = (shares - PROBABILITY_MIN) / (1 - n * PROBABILITY_MIN)
    return given.clip(0.0)


class Scaling:
    """Multinomial Platt scaling: softmax(slope * scores + bias of each choice).

    For two choices it is Platt's sigmoid (Platt, "Probabilistic Outputs for Support Vector
    Machines", 1999); for more it is temperature scaling with a bias a choice (Guo et al.,
    "On Calibration of Modern Neural Networks", ICML 2017, as vector scaling with one slope).
    """

    def __init__(self, slope: float, bias: Matrix) -> None:
        self.slope = slope
        self.bias = bias

    def apply(self, scores: Matrix) -> Matrix:
        """Probabilities of rows of scores."""
        return bounded(softmax(self.slope * scores + self.bias))


_STEPS: Final = 30
_SLOPE_MAX: Final = 100.0


def fit_scaling(scores: Matrix, labels: NDArray[np.int64], prior_strength: float = 1.0) -> Scaling:
    """The scaling of least penalised log loss, by Newton's method.

    `scores` is one row an example and one column a choice. The penalty is a Gaussian prior
    of `prior_strength` examples' worth: of slope 0 in units of the scores' deviation (a
    score that says nothing gives the base rate), and weakly of bias 0.
    """
    n, k = scores.shape
    centre = scores - scores.mean(axis=1, keepdims=True)
    spread = float(centre.std())
    unit = spread if spread > 1e-9 else 1.0
    x = centre / unit
    truth = np.eye(k)[labels]
    # theta = [slope, bias...]; the prior keeps the biases' common constant at 0.
    theta = np.zeros(k + 1)
    penalty = np.full(k + 1, 0.5 * prior_strength)
    design = np.concatenate([x[:, :, None], np.broadcast_to(np.eye(k), (n, k, k))], axis=2)
    for _ in range(_STEPS):
        shares = softmax(design @ theta)
        gradient = np.einsum("nk,nkp->p", shares - truth, design) + penalty * theta
        weighted = design * shares[:, :, None]
        means = weighted.sum(axis=1)
        hessian = np.einsum("nkp,nkq->pq", weighted, design) - means.T @ means
        hessian[np.diag_indices(k + 1)] += penalty
        step = np.linalg.solve(hessian, gradient)
        # A long step on nearly separable data would overshoot.
        step *= min(1.0, 4.0 / max(1e-12, float(np.abs(step).max())))
        theta -= step
        if float(np.abs(step).max()) < 1e-8:
            break
    return Scaling(float(np.clip(theta[0], -_SLOPE_MAX, _SLOPE_MAX)) / unit, theta[1:])
