"""Answers that wait for their labels: each label is applied once, and what is wrong counted.

The session's owner keeps what a label will be learnt with (features and prediction) by
(query, data version). `apply` gives the example once; the same label again is `repeated`,
another one for the same answer `contradicted` (the first stands: what was learnt cannot be
unlearnt), one for an answer that is not known, or no longer kept, `late`. At most
PENDING_MAX answers of a question wait, the oldest go first, and as many labels are
remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from flashfeed.models.learning import Example, Features, Prediction

PENDING_MAX: Final = 1024


class Pending(msgspec.Struct, frozen=True, array_like=True):
    """One answer that waits: what was predicted, of what."""

    features: Features
    prediction: Prediction


class OutcomeCounters(msgspec.Struct):
    """What became of the labels of one question."""

    applied: int = 0
    repeated: int = 0
    contradicted: int = 0
    late: int = 0
    forgotten: int = 0


class PendingAnswers:
    """The answers of one question in one session, by data version."""

    def __init__(self, session: str) -> None:
        self._session = session
        self.waiting: OrderedDict[int, Pending] = OrderedDict()
        self.labels: OrderedDict[int, int] = OrderedDict()
        self.counters = OutcomeCounters()

    def keep(self, data_version: int, pending: Pending) -> None:
        """An answer was given. The same version again, after a recovery, replaces it."""
        if data_version in self.labels:
            return
        self.waiting[data_version] = pending
        if len(self.waiting) > PENDING_MAX:
            self.waiting.popitem(last=False)
            self.counters.forgotten += 1

    def apply(self, data_version: int, label: int) -> Example | None:
        """The example that a label makes; None where it makes none."""
        known = self.labels.get(data_version)
        if known is not None:
            if known == label:
                self.counters.repeated += 1
            else:
                self.counters.contradicted += 1
            return None
        pending = self.waiting.pop(data_version, None)
        if pending is None:
            self.counters.late += 1
            return None
        self.labels[data_version] = label
        if len(self.labels) > PENDING_MAX:
            self.labels.popitem(last=False)
        self.counters.applied += 1
        return Example(self._session, pending.features, label, pending.prediction)
