"""What a step has to do with learning: predictions, labels, examples. Pure.

fold_outcome   a label that was sent: is it of an answer that waits, and of one of its choices
predict        what the question's head says of an answer, and the answer that it gives
settle_labels  labels that were sent, and those that the rules give now, become examples, and
               records on flashfeed.outcomes where they did not come from there

An outcome is applied once (invariant 2), and none is lost (invariant 1): with transactions
a slot of the changelog and the example are of one transaction. Without, examples go out first,
then slots, then the entry: a crash between them makes the step again, which finds the slot
labelled (the example is there) or not (it is written again under its id, by which the learner
drops it). Outcomes go out with the examples; one that is there twice says the same.

Rules are in session_rules.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Literal, NamedTuple

import msgspec

from flashfeed.heads.learner import Head as LearningHead
from flashfeed.heads.prior import LOG_PROBABILITY_MIN
from flashfeed.models.errors import (
    OutcomeContradicts,
    OutcomeLate,
    RequestError,
)
from flashfeed.models.learning import (
    Example,
    ExampleRecord,
    Features,
    Forecast,
    HeadName,
    LabelledBy,
    Prediction,
    Subject,
    Waits,
)
from flashfeed.models.messages import Outcome
from flashfeed.models.outcomes import SentOutcome
from flashfeed.models.session import (
    Answer,
    FlashQuery,
    Learned,
    PartForecast,
    RawAnswer,
    SessionSpec,
)
from flashfeed.models.spec_hash import spec_hash
from flashfeed.models.state import Head, Item
from flashfeed.models.tenant import split_key

from .session_pending import UNKNOWN, PendingAnswers
from .session_rules import Window, due, rule_of

RESULTS: Final = ("applied", "repeated", "contradicting", "late", "unknown")

FindHead = Callable[[HeadName], LearningHead]
"""The head of that name as it is now; one that knows nothing where there is none."""


class Label(NamedTuple):
    """A label for an answer that waits: of which question and data version, and which choice.
    `carried`: it came over flashfeed.outcomes."""

    query_id: int
    version: int
    choice: int
    time: float | None
    carried: bool


class Predicted(NamedTuple):
    """What one answer will be learnt with."""

    query: FlashQuery
    features: Features
    prediction: Prediction


@dataclass(slots=True)
class StepLearning:
    """What a step does about learning: slots that change, examples, outcomes that are to be on
    flashfeed.outcomes, and how often what."""

    changes: list[Waits] = field(default_factory=list)
    examples: list[ExampleRecord] = field(default_factory=list)
    outcomes: list[SentOutcome] = field(default_factory=list)
    counts: Counter[tuple[LabelledBy, str]] = field(default_factory=Counter)


# -- a label that was sent ----------------------------------------------------------


def fold_outcome(
    learning: StepLearning, head: Head, pending: PendingAnswers, message: Outcome
) -> Label | None:
    """The label of a message; None where it is a repeat. Raises RequestError where the session
    has no such question that learns or it no such choice, OutcomeLate, OutcomeContradicts."""
    query = _query(head.spec, message.query)
    if message.label not in query.choices:
        choices = ", ".join(query.choices)
        raise RequestError(f"label: expected one of {choices}, got {message.label!r}")
    version = message.data_version
    if message.event_id:
        version = pending.version_of(head.session_id, query.id, message.event_id)
    choice = query.choices.index(message.label)
    known = pending.labelled.get(query.id, {}).get(version)
    if known is not None and known.label != UNKNOWN:
        if known.label == choice:
            learning.counts["user", "repeated"] += 1
            return None
        learning.counts["user", "contradicting"] += 1
        raise OutcomeContradicts(
            f"question {query.label}, data version {version}: the outcome "
            f"{query.choices[known.label]!r} was applied before, {message.label!r} is not"
        )
    if pending.open_to(query.id, version) is None:
        learning.counts["user", "late"] += 1
        where = message.event_id or f"data version {version}"
        raise OutcomeLate(
            f"question {query.label}: no answer of {where} waits for its outcome; the newest "
            "1024 of a question do"
        )
    learning.counts["user", "applied"] += 1
    return Label(query.id, version, choice, message.time, message.asked is not None)


def _query(spec: SessionSpec, wanted: int | str) -> FlashQuery:
    for query in spec.flash:
        if wanted in (query.id, query.label):
            if not query.learn:
                raise RequestError(f"question {query.label} does not learn: learn = true does")
            return query
    known = ", ".join(query.label for query in spec.flash if query.learn) or "none"
    got = str(wanted)[:80]
    raise RequestError(f"query: expected a question that learns ({known}), got {got!r}")


# -- the answers ----------------------------------------------------------------------


def head_name(spec: SessionSpec, query: FlashQuery, model: str) -> HeadName:
    """The name of the question's head: of this model, and of this spec with this question
    alone, by whatever name or number."""
    alone = msgspec.structs.replace(query, id=0, name="")
    plain = msgspec.structs.replace(
        spec, flash=(alone,), overflow="block", queue_records=0, tenant=""
    )
    subject = Subject(model, spec_hash(plain), query.query, query.choices)
    return HeadName(spec.tenant, subject, query.label, spec.type)


def predict(
    head: LearningHead, session_id: str, query: FlashQuery, answer: Answer, hidden: bytes
) -> tuple[Answer, Predicted]:
    """The answer as the question's head gives it; `answer` is the model's, its prior taken
    off. As long as the head knows too little it stays as it is."""
    shares = answer.raw.probabilities if answer.raw is not None else answer.probabilities
    features = Features(tuple(_log(shares[choice]) for choice in query.choices), hidden)
    prior: Forecast = tuple(answer.probabilities[choice] for choice in query.choices)
    probe = head.weights.hidden
    fits = probe is None or len(hidden) == 2 * len(probe.weights)
    prediction = head.predict(session_id, features if fits else Features(features.logs), prior)
    by = msgspec.structs.replace(
        answer.answered_by, head=prediction.by, head_version=prediction.version
    )
    learned = Learned(
        tuple(
            PartForecast(name, dict(zip(query.choices, part, strict=True)))
            for name, part in prediction.parts.items()
        ),
        tuple(query.choices[choice] for choice in prediction.answers),
    )
    answer = msgspec.structs.replace(answer, answered_by=by, learned=learned)
    if prediction.by != "prior":
        answer = _chosen(answer, query.choices, prediction.forecast)
    return answer, Predicted(query, features, prediction)


def _log(share: float) -> float:
    return max(math.log(share), LOG_PROBABILITY_MIN) if share > 0 else LOG_PROBABILITY_MIN


def _chosen(answer: Answer, choices: Sequence[str], forecast: Forecast) -> Answer:
    ranked = sorted(range(len(choices)), key=lambda choice: -forecast[choice])
    raw = answer.raw or RawAnswer(
        answer.value, answer.confidence, answer.logit_gap, answer.probabilities
    )
    return msgspec.structs.replace(
        answer,
        value=choices[ranked[0]],
        confidence=forecast[ranked[0]],
        logit_gap=math.log(forecast[ranked[0]] / forecast[ranked[1]]),
        probabilities=dict(zip(choices, forecast, strict=True)),
        raw=raw,
    )


# -- labels become examples -------------------------------------------------------------


def settle_labels(
    learning: StepLearning,
    head: Head,
    pending: PendingAnswers,
    labels: Sequence[Label],
    predicted: Sequence[Predicted],
    window: Iterable[Item],
    model: str,
) -> None:
    """Fill in what the step does about learning. `head` is the one after it, `window` its
    items, the newest first; `predicted` are its answers' predictions."""
    queries = {query.id: query for query in head.spec.flash}
    for one in labels:
        waits = pending.open_to(one.query_id, one.version)
        assert waits is not None  # as fold_outcome saw
        query = queries[one.query_id]
        _apply(learning, head, query, waits, one.choice, "user", one.time)
        if not one.carried:
            outcome = _outcome(head, query, waits, one.choice, "http", one.time)
            learning.outcomes.append(outcome)
    if not (predicted or any(query.outcome for query in head.spec.flash)):
        return
    seen = Window(head, window)
    fresh: dict[int, Waits] = {}
    for made in predicted:
        place, time = seen.newest()
        fresh[made.query.id] = Waits(
            life=head.first_offset,
            query_id=made.query.id,
            version=head.version,
            offset=head.version_offset,
            place=place,
            time=time,
            model=model,
            features=made.features,
            prediction=made.prediction,
        )
    done = {(one.query_id, one.version) for one in labels}
    for query in head.spec.flash:
        if not query.learn:
            continue
        mine = fresh.get(query.id)
        if query.outcome is not None:
            waiting = pending.waiting.get(query.id, {}).values()
            left = (one for one in waiting if (query.id, one.version) not in done)
            rule = rule_of(query, head.spec.type)
            for waits, choice in due(rule, chain(left, [mine] if mine else ()), seen):
                time = seen.newest()[1]
                _apply(learning, head, query, waits, choice, "rule", time)
                if choice is not None:
                    learning.outcomes.append(_outcome(head, query, waits, choice, "rule", time))
                if waits is mine:
                    mine = None
        if mine is not None:
            learning.changes.append(mine)


def _outcome(
    head: Head,
    query: FlashQuery,
    waits: Waits,
    choice: int,
    by: Literal["http", "rule"],
    time: float | None,
) -> SentOutcome:
    """The outcome as flashfeed.outcomes has it; `time` is that of the record that settled it."""
    tenant, session_id = split_key(head.session_id)
    return SentOutcome(
        query=query.name or query.id,
        label=query.choices[choice],
        data_version=waits.version,
        time=time,
        session_id=session_id,
        tenant=tenant,
        by=by,
    )


def _apply(
    learning: StepLearning,
    head: Head,
    query: FlashQuery,
    waits: Waits,
    choice: int | None,
    by: LabelledBy,
    time: float | None,
) -> None:
    """The answer has its label: None cannot be known."""
    if by == "rule":
        learning.counts[by, "unknown" if choice is None else "applied"] += 1
    if choice is None:  # somebody may know yet: what is learnt from stays
        learning.changes.append(msgspec.structs.replace(waits, label=UNKNOWN))
        return
    learning.changes.append(
        msgspec.structs.replace(waits, features=None, prediction=None, label=choice)
    )
    if waits.features is None or waits.prediction is None:
        return
    session_id = head.session_id
    learning.examples.append(
        ExampleRecord(
            id=f"{split_key(session_id)[1]}/{waits.life}/{waits.query_id}/{waits.version}",
            head=head_name(head.spec, query, waits.model),
            data_version=waits.version,
            label=query.choices[choice],
            by=by,
            time=time,
            example=Example(session_id, waits.features, choice, waits.prediction),
        )
    )
