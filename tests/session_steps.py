"""Session steps for tests, run as an owner would: messages in, states and steps out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from flashfeed.agents.session_learning import FindHead
from flashfeed.agents.session_plan import plan_step
from flashfeed.agents.session_queue import take_waiting
from flashfeed.agents.session_settle import Ran, next_state, settle_step
from flashfeed.agents.session_step import SessionState, Step, Waiting
from flashfeed.heads.learner import Head as LearningHead
from flashfeed.models.learning import Example, Features
from flashfeed.models.messages import PackedRecord, Records
from flashfeed.models.session import Answer, FlashQuery, SessionSpec, WindowSpec
from flashfeed.models.state import Head

CHOICES = ("yes", "no")
SPEC = SessionSpec(type="iot", flash=(FlashQuery("High?", choices=CHOICES),))

Settled = Callable[[Head, Step], None]


def spec_of(mode: str, items: int) -> SessionSpec:
    """The spec with that window."""
    window = WindowSpec(mode, items)  # type: ignore[arg-type]
    return SessionSpec(type="iot", flash=SPEC.flash, window=window)


def templates(name: str) -> SessionSpec | None:
    return SPEC if name == "sensor" else None


def reading(
    offset: int,
    *values: float,
    at: int | None = None,
    topic: str = "t",
    key: str = "",
    template: str = "sensor",
    since: float | None = None,
) -> Waiting:
    """A message at `offset` with readings of one sensor, from source offset `at` on, of each
    second `since` then where that is said."""
    start = offset if at is None else at
    records = tuple(
        PackedRecord(
            start + place, 0, 1000 + place, {"sid": "a", "val": value} | _time(place, since)
        )
        for place, value in enumerate(values)
    )
    message = Records(
        type="iot", records=records, topic=topic, template=template, idempotency_key=key
    )
    return Waiting(offset, message)


def _time(place: int, since: float | None) -> dict[str, float]:
    return {} if since is None else {"timestamp": since + place}


def ran(step: Step, *, share: float = 0.75, tokens: int = 10) -> Ran:
    """What an engine gives that answers "yes" to everything."""
    answers = [
        Answer(query.id, "yes", share, 1.0, probabilities={"yes": share, "no": 1 - share})
        if query.choices
        else Answer(query.id, "yes", share, 1.0)
        for query in step.queries
    ]
    return Ran(
        answers=answers,
        tokens=tokens,
        ingest_tokens=5,
        decoded_tokens=9,
        process_us=1000,
        evaluated_ms=1_700_000_000_000,
        pending=0,
        model="m",
    )


def apply(
    state: SessionState | None,
    *waiting: Waiting,
    settled: Settled | None = None,
    find: Callable[[str], SessionSpec | None] = templates,
    bound: int = 10_000,
    heads: FindHead | None = None,
) -> tuple[SessionState | None, list[Step]]:
    """Run all steps; `settled` sees each head that goes to the changelog, `bound` is the
    worker's of a queue, and `heads` have learnt."""
    left, steps = list(waiting), []
    while left:
        head = state.head if state is not None else None
        spec, applied = (head.spec, head.records_offset) if head is not None else (None, -1)
        taken = take_waiting(left, spec, bound, applied)
        left = left[len(taken.messages) :]
        step = plan_step("s", state, taken.messages, find, relief=taken.relief)
        steps.append(step)
        head = settle_step(step, state, replace(ran(step), heads=heads))
        if step.deletes:
            state = None
        elif state is not None or step.creates:
            state = next_state(step, state, head)
            if settled is not None:
                settled(head, step)
    return state, steps


def lines(state: SessionState | None) -> list[str]:
    assert state is not None
    return [item.line for item in state.items]


def values(state: SessionState | None) -> list[float]:
    assert state is not None
    return [item.fields["val"] for item in state.items if item.fields]


def taught_head(label: int, n_labels: int = 40) -> LearningHead:
    """A head to whom the label was always that choice of CHOICES."""
    head = LearningHead(len(CHOICES))
    features = Features((0.0, 0.0))
    for _ in range(n_labels):
        prediction = head.predict("taught", features, (0.5, 0.5))
        head.learn(Example("taught", features, label, prediction))
    return head
