"""A question over recorded sessions: each answer is predicted first, and learnt from when its
label is known (Dawid's prequential way). All sessions of a spec share the head.

Of one session, in event order:

    record   one of its records
    answer   what was answered over the records so far
    settle   labels that are known now are applied, scored and learnt
"""

from __future__ import annotations

from typing import Final

import msgspec

from flashfeed.models.learning import Example, Features, Forecast
from flashfeed.models.records import Record

from .learner import Head
from .outcome_rule import OutcomeRule, OutcomeWatch
from .outcomes import Pending, PendingAnswers
from .scorecard import Scorecard


class _Session:
    """What one session's answers wait with."""

    def __init__(self, name: str, rule: OutcomeRule) -> None:
        self.watch: Final = OutcomeWatch[int](rule)
        self.pending: Final = PendingAnswers(name)


class Backtest:
    """One question's head and scores. `published` scores the answers as they were published,
    `learnt` what the head said of them; both from `scored_from` labels on. `unknown` counts
    answers whose label could not be known."""

    def __init__(self, rule: OutcomeRule, n_choices: int, scored_from: int = 0) -> None:
        self.head = Head(n_choices)
        self.published: Final = Scorecard(n_choices)
        self.learnt: Final = Scorecard(n_choices)
        self.unknown = 0
        self._rule: Final = rule
        self._scored_from: Final = scored_from
        self._sessions: Final[dict[str, _Session]] = {}

    @property
    def waiting(self) -> int:
        """Answers whose outcome has not come yet."""
        return sum(len(one.watch) for one in self._sessions.values())

    @property
    def dropped(self) -> int:
        """Answers that got no label: too many waited, or there was no record before them."""
        return sum(one.watch.dropped for one in self._sessions.values())

    def record(self, session: str, record: Record) -> None:
        """One more record of a session."""
        self._session(session).watch.record(record)

    def answer(self, session: str, number: int, features: Features, published: Forecast) -> None:
        """An answer, by a number that no other of the session has: what the model gave, and what
        was published."""
        one = self._session(session)
        prediction = self.head.predict(session, features, published)
        one.pending.keep(number, Pending(features, prediction))
        one.watch.answered(number)

    def settle(self, session: str) -> list[Example]:
        """Applies the labels that are known now; what they made, in the answers' order."""
        return [example for _, example in self.settle_numbered(session)]

    def settle_numbered(self, session: str) -> list[tuple[int, Example]]:
        """The same, each with the number of its answer."""
        one = self._session(session)
        learnt = []
        for due in one.watch.due():
            if due.label is None:
                self.unknown += 1
                continue
            example = one.pending.apply(due.key, due.label)
            if example is None:
                continue
            prediction = example.prediction
            if prediction.version >= self._scored_from:
                self.learnt.learn(prediction, example.label)
                as_published = msgspec.structs.replace(prediction, by="prior", answers=())
                self.published.learn(as_published, example.label)
            self.head.learn(example)
            learnt.append((due.key, example))
        return learnt

    def _session(self, name: str) -> _Session:
        if name not in self._sessions:
            self._sessions[name] = _Session(name, self._rule)
        return self._sessions[name]
