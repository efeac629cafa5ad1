"""Recorded answers held against what the records of their sessions turned out to be. Pure.

Records and answers of a session are put in order by event time: an answer stands after the
record that it was given for. Every answer is scored when its label is known: as it was
published, and as a head says it that learns from the labels before it (backtest.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from flashfeed.models.errors import ConfigError
from flashfeed.models.learning import Example, Features, Forecast
from flashfeed.models.records import Record
from flashfeed.models.session import AnsweredBy, FlashQuery

from .backtest import Backtest
from .outcome_rule import OutcomeRule
from .scorecard import Scores

_LEAST: Final = 1e-9


class RecordedAnswer(msgspec.Struct, frozen=True):
    """What is needed of a flash_ready event, and of a replay's `hidden`, which no event has
    (models/learning.py, Features)."""

    session_id: str
    name: str
    data_version: int
    event_time: str | None
    probabilities: dict[str, float]
    raw: dict[str, Any] | None = None
    answered_by: AnsweredBy = AnsweredBy(model="", spec="")
    hidden: bytes = b""


class Moment(NamedTuple):
    """A record, or an answer, at a time (ms since 1970); records come first."""

    time: int
    is_answer: bool
    session: str
    what: Record | RecordedAnswer


class RecordedPast:
    """The records of sessions, the last of the same time and name alone: it is the correction."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int, str], Moment] = {}
        self.timeless = 0

    def take(self, session: str, record: Record) -> None:
        """One more record; without a time it says nothing here, and is counted."""
        if record.timestamp is None:
            self.timeless += 1
            return
        time = round(record.timestamp * 1000)
        named = getattr(record, "sid", None) or getattr(record, "sym", None) or ""
        self._found[session, time, named] = Moment(time, False, session, record)

    def moments(self) -> list[Moment]:
        """All of them."""
        return [*self._found.values()]


class Loss(NamedTuple):
    """What an answer lost when its label was known: -ln of the label's probability, as it was
    published and as it was learnt. Times in ms since 1970: the answer's and the label's."""

    session: str
    time: int
    known: int
    published: float
    learnt: float


class Score(msgspec.Struct, frozen=True):
    """A question's scores: as published, and as learnt. Of `waiting` answers the outcome has
    not come, of `unknown` it cannot be known, and `dropped` were not waited for (their session
    had no record before them, or too many waited). `repeated` were there already, and `unfit`
    have no event time, or other choices than the question. `leading` is the forecaster whose word
    weighs most now, `drifted` the label at which one that was fitted last lost that place (0:
    never)."""

    question: str
    labels: int
    waiting: int
    unknown: int
    dropped: int
    repeated: int
    unfit: int
    published: Scores
    learnt: Scores
    leading: str
    drifted: int


class Scored(NamedTuple):
    """A question's score, what each label cost, and the run that it comes from."""

    score: Score
    losses: list[Loss]
    backtest: Backtest


def score_question(
    rule: OutcomeRule,
    query: FlashQuery,
    records: Sequence[Moment],
    answers: Iterable[RecordedAnswer],
) -> Scored:
    """The score of a question's answers. Raises ConfigError for a time that is none."""
    backtest = Backtest(rule, len(query.choices))
    taken = _Taken(answers, query)
    losses: list[Loss] = []
    moments = sorted([*records, *taken.moments], key=lambda one: one[:2])
    for number, moment in enumerate(moments):
        if isinstance(moment.what, RecordedAnswer):
            logs = tuple(map(math.log, _shares(_raw(moment.what), query)))
            published = _shares(moment.what.probabilities, query)
            backtest.answer(moment.session, number, Features(logs, moment.what.hidden), published)
        else:
            backtest.record(moment.session, moment.what)
        for answered, example in backtest.settle_numbered(moment.session):
            losses.append(_loss(example, moments[answered].time, moment.time))
    return Scored(_score(query.label, backtest, taken), losses, backtest)


class _Taken:
    """The answers to a question that can be held against something, each once.

    One that comes twice has its data version and its event time twice: a file that was written
    from two reads, or a version that was done again after a recovery, whose last answer stands.
    A version alone names no answer: where a session was deleted and made again it begins at 1.
    """

    def __init__(self, answers: Iterable[RecordedAnswer], query: FlashQuery) -> None:
        found: dict[tuple[str, int, int], Moment] = {}
        self.repeated = self.unfit = 0
        for one in answers:
            if one.name != query.label:
                continue
            if not one.event_time or set(one.probabilities) != set(query.choices):
                self.unfit += 1
                continue
            time = _ms(one.event_time)
            key = (one.session_id, one.data_version, time)
            self.repeated += key in found
            found[key] = Moment(time, True, one.session_id, one)
        self.moments = [*found.values()]


def _score(question: str, backtest: Backtest, taken: _Taken) -> Score:
    return Score(
        question=question,
        labels=backtest.published.labels,
        waiting=backtest.waiting,
        unknown=backtest.unknown,
        dropped=backtest.dropped,
        repeated=taken.repeated,
        unfit=taken.unfit,
        published=backtest.published.scores(),
        learnt=backtest.learnt.scores(),
        leading=backtest.head.leading,
        drifted=backtest.head.drifted,
    )


def _loss(example: Example, time: int, known: int) -> Loss:
    published: Forecast = example.prediction.parts["prior"]
    lost = [
        -math.log(max(one[example.label], _LEAST))
        for one in (published, example.prediction.forecast)
    ]
    return Loss(example.session, time, known, *lost)


def _shares(probabilities: dict[str, float], query: FlashQuery) -> tuple[float, ...]:
    """The probabilities of the choices, in their order, none quite 0."""
    return tuple(max(probabilities[choice], _LEAST) for choice in query.choices)


def _raw(answer: RecordedAnswer) -> dict[str, float]:
    """What the model said by itself."""
    said: dict[str, float] = (answer.raw or {}).get("probabilities", answer.probabilities)
    return said if said.keys() == answer.probabilities.keys() else answer.probabilities


def _ms(time: str) -> int:
    """An event's time in ms since 1970."""
    try:
        return round(datetime.fromisoformat(time).timestamp() * 1000)
    except ValueError:
        raise ConfigError(f"expected an event_time as ISO 8601, got {time!r}") from None
