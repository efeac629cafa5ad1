"""What one session does differently from the others of its spec: a bias a choice.

To a shared forecaster's log-probabilities each session's bias is added. A label moves it by
one gradient step of the log loss, and a part of it is forgotten:

    bias[k] <- (1 - 1 / MEMORY_LABELS) * bias[k] + STEP * ((label is k) - p[k])

p is the forecast with the bias in it. Where the forecast is off by e on the average, the
bias goes to STEP * MEMORY_LABELS * e at most; a session that is like the others keeps one
near 0. Sessions beyond `sessions_max` are forgotten, the least lately used first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import numpy as np

from .softmax import Matrix, bounded, softmax

STEP: Final = 0.03
MEMORY_LABELS: Final = 200


class SessionBias:
    """The biases of one forecaster, by session."""

    def __init__(self, n_choices: int, sessions_max: int) -> None:
        self.by_session: OrderedDict[str, Matrix] = OrderedDict()
        self._n_choices = n_choices
        self._sessions_max = sessions_max

    def apply(self, session: str, shares: Matrix) -> Matrix:
        """The forecast with the session's bias in it."""
        bias = self.by_session.get(session)
        return shares if bias is None else bounded(softmax(np.log(shares) + bias))

    def learn(self, session: str, forecast: Matrix, label: int) -> None:
        """One more label of the session's; `forecast` is what `apply` gave."""
        bias = self.by_session.pop(session, np.zeros(self._n_choices))
        moved = bias * (1.0 - 1.0 / MEMORY_LABELS) - STEP * forecast
        moved[label] += STEP
        self.by_session[session] = moved
        if len(self.by_session) > self._sessions_max:
            self.by_session.popitem(last=False)
