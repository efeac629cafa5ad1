"""A question's head: who answers it, and how that is learnt from labels as they come.

predict -> Prediction     before the label is known; changes nothing
learn(Example)            in the order of `flashfeed.examples`: the same examples in the
                          same order give the same head (inv. 8)

Every forecaster says its part of every prediction. When the label comes, each is charged
the log loss of what it had said; the one of least mean loss over the last LOSSES_MAX
labels answers from then on. base_rate is the guard: another begins to answer only where its
loss is below base_rate's by more than noise (LEAD_BEGINS standard errors of the difference),
and goes on while it is by LEAD_STAYS; base_rate or, before there are labels, prior answers
else. A forecaster whose lead is lost (the data
or the feed changed) is so replaced within the window; `drifted` says when.

Bounded: EXAMPLES_MAX examples are kept, the newest, SESSIONS_MAX sessions' biases, the
latest used. A fit costs what EXAMPLES_MAX examples cost, and is done after each tenth of
the examples so far, at least FIT_EVERY_MIN.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flashfeed.models.learning import (
    FORECASTERS,
    Example,
    Features,
    Forecast,
    Forecaster,
    Prediction,
)

from .conformal import AdaptiveSets
from .probe import Probe, fit_probe
from .session_bias import SessionBias
from .softmax import Matrix, Scaling, bounded, fit_scaling, log_loss

EXAMPLES_MAX: Final = 2000
SESSIONS_MAX: Final = 1024
LOSSES_MAX: Final = 200
LABELS_MIN: Final = 16
"""So many labels are waited for before anything is fitted, or preferred to the prior."""
FIT_EVERY_MIN: Final = 8
FIT_EVERY_SHARE: Final = 10
LEAD_BEGINS: Final = 2.0
LEAD_STAYS: Final = 1.0
RIVALS: Final[tuple[Forecaster, ...]] = ("prior", "logits", "hidden")
"""Who may answer in base_rate's place."""


@dataclass
class Weights:
    """What a fit gives; None where there is nothing to fit yet."""

    logits: Scaling | None = None
    hidden: Probe | None = None


@dataclass
class Head:
    """One question's head over all sessions of a spec.

    `counts` are the labels by choice; `last` each session's last known label, `stay` how
    often a session's label was the one before, of how often there was one; `losses` of
    the forecasters at the last labels, newest last. `version` counts the labels learnt.
    """

    n_choices: int
    version: int = 0
    fitted_at: int = 0
    answering: Forecaster = "prior"
    drifted: int = 0
    counts: NDArray[np.int64] = field(init=False)
    last: OrderedDict[str, int] = field(default_factory=OrderedDict)
    stay: list[int] = field(default_factory=lambda: [0, 0])
    losses: deque[dict[Forecaster, float]] = field(default_factory=lambda: deque(maxlen=LOSSES_MAX))
    examples: deque[Example] = field(default_factory=lambda: deque(maxlen=EXAMPLES_MAX))
    weights: Weights = field(default_factory=Weights)
    biases: dict[Forecaster, SessionBias] = field(init=False)
    sets: AdaptiveSets = field(default_factory=AdaptiveSets)

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.n_choices, np.int64)
        self.biases = {
            "logits": SessionBias(self.n_choices, SESSIONS_MAX),
            "hidden": SessionBias(self.n_choices, SESSIONS_MAX),
        }

    # -- predict --------------------------------------------------------------------

    def predict(self, session: str, features: Features, prior: Forecast) -> Prediction:
        """What the head says of an answer. `prior` are the probabilities that the prior
        correction (prior.py) gives it."""
        base = self._base_rate()
        parts: dict[Forecaster, Matrix] = {
            "base_rate": base,
            "persistence": self._persistence(session, base),
            "prior": bounded(np.asarray(prior, np.float64)),
        }
        if self.weights.logits is not None:
            scores = np.asarray(features.logs, np.float64)
            shares = self.weights.logits.apply(scores - scores.mean())
            parts["logits"] = self.biases["logits"].apply(session, shares)
        if self.weights.hidden is not None and features.hidden:
            shares = self.weights.hidden.apply(hidden_row(features))
            parts["hidden"] = self.biases["hidden"].apply(session, shares)
        by = self.answering if self.answering in parts else "base_rate"
        return Prediction(
            by=by,
            version=self.version,
            parts={str(name): tuple(map(float, row)) for name, row in parts.items()},
            answers=self.sets.answers(parts[by]),
        )

    def _base_rate(self) -> Matrix:
        rates: Matrix = (self.counts + 1.0) / (self.counts.sum() + self.n_choices)
        return bounded(rates)

    def _persistence(self, session: str, base: Matrix) -> Matrix:
        last = self.last.get(session)
        if last is None:
            return base
        same, known = self.stay
        again = (same + 1.0) / (known + 2.0)
        rest = base.copy()
        rest[last] = 0.0
        shares = rest / rest.sum() * (1.0 - again)
        shares[last] = again
        return bounded(shares)

    # -- learn ----------------------------------------------------------------------

    def learn(self, example: Example) -> None:
        """One more label. An example of other choices is a fault of the caller's."""
        label, parts = example.label, example.prediction.parts
        assert 0 <= label < self.n_choices, (label, self.n_choices)
        rows = {name: np.asarray(parts[name]) for name in FORECASTERS if name in parts}
        self.losses.append({name: log_loss(row, label) for name, row in rows.items()})
        self.sets.learn(label, example.prediction.answers)
        for name, bias in self.biases.items():
            if name in rows:
                bias.learn(example.session, rows[name], label)
        self.version += 1
        self.counts[label] += 1
        last = self.last.pop(example.session, None)
        if last is not None:
            self.stay[0] += last == label
            self.stay[1] += 1
        self.last[example.session] = label
        if len(self.last) > SESSIONS_MAX:
            self.last.popitem(last=False)
        self.examples.append(example)
        due = max(FIT_EVERY_MIN, len(self.examples) // FIT_EVERY_SHARE)
        if self.version >= LABELS_MIN and self.version - self.fitted_at >= due:
            self._fit()
        before, self.answering = self.answering, self._best()
        if self.answering == "base_rate" and before in ("logits", "hidden"):
            self.drifted = self.version

    def _fit(self) -> None:
        """Fits everything on the examples that are kept."""
        self.fitted_at = self.version
        labels = np.array([example.label for example in self.examples], np.int64)
        if len(np.unique(labels)) < 2:
            return
        logs = np.array([example.features.logs for example in self.examples], np.float64)
        self.weights.logits = fit_scaling(logs - logs.mean(axis=1, keepdims=True), labels)
        held = [example for example in self.examples if example.features.hidden]
        if len(held) >= LABELS_MIN and len({example.label for example in held}) > 1:
            rows = np.stack([hidden_row(example.features) for example in held])
            theirs = np.array([example.label for example in held], np.int64)
            self.weights.hidden = fit_probe(rows, theirs, self.n_choices)

    def _best(self) -> Forecaster:
        """Who answers from now on."""
        if self.version < LABELS_MIN:
            return "prior"
        best: Forecaster = "base_rate"
        best_loss = math.inf
        for name in RIVALS:
            # As many as it has: a new rival is compared on what both said.
            both = [(one[name], one["base_rate"]) for one in self.losses if name in one]
            if len(both) < LABELS_MIN:
                continue
            lead = np.array([own - base for own, base in both])
            noise = float(lead.std(ddof=1)) / math.sqrt(len(lead))
            mean = float(lead.mean())
            errors = LEAD_STAYS if name == self.answering else LEAD_BEGINS
            if mean < -errors * noise and mean < best_loss:
                best, best_loss = name, mean
        return best


def hidden_row(features: Features) -> Matrix:
    """The hidden state as numbers."""
    return np.frombuffer(features.hidden, "<f2").astype(np.float64)
