"""What a question's min_confidence, hysteresis and publish make of a session's events, over
a recovery too (invariants 2 and 8)."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from flashfeed.agents.session_outputs import standing_events, step_outputs, version_events
from flashfeed.agents.session_plan import plan_step
from flashfeed.agents.session_settle import next_state, settle_step
from flashfeed.agents.session_step import SessionState, Waiting
from flashfeed.models.events import FlashReady
from flashfeed.models.messages import AddQuery
from flashfeed.models.session import Answer, FlashQuery, SessionSpec
from flashfeed.models.state import Head
from flashfeed.models.views import SessionEvent

from session_bench import TOPICS, Bench
from session_steps import ran, reading

SPEC = SessionSpec(
    type="iot",
    flash=(
        FlashQuery(
            "High?",
            choices=("yes", "no"),
            id=1,
            calibrate=False,
            min_confidence=0.65,
            hysteresis=0.1,
            publish="changes",
        ),
        FlashQuery("Why?", id=2),
    ),
)
SHARES = [0.9, 0.8, 0.6, 0.56, 0.48, 0.3, 0.2, 0.9]
VALUES = ["yes", "yes", "yes", "yes", "yes", "no", "no", "yes"]
OUT = [True, False, True, False, False, True, False, True]
ABSTAINED = [False, False, True, True, True, False, False, False]


def answered(state: SessionState | None, offset: int, yes: float) -> tuple[SessionState, list[str]]:
    """One more reading, answered with that probability; the state, and what goes out."""
    step = plan_step("s", state, [reading(offset, offset)], lambda _: SPEC)
    value = "yes" if yes >= 0.5 else "no"
    shares = {"yes": yes, "no": 1 - yes}
    answers = [
        Answer(1, value, shares[value], 1.0, probabilities=shares),
        Answer(2, "so", 0.1, 1.0),
    ]
    head = settle_step(step, state, replace(ran(step), answers=answers))
    out = step_outputs(step, state, head, 0, TOPICS)
    assert [one.id for one in out.answers] == [1, 2]  # all are counted
    return next_state(step, state, head), names(out.events)


def names(events: list[SessionEvent]) -> list[str]:
    return [one.name if isinstance(one, FlashReady) else "updated" for one in events]


@pytest.mark.parametrize("crash", [False, True])
def test_a_session_says_what_changed_and_what_it_is_sure_of(crash: bool) -> None:
    state: SessionState | None = None
    for offset, share in enumerate(SHARES):
        state, out = answered(state, offset, share)
        if crash:  # the head alone is what a new owner knows
            head = msgspec.json.decode(msgspec.json.encode(state.head), type=Head)
            state = SessionState.restored(head, state.items)
        [high, why] = [one for one in standing_events(state.head) if isinstance(one, FlashReady)]
        assert (high.value, high.abstained) == (VALUES[offset], ABSTAINED[offset])
        assert high.held is (offset == 4)
        assert high.confidence == high.probabilities[high.value]
        assert not why.abstained
        assert out == [*(["q1"] if OUT[offset] else []), "q2", "updated"]
        assert names(version_events(state.head)) == out  # a recovery says the same again


async def test_what_is_no_news_is_written_nowhere_and_counted() -> None:
    bench = Bench(SPEC)
    for offset in range(3):
        await bench.apply(reading(offset, offset))
    assert [one.topic for one in bench.steps.events].count("flash") == 1 + 3
    assert [one.topic for one in bench.steps.events].count("answers") == 1 + 3
    assert [one.topic for one in bench.steps.events].count("updated") == 3
    assert counted(bench, "flashfeed_answers_total") == 6
    assert counted(bench, "flashfeed_abstained_answers_total") == 0
    assert counted(bench, "flashfeed_held_answers_total") == 0


def counted(bench: Bench, name: str) -> float:
    families = bench.metrics.registry.collect()
    return sum(one.value for family in families for one in family.samples if one.name == name)


async def test_what_is_unsure_is_counted() -> None:
    [high, why] = SPEC.flash
    strict = msgspec.structs.replace(high, min_confidence=0.8)
    bench = Bench(msgspec.structs.replace(SPEC, flash=(strict, why)))
    for offset in range(3):
        await bench.apply(reading(offset, offset))
    assert counted(bench, "flashfeed_abstained_answers_total") == 3


async def test_a_question_asked_later_is_answered_once() -> None:
    bench = Bench(SPEC)
    await bench.apply(reading(0, 0))
    late = FlashQuery("Low?", choices=("yes", "no"), min_confidence=1.0, publish="changes")
    await bench.apply(Waiting(1, AddQuery(query=late)))
    await bench.apply(reading(2, 2))
    events = [
        msgspec.json.decode(one.value or b"", type=FlashReady)
        for one in bench.steps.events
        if one.topic == "flash"
    ]
    [low] = [one for one in events if one.id == 3]
    assert low.abstained and low.data_version == 1
