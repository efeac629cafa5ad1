"""Answers that wait for their labels: each label is applied once.

The session's owner keeps what a label will be learnt with (features and prediction) by
(query, data version). `apply` gives the example once: nothing for the same label again, for
another one of the same answer (the first stands: what was learnt cannot be unlearnt), or for
an answer that is not known, or no longer kept. At most PENDING_MAX answers of a question
wait, the oldest go first, and as many labels are remembered.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from flashfeed.models.learning import Example, Features, Prediction

from .outcome_rule import PENDING_MAX


class Pending(msgspec.Struct, frozen=True, array_like=True):
    """One answer that waits: what was predicted, of what."""

    features: Features
    prediction: Prediction


class PendingAnswers:
    """The answers of one question in one session, by data version."""

    def __init__(self, session: str) -> None:
        self._session = session
        self.waiting: OrderedDict[int, Pending] = OrderedDict()
        self.labels: OrderedDict[int, int] = OrderedDict()

    def keep(self, data_version: int, pending: Pending) -> None:
        """An answer was given. The same version again, after a recovery, replaces it."""
        if data_version in self.labels:
            return
        self.waiting[data_version] = pending
        if len(self.waiting) > PENDING_MAX:
            self.waiting.popitem(last=False)

    def apply(self, data_version: int, label: int) -> Example | None:
        """The example that a label makes; None where it makes none."""
        if data_version in self.labels:
            return None
        pending = self.waiting.pop(data_version, None)
        if pending is None:
            return None
        self.labels[data_version] = label
        if len(self.labels) > PENDING_MAX:
            self.labels.popitem(last=False)
        return Example(self._session, pending.features, label, pending.prediction)
