"""A session's step, settled: what the engine gave becomes the head that goes to the
changelog, and then the session's state. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import msgspec

from flashfeed.heads.moved import with_move
from flashfeed.heads.prior import correct
from flashfeed.heads.verdict import judged
from flashfeed.models.session import NEXT_WORD, Answer, AnsweredBy
from flashfeed.models.spec_hash import spec_hash
from flashfeed.models.state import Counters, Head, Item
from flashfeed.models.trace_context import TraceContext
from flashfeed.models.window import block_start, window_length

from .session_learning import (
    FindHead,
    Predicted,
    StepLearning,
    head_name,
    predict,
    settle_labels,
)
from .session_pending import PendingAnswers
from .session_step import SessionState, Step


@dataclass(frozen=True, slots=True)
class Ran:
    """What running a step gave. Tokens: `tokens` the session holds, `ingest_tokens` of
    the new items, `decoded_tokens` questions and answers too; `pending` records wait; `trace`
    is the step's span, where it is followed. `hidden` are the hidden states of the answers, where
    they are read, and `heads` what has learnt (None: this worker does not)."""

    answers: Sequence[Answer]
    tokens: int
    ingest_tokens: int
    decoded_tokens: int
    process_us: int
    evaluated_ms: int
    pending: int
    model: str
    trace: TraceContext | None = None
    hidden: Sequence[bytes] = ()
    heads: FindHead | None = None


def settle_step(step: Step, state: SessionState | None, ran: Ran) -> Head:
    """The head after the engine did the step's work. `state` is the one it was planned on."""
    head = step.head
    counters = head.counters
    applied = (
        step.taken + step.texts + step.duplicates + step.late + step.dropped + len(step.refused)
    )
    counters = Counters(
        processed=counters.processed + applied,
        dropped=counters.dropped + step.dropped,
        duplicates=counters.duplicates + step.duplicates,
        late=counters.late + step.late,
        corrected=counters.corrected + step.corrected,
        final=counters.final + step.final,
        live=counters.live + step.live,
        coalesced=counters.coalesced + step.coalesced,
        batches=counters.batches + bool(step.moves),
        process_us=counters.process_us + ran.process_us,
    )
    changes: dict[str, Any] = {
        "counters": counters,
        "steps": head.steps + 1,
        "slots": head.slots + bool(step.items),
        "tokens": ran.tokens,
    }
    held = state.items if state is not None else deque[Item]()
    window = _slid(step, held)
    changes |= window.changes
    before = state.head.answers if state is not None else ()
    answers, learnt, predicted = _corrected(step, ran)
    answers = _judged(step, answers, before)
    if step.moves:
        changes |= {
            "answers": answers,
            "previous": {one.query_id: one.value for one in before},
            "abstained_before": tuple(one.query_id for one in before if one.abstained),
            "evaluated_ms": ran.evaluated_ms,
            "version_records": window.changes["records"],
            "version_first": window.first_offset,
            "version_offset": head.records_offset,
            "ingest_tokens": ran.ingest_tokens,
            "decoded_tokens": ran.decoded_tokens,
            "update_ms": ran.process_us / 1000,
            "pending": ran.pending,
            **learnt,
            "trace": ran.trace,
            "ready": next((one for one in ran.answers if one.query_id == NEXT_WORD.id), None),
        }
    elif answers:
        changes["answers"] = (*head.answers, *answers)
        changes |= learnt
    after = msgspec.structs.replace(head, **changes)
    _learn(step, state, after, predicted, ran.model)
    return after


def _learn(
    step: Step, state: SessionState | None, after: Head, predicted: list[Predicted], model: str
) -> None:
    """Settle the step's labels, where any of its questions learns."""
    counts = step.learning.counts  # what came of those that were sent, the plan has counted
    step.learning = StepLearning(counts=counts)
    if not any(query.learn for query in after.spec.flash):
        return
    held = state.items if state is not None else deque[Item]()
    window = chain(reversed(step.items), islice(reversed(held), step.rewind, None))
    pending = state.pending if state is not None else PendingAnswers()
    settle_labels(step.learning, after, pending, step.labels, predicted, window, model)


def next_state(step: Step, state: SessionState | None, head: Head) -> SessionState:
    """The state with the step in it; takes the old state's items over."""
    items = state.items if state is not None else deque[Item]()
    for _ in range(step.rewind):
        items.pop()
    items.extend(step.items)
    while len(items) > head.items:
        items.popleft()
    last = step.last
    if last is not None and last.number < block_start(head.window, head.count):
        last = None
    pending = state.pending if state is not None else PendingAnswers()
    for waits in step.learning.changes:
        pending.put(waits)
    for query_id in {*pending.waiting, *pending.labelled} - {one.id for one in head.spec.flash}:
        pending.drop(query_id)
    return SessionState(head, items, None if step.marks_prefix else last, pending)


@dataclass(frozen=True, slots=True)
class _Slid:
    """The window after a step: what changes in the head, and its oldest item's offset."""

    changes: dict[str, Any]
    first_offset: int


def _slid(step: Step, held: deque[Item]) -> _Slid:
    """The window with the step's items in it and what they push out gone. The work is in
    what comes and goes, never in what stays (invariant 4)."""
    head = step.head
    if step.marks_prefix:
        frozen = (*head.frozen, *(item.line for item in held))
        return _Slid(
            {
                "frozen": frozen,
                "prefix_tokens": head.tokens,
                "base": head.written,
                "count": 0,
                "items": 0,
                "records": 0,
            },
            -1,
        )
    count = head.count - step.rewind + len(step.items)
    items = window_length(head.window, count)
    left = len(held) - step.rewind
    dropped = left + len(step.items) - items
    # The last ones are the step's to write again.
    rewound = sum(item.fields is not None for item in islice(reversed(held), step.rewind))
    gone = rewound + sum(
        item.fields is not None for item in islice(chain(islice(held, left), step.items), dropped)
    )
    oldest = next(islice(chain(islice(held, left), step.items), dropped, None), None)
    return _Slid(
        {"count": count, "items": items, "records": head.records + step.records - gone},
        oldest.offset if oldest is not None else -1,
    )


def _corrected(step: Step, ran: Ran) -> tuple[tuple[Answer, ...], dict[str, Any], list[Predicted]]:
    """The answers as they are published, each with its time and what gave it, what changes in
    the head with these answers in its means, and what the questions' heads predicted."""
    by = AnsweredBy(model=ran.model, spec=spec_hash(step.head.spec))
    queries = {query.id: query for query in step.head.spec.flash}
    priors, means = dict(step.head.priors), dict(step.head.hidden_means)
    answers = []
    predicted = []
    for place, raw in enumerate(ran.answers):
        if raw.query_id == NEXT_WORD.id:
            continue
        query = queries[raw.query_id]
        answer = msgspec.structs.replace(raw, evaluated_ms=ran.evaluated_ms, answered_by=by)
        if answer.probabilities and query.calibrate:
            prior = priors.get(answer.query_id)
            answer, priors[answer.query_id] = correct(answer, prior)
        if query.learn and ran.heads is not None:
            head = ran.heads(head_name(step.head.spec, query, ran.model))
            hidden = ran.hidden[place] if ran.hidden else b""
            if hidden:
                hidden, means[query.id] = with_move(hidden, means.get(query.id, b""))
            answer, made = predict(head, step.head.session_id, query, answer, hidden)
            predicted.append(made)
        answers.append(answer)
    return tuple(answers), {"priors": priors, "hidden_means": means}, predicted


def _judged(step: Step, answers: Iterable[Answer], before: Iterable[Answer]) -> tuple[Answer, ...]:
    """The answers as their questions' `min_confidence` and `hysteresis` have them."""
    queries = {query.id: query for query in step.head.spec.flash}
    stood = {one.query_id: one for one in before}
    return tuple(judged(one, queries[one.query_id], stood.get(one.query_id)) for one in answers)
