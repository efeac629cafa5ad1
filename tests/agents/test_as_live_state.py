"""A session at a live version is folded from its messages, also where the first ones are gone."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashfeed.agents.as_live_state import (
    NO_CONTEXT,
    NO_CREATION,
    Fold,
    goes_on,
    prior_before,
    state_at,
)
from flashfeed.agents.session_events import flash_events, updated_event
from flashfeed.agents.session_learning import predict
from flashfeed.agents.session_step import SessionState, Waiting
from flashfeed.heads.prior import correct
from flashfeed.models.messages import AddQuery, Append, Delete, MarkPrefix
from flashfeed.models.session import Answer, FlashQuery, SessionSpec
from flashfeed.models.state import Head, Prior

from session_steps import apply, lines, reading, spec_of, taught_head

CALM = FlashQuery("Calm?", choices=("yes", "no"))
LEARNS = msgspec.structs.replace(CALM, id=1, learn=True)

sizes = st.lists(st.integers(1, 5), min_size=2, max_size=20)


def messages(counts: list[int]) -> list[Waiting]:
    """Messages of so many readings each, the records of the whole numbered through."""
    made, at = [], 0
    for offset, count in enumerate(counts):
        made.append(reading(offset, *range(at, at + count), at=at))
        at += count
    return made


def folded(come: list[Waiting], spec: SessionSpec, *, wide: bool = False) -> SessionState | None:
    fold = Fold("s", lambda _: spec, wide=wide)
    for one in come:
        fold.apply(one)
    return fold.state


def lived(come: list[Waiting], spec: SessionSpec) -> SessionState:
    state, _ = apply(None, *come, find=lambda _: spec)
    assert state is not None
    return state


@given(sizes, st.integers(1, 6), st.sampled_from(["exact", "shift", "grow"]), st.data())
@settings(max_examples=50)
def test_with_all_messages_the_state_is_the_one_that_was(
    counts: list[int], items: int, mode: str, data: st.DataObject
) -> None:
    come, spec = messages(counts), spec_of(mode, items)
    at = data.draw(st.integers(1, len(come)))
    live = lived(come[:at], spec)
    state = state_at(updated_event(live.head), folded(come[:at], spec), None)
    assert isinstance(state, SessionState)
    assert lines(state) == lines(live)
    for one in come[at:]:
        live, state = (apply(held, one)[0] for held in (live, state))  # type: ignore[assignment]
        assert lines(state) == lines(live)


@given(sizes, st.integers(1, 6), st.data())
@settings(max_examples=50)
def test_where_the_first_are_gone_the_context_goes_on_as_it_was(
    counts: list[int], items: int, data: st.DataObject
) -> None:
    """Whatever is left before the context: the lines are the same then, and after every later
    message."""
    come, spec = messages(counts), spec_of("exact", items)
    at = data.draw(st.integers(1, len(come)))
    live = lived(come[:at], spec)
    version = updated_event(live.head)
    left = come[data.draw(st.integers(0, version.records_first)) : at]
    state = state_at(version, folded(left, spec), folded(left, spec, wide=True))
    assert isinstance(state, SessionState)
    assert lines(state) == lines(live)
    for one in come[at:]:
        live, state = (apply(held, one)[0] for held in (live, state))  # type: ignore[assignment]
        assert lines(state) == lines(live)


def test_what_cannot_be_told_is_said_in_words() -> None:
    come, spec = messages([1] * 9), spec_of("exact", 3)
    version = updated_event(lived(come, spec).head)
    left = come[version.records_first + 1 :]
    assert state_at(version, folded(left, spec), folded(left, spec, wide=True)) == NO_CONTEXT
    assert state_at(version, None, None) == NO_CREATION


def test_texts_prefixes_questions_and_an_end_are_folded_as_they_came() -> None:
    spec = spec_of("exact", 3)
    come = [
        *messages([2, 2]),
        Waiting(2, MarkPrefix()),
        Waiting(3, Append(text="be brief")),
        Waiting(4, AddQuery(query=CALM)),
        reading(5, 7.0, at=9),
    ]
    live, state = lived(come, spec), folded(come, spec)
    assert state is not None
    assert (lines(state), state.head.frozen) == (lines(live), live.head.frozen)
    assert [one.query for one in state.head.spec.flash] == ["High?", "Calm?"]
    again = [*come, Waiting(6, Delete()), reading(7, 1.0, at=20)]
    assert lines(folded(again, spec)) == lines(lived(again, spec))
    assert len(lines(folded(again, spec))) == 1


def test_it_goes_on_with_the_next_version_and_knows_what_was_answered() -> None:
    spec = spec_of("exact", 3)
    come = messages([1, 1, 1])
    fold = Fold("s", lambda _: spec)
    for one in come[:2]:
        fold.apply(one)
    before = lived(come[:2], spec)  # both at once: one version
    after, [step] = apply(before, come[2])
    assert after is not None and fold.state is not None
    state = goes_on(fold.state, 1, flash_events(after.head), fold)
    made, _ = apply(state, come[2])
    assert made is not None
    [one], [other] = flash_events(made.head), flash_events(after.head)
    assert one.confidence == pytest.approx(other.confidence)
    assert (one.value, one.previous, one.data_version) == ("yes", "yes", 2)
    assert step.moves


@pytest.mark.parametrize("count", [1, 5, 700])
def test_the_prior_before_an_answer_is_read_from_it(count: int) -> None:
    """What is published of the next answer is the same by it as by the one that was."""
    means = {"yes": -0.3, "no": -1.7, "maybe": -2.5}
    prior = Prior(count, means)
    shares = {"yes": 0.7, "no": 0.25, "maybe": 0.05}
    answer, _ = correct(Answer(1, "yes", 0.7, 1.0, probabilities=shares), prior)
    event = flash_events(_head(answer))[0]
    found = prior_before(event, count)
    assert found is not None
    following = Answer(1, "no", 0.5, 0.1, probabilities={"yes": 0.3, "no": 0.5, "maybe": 0.2})
    one, other = (correct(following, it)[0].probabilities for it in (found, prior))
    for choice in means:
        assert math.isclose(one[choice], other[choice], rel_tol=1e-9)
    assert prior_before(event, 0) is None


def test_the_prior_before_a_learnt_heads_answer_is_read_from_what_its_forecaster_said() -> None:
    count, means = 30, {"yes": -0.3, "no": -1.7}
    corrected, _ = correct(
        Answer(1, "yes", 0.97, 3.5, probabilities={"yes": 0.97, "no": 0.03}), Prior(count, means)
    )
    answer, _ = predict(taught_head(1), "s", LEARNS, corrected, b"")
    event = flash_events(_head(answer))[0]
    assert (answer.answered_by.head, event.value) == ("mixed", "no")
    found = prior_before(event, count)
    assert found is not None
    assert found.means["yes"] - found.means["no"] == pytest.approx(means["yes"] - means["no"])
    nothing_said = msgspec.structs.replace(event, learned=None)
    assert prior_before(nothing_said, count) is None


def _head(answer: Answer) -> Head:
    live = lived(messages([1]), SessionSpec(type="iot", flash=(CALM,)))
    return msgspec.structs.replace(live.head, answers=(answer,))
