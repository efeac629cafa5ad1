"""A question's head: what it says of an answer, learnt from labels as they come.

predict -> Prediction     before the label is known; changes nothing
learn(Example)            in the order in which labels came: the same examples in the same
                          order give the same head (inv. 8)

Every forecaster says its part of every prediction, and what is published is their mixture.
A forecaster's weight is multiplied by the probability that it gave to each label that came,
and of all weight SHARE is dealt out anew at each label, to all alike (fixed share: Herbster
and Warmuth, "Tracking the Best Expert", Machine Learning 32, 1998). The mixture's log loss
is so at most a little above that of the best of them, stretch by stretch: where nobody knows
anything it is the base rate's, and where one that knew is wrong from a day on (the market or
the feed changed) another leads within some labels; `drifted` says when. To pick the one of
least loss in a recent window was tried, and reaches a third of the mixture's skill
(docs/CONFIDENCE.md). Before LABELS_MIN labels the prior answers.

Bounded: EXAMPLES_MAX examples are kept, the newest, SESSIONS_MAX sessions' biases, the
latest used. A fit costs what EXAMPLES_MAX examples cost, and is done after each tenth of
the examples so far, at least FIT_EVERY_MIN.
"""

from __future__ import annotations

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
from .one_thread import use_one_thread
from .probe import Probe, fit_probe
from .session_bias import SessionBias
from .softmax import Matrix, Scaling, bounded, fit_scaling

EXAMPLES_MAX: Final = 2000
SESSIONS_MAX: Final = 1024
LABELS_MIN: Final = 16
"""So many labels are waited for before anything is fitted, or preferred to the prior."""
FIT_EVERY_MIN: Final = 8
FIT_EVERY_SHARE: Final = 10
SHARE: Final = 0.02
FITTED: Final[tuple[Forecaster, ...]] = ("logits", "hidden")


@dataclass
class Weights:
    """What a fit gives; None where there is nothing to fit yet."""

    logits: Scaling | None = None
    hidden: Probe | None = None


@dataclass
class Head:
    """One question's head over all sessions of a spec.

    `counts` are the labels by choice; `last` each session's last known label, `stay` how
    often a session's label was the one before, of how often there was one; `shares` the
    forecasters' weights, which add up to 1. `version` counts the labels learnt.
    """

    n_choices: int
    version: int = 0
    fitted_at: int = 0
    drifted: int = 0
    counts: NDArray[np.int64] = field(init=False)
    last: OrderedDict[str, int] = field(default_factory=OrderedDict)
    stay: list[int] = field(default_factory=lambda: [0, 0])
    shares: dict[Forecaster, float] = field(
        default_factory=lambda: dict.fromkeys(("base_rate", "persistence", "prior"), 1 / 3)
    )
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
        total = sum(self.shares[name] for name in parts)
        parts["mixed"] = np.sum([self.shares[name] / total * parts[name] for name in parts], axis=0)
        by: Forecaster = "prior" if self.version < LABELS_MIN else "mixed"
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
        before = self.leading
        self._weigh({name: float(row[label]) for name, row in rows.items()})
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
        if before in FITTED and self.leading not in FITTED:
            self.drifted = self.version

    @property
    def leading(self) -> Forecaster:
        """Whose weight is the largest."""
        return max(self.shares, key=self.shares.__getitem__)

    def _weigh(self, given: dict[Forecaster, float]) -> None:
        """Moves the weights, by the probability that each gave to the label."""
        heard = sum(self.shares[name] for name in self.shares if name in given)
        mean = sum(self.shares[name] * given[name] for name in self.shares if name in given) / heard
        # Who said nothing keeps its weight.
        earned = {name: share * given.get(name, mean) for name, share in self.shares.items()}
        total = sum(earned.values())
        dealt = SHARE / len(earned)
        self.shares = {name: (1 - SHARE) * one / total + dealt for name, one in earned.items()}

    def _join(self, name: Forecaster) -> None:
        """A forecaster that is fitted for the first time gets as much weight as the mean."""
        if name not in self.shares:
            n = len(self.shares)
            self.shares = {one: share * n / (n + 1) for one, share in self.shares.items()}
            self.shares[name] = 1 / (n + 1)

    def _fit(self) -> None:
        """Fits everything on the examples that are kept."""
        use_one_thread()
        self.fitted_at = self.version
        labels = np.array([example.label for example in self.examples], np.int64)
        if len(np.unique(labels)) < 2:
            return
        logs = np.array([example.features.logs for example in self.examples], np.float64)
        self.weights.logits = fit_scaling(logs - logs.mean(axis=1, keepdims=True), labels)
        self._join("logits")
        held = [example for example in self.examples if example.features.hidden]
        if len(held) >= LABELS_MIN and len({example.label for example in held}) > 1:
            rows = np.stack([hidden_row(example.features) for example in held])
            theirs = np.array([example.label for example in held], np.int64)
            self.weights.hidden = fit_probe(rows, theirs, self.n_choices)
            self._join("hidden")


def hidden_row(features: Features) -> Matrix:
    """The hidden state as numbers."""
    return np.frombuffer(features.hidden, "<f2").astype(np.float64)
