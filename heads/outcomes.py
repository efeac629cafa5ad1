"""Answers that wait for their labels: each label is applied once.

What a label will be learnt with (features and prediction) is kept by the answer's number, which
no other answer of the session has. A data version is no such number: where a session is deleted
and made again versions begin at 1 again. `apply` gives the example once: nothing for the same
label again, for another one of the same answer (the first stands: what was learnt cannot be
unlearnt), or for an answer that is not known, or no longer kept. At most PENDING_MAX answers of
a question wait, the oldest go first, and as many labels are remembered.
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
    """The answers of one question in one session, by number."""

    def __init__(self, session: str) -> None:
        self._session = session
        self.waiting: OrderedDict[int, Pending] = OrderedDict()
        self.labels: OrderedDict[int, int] = OrderedDict()

    def keep(self, number: int, pending: Pending) -> None:
        """An answer was given. The same again, before its label, replaces it."""
        if number in self.labels:
            return
        self.waiting[number] = pending
        if len(self.waiting) > PENDING_MAX:
            self.waiting.popitem(last=False)

    def apply(self, number: int, label: int) -> Example | None:
        """The example that a label makes; None where it makes none."""
        if number in self.labels:
            return None
        pending = self.waiting.pop(number, None)
        if pending is None:
            return None
        self.labels[number] = label
        if len(self.labels) > PENDING_MAX:
            self.labels.popitem(last=False)
        return Example(self._session, pending.features, label, pending.prediction)
