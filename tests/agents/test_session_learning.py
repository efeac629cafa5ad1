"""Labels of a session's answers: sent, or by rule; each applied once, across a takeover at any
step (invariants 1 and 2). No broker, no model."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from flashfeed.agents.changelog import SlotsRead
from flashfeed.agents.fetched_record import FetchedRecord
from flashfeed.agents.head_learning import HeadLearning
from flashfeed.agents.outcomes import read_outcomes
from flashfeed.agents.session_learning import head_name
from flashfeed.agents.session_outputs import OutputTopics, step_outputs
from flashfeed.agents.session_pending import PENDING_MAX
from flashfeed.agents.session_plan import plan_step
from flashfeed.agents.session_settle import next_state, settle_step
from flashfeed.agents.session_step import SessionState, Waiting
from flashfeed.agents.transport import Batch
from flashfeed.heads.learner import Head
from flashfeed.models.errors import OutcomeContradicts, OutcomeLate, RequestError
from flashfeed.models.events import event_id
from flashfeed.models.learning import ExampleRecord, HeadName
from flashfeed.models.messages import (
    AddQuery,
    Append,
    Asked,
    Delete,
    MarkPrefix,
    Outcome,
    RemoveQuery,
)
from flashfeed.models.outcomes import SentOutcome, decode_outcome
from flashfeed.models.session import FlashQuery, OutcomeSpec, SessionSpec, WindowSpec

from session_steps import CHOICES, ran, reading

TOPICS = OutputTopics(
    "/x", "changelog", "letters", "flash", "updated", "answers", "examples", "outcomes"
)
ASKED = FlashQuery("High?", name="high", choices=CHOICES, learn=True)
RULE = OutcomeSpec("yes if value > value@0 else no", "2 records")
RULED = msgspec.structs.replace(ASKED, outcome=RULE)


class Session:
    """A session by its steps, its changelog, and the examples that it wrote."""

    def __init__(self, query: FlashQuery = ASKED, items: int = 8, **more: Any) -> None:
        self.spec = SessionSpec(
            type="iot", flash=(query,), window=WindowSpec("exact", items), **more
        )
        self.state: SessionState | None = None
        self.log = SlotsRead()
        self.examples: list[ExampleRecord] = []
        self.outcomes: list[SentOutcome] = []
        self.errors: dict[int, Exception | None] = {}
        self.counts: dict[tuple[str, str], int] = {}
        self.offset = 0
        self.found: list[HeadName] = []
        self.head = Head(2)
        self.hidden = bytes(4)

    def find(self, name: HeadName) -> Head:
        self.found.append(name)
        return self.head

    def apply(self, message: Any, *, lost_after: str = "") -> None:
        """One message. Where the step is lost after its examples, or after its slots, the
        worker died there: it is done again by the next one."""
        one = Waiting(self.offset, message)
        step = plan_step("s", self.state, [one], lambda _: self.spec)
        given = ran(step)
        hidden = [self.hidden] * len(given.answers)
        head = settle_step(step, self.state, msgspec_replace(given, hidden=hidden, heads=self.find))
        out = step_outputs(step, self.state, head, 0, TOPICS)
        self.examples += [
            msgspec.json.decode(write.value or b"", type=ExampleRecord)
            for write in out.refused
            if write.topic == "examples"
        ]
        self.outcomes += [
            decode_outcome(write.value) for write in out.refused if write.topic == "outcomes"
        ]
        if lost_after == "examples":
            return self.take_over()
        kept = out.changelog[:-1] if lost_after == "slots" else out.changelog
        for write in kept:
            self.log.take(write.key or b"", write.value)
        if lost_after:
            return self.take_over()
        self.errors[self.offset] = step.outcomes[self.offset]
        for key, count in step.learning.counts.items():
            self.counts[key] = self.counts.get(key, 0) + count
        self.offset += 1
        self.state = None if step.deletes else next_state(step, self.state, head)
        assert not self.log.bad
        if self.state is not None:
            [back] = self.log.states()
            assert back.pending == self.state.pending
        return None

    def take_over(self) -> None:
        """Another worker reads the changelog."""
        states = self.log.states()
        self.state = states[0] if states else None

    def reading(self, *values: float, since: float | None = None, **more: Any) -> None:
        made = reading(self.offset, *values, at=10 * self.offset, since=since)
        self.apply(made.message, **more)

    def outcome(
        self, label: str, version: int = 0, event: str = "", **more: Any
    ) -> Exception | None:
        self.apply(Outcome(query="high", label=label, data_version=version, event_id=event, **more))
        return self.errors[self.offset - 1]

    @property
    def learnt(self) -> list[tuple[int, str]]:
        """Versions and labels of the examples, repeats by their ids left out."""
        return [(one.data_version, one.label) for one in {e.id: e for e in self.examples}.values()]


def msgspec_replace(given: Any, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(given, **changes)


def test_a_label_is_applied_once_and_the_first_one_stands() -> None:
    s = Session()
    for value in (1, 2, 3):
        s.reading(value)
    assert s.outcome("no", 2) is None
    assert s.outcome("no", 2) is None
    assert isinstance(s.outcome("yes", 2), OutcomeContradicts)
    assert isinstance(s.outcome("yes", 9), OutcomeLate)
    assert isinstance(s.outcome("maybe", 1), RequestError)
    s.take_over()
    assert s.outcome("no", 2) is None
    assert s.learnt == [(2, "no")]
    [example] = s.examples
    assert (example.by, example.example.label, example.head.label) == ("user", 1, "high")
    assert example.example.features.hidden == bytes(8)  # and how it moved
    results = {result: count for (_, result), count in s.counts.items()}
    assert results == {"applied": 1, "repeated": 2, "contradicting": 1, "late": 1}


def test_how_a_hidden_state_moved_goes_on_after_a_takeover() -> None:
    def rows(crash: bool) -> list[bytes]:
        s = Session(msgspec.structs.replace(ASKED, outcome=OutcomeSpec("yes", "0 records")))
        for number in (1.0, 4.0, 4.0, -2.0):
            s.hidden = np.array([number, 0], "<f2").tobytes()
            s.reading(number)
            if crash:
                s.take_over()
        s.apply(RemoveQuery(query_id=1))
        assert s.state is not None and not s.state.head.hidden_means
        return [one.example.features.hidden for one in s.examples]

    moves = [np.frombuffer(row, "<f2")[2] for row in rows(crash=False)]
    assert moves == pytest.approx([0, 3, 2, -2 - (2 + 2 / 3)], abs=0.01)
    assert rows(crash=True) == rows(crash=False)


def test_an_answer_may_be_named_by_its_event() -> None:
    s = Session()
    s.reading(1)
    s.reading(2)
    assert s.state is not None
    head = s.state.head
    assert s.outcome("yes", event=event_id("s", 2, 1, head.version_offset)) is None
    assert s.learnt == [(2, "yes")]
    assert isinstance(s.outcome("yes", event="0" * 32), OutcomeLate)


def test_only_a_question_that_learns_takes_outcomes_and_keeps_anything() -> None:
    s = Session(FlashQuery("High?", name="high", choices=CHOICES))
    s.reading(1)
    error = s.outcome("yes", 1)
    assert isinstance(error, RequestError)
    assert "learn = true" in str(error)
    assert not s.found
    assert not s.log.pending


def test_a_rule_labels_each_answer_when_its_outcome_is_there() -> None:
    s = Session(RULED)
    for value in (5, 7, 6, 6, 9, 1):
        s.reading(value)
    assert s.learnt == [(1, "yes"), (2, "no"), (3, "yes"), (4, "no")]
    assert {one.by for one in s.examples} == {"rule"}
    assert s.outcome("no", 4) is None  # what the rule said is known
    assert isinstance(s.outcome("yes", 4), OutcomeContradicts)
    assert s.outcome("no", 6) is None  # a user may know before the rule
    s.reading(2)
    s.reading(3)
    assert s.learnt[4:] == [(6, "no"), (5, "no")]


def test_every_outcome_is_on_the_outcomes_topic_once_however_it_came() -> None:
    s = Session(RULED)
    for place, value in enumerate((5, 7, 6)):
        s.reading(value, since=10.0 * place)
    assert s.outcome("no", 2, time=8.0) is None  # over HTTP: nobody wrote it to the topic
    assert s.outcome("no", 2) is None
    assert s.outcome("yes", 3, asked=Asked("flashfeed.outcomes", 0, 0)) is None
    s.reading(1)
    assert [msgspec.to_builtins(one) for one in s.outcomes] == [
        {"query": "high", "label": label, "data_version": version, "time": at, "session_id": "s"}
        | {"by": by}
        for by, version, label, at in (("rule", 1, "yes", 20.0), ("http", 2, "no", 8.0))
    ]
    assert [(one.by, one.time) for one in s.examples] == [
        ("rule", 20.0),
        ("user", 8.0),
        ("user", None),
    ]
    # They are read where the sent ones are, and are not applied again.
    topic = "flashfeed.outcomes"
    theirs = [msgspec.json.encode(one) for one in s.outcomes]
    mine = [msgspec.json.encode(msgspec.structs.replace(one, by="")) for one in s.outcomes]
    read = read_outcomes(
        Batch(
            topic,
            0,
            0,
            [
                FetchedRecord(topic, 0, place, 0, 0, None, value)
                for place, value in enumerate([*theirs, *mine])
            ],
        )
    )
    assert [key for key, _ in read.messages] == ["s", "s"]
    assert not read.dead_letters


def test_a_rule_counts_records_that_came_in_one_message_too_and_texts_are_none() -> None:
    s = Session(RULED)
    s.reading(5)
    s.apply(Append(text="It is winter."))
    s.reading(1, 9)
    assert s.learnt == [(1, "yes"), (2, "yes")]


def test_what_slid_out_of_the_window_cannot_be_known() -> None:
    s = Session(RULED, items=2)
    s.reading(5)
    s.reading(*range(40))
    s.reading(1)
    assert s.learnt == []
    assert s.counts["rule", "unknown"] == 1
    s = Session(RULED)
    s.reading(5)
    s.apply(MarkPrefix())  # the records are instructions now
    s.reading(1, 2, 3)
    assert s.learnt == []


def test_what_a_rule_cannot_know_somebody_may() -> None:
    s = Session(RULED, items=2)
    s.reading(5)
    s.reading(*range(40))
    s.reading(1)
    assert (s.learnt, s.counts["rule", "unknown"]) == ([], 1)
    s.take_over()
    assert s.outcome("no", 1) is None
    assert s.learnt == [(1, "no")]
    s.take_over()
    assert s.outcome("no", 1) is None
    assert isinstance(s.outcome("yes", 1), OutcomeContradicts)
    assert len(s.examples) == 1


def test_a_clock_that_was_ahead_holds_up_no_answer_but_its_own() -> None:
    later = OutcomeSpec("yes if value > value@0 else no", "20s")
    s = Session(msgspec.structs.replace(ASKED, outcome=later))
    for place in range(6):
        s.reading(place, since=1e9 if place == 1 else 10.0 * place)
    assert [version for version, _ in s.learnt] == [3, 4]
    assert s.counts["rule", "unknown"] == 1  # by that clock nothing came in time after the first
    assert s.state is not None and list(s.state.pending.waiting[1]) == [2, 5, 6]


def test_an_outcome_that_is_arithmetic_is_known_at_once() -> None:
    s = Session(
        msgspec.structs.replace(ASKED, outcome=OutcomeSpec("yes if value > 5 else no", "0 records"))
    )
    s.reading(7)
    s.reading(3)
    assert s.learnt == [(1, "yes"), (2, "no")]
    assert s.state is not None
    assert not s.state.pending.waiting[1]


@pytest.mark.parametrize("lost", ["examples", "slots"])
@pytest.mark.parametrize("rule", [True, False])
def test_a_crash_within_a_step_loses_no_label_and_applies_none_twice(lost: str, rule: bool) -> None:
    """Where steps are no transactions."""
    whole, crashed = Session(RULED if rule else ASKED), Session(RULED if rule else ASKED)
    for session in (whole, crashed):
        for value in (5, 7, 6):
            if session is crashed and session.state is not None:
                session.reading(value, lost_after=lost)
            session.reading(value)
        message = Outcome(query="high", label="no", data_version=3)
        if session is crashed:
            session.apply(message, lost_after=lost)
        session.apply(message)
    assert crashed.learnt == whole.learnt
    assert whole.learnt == ([(1, "yes"), (3, "no")] if rule else [(3, "no")])
    learning = HeadLearning.new(crashed.examples[0].head)
    for one in crashed.examples:  # a repeat is told by its id
        if not learning.knows(one.id):
            learning.learn(one)
    assert learning.head.version == len(whole.learnt)


def test_as_many_answers_wait_as_there_are_slots() -> None:
    s = Session()
    s.reading(1)
    assert s.state is not None
    [waits] = s.state.pending.waiting[1].values()
    for version in range(2, PENDING_MAX + 3):
        s.state.pending.put(msgspec.structs.replace(waits, version=version))
    assert next(iter(s.state.pending.waiting[1])) == 3
    assert len(s.state.pending.waiting[1]) == PENDING_MAX
    assert len(set(s.state.pending.slots())) == PENDING_MAX


def test_a_question_that_is_removed_and_a_session_that_is_deleted_leave_nothing() -> None:
    s = Session()
    s.reading(1)
    s.apply(AddQuery(query=msgspec.structs.replace(ASKED, query="Low?", name="low")))
    s.reading(2)
    assert sorted(s.log.pending["s"]) == ["p1.1", "p1.2", "p2.1", "p2.2"]
    s.apply(RemoveQuery(query_id=2))
    assert sorted(s.log.pending["s"]) == ["p1.1", "p1.2"]
    s.apply(Delete())
    assert not s.log.pending


def test_a_slot_that_cannot_be_read_costs_no_session() -> None:
    s = Session()
    s.reading(1)
    s.reading(2)
    s.log.take(b"s/p1.1", b"no answer", 7)
    s.take_over()
    assert s.state is not None
    assert not s.state.head.failed
    assert list(s.state.pending.waiting[1]) == [2]
    assert [(one.session, one.offset) for one in s.log.bad.values()] == [("", 7)]


def test_a_rule_that_is_none_is_refused_where_it_is_asked() -> None:
    s = Session()
    s.reading(1)
    wrong = msgspec.structs.replace(ASKED, query="Low?", outcome=OutcomeSpec("yes if", "2 records"))
    s.apply(AddQuery(query=wrong))
    assert isinstance(s.errors[1], RequestError)
    assert s.state is not None
    assert len(s.state.head.spec.flash) == 1


def test_a_change_of_model_spec_or_question_is_another_head_and_a_name_is_none() -> None:
    spec = SessionSpec(type="iot", flash=(ASKED,))
    name = head_name(spec, ASKED, "m")
    others = [
        head_name(spec, ASKED, "n"),
        head_name(msgspec.structs.replace(spec, prompt="x"), ASKED, "m"),
        head_name(spec, msgspec.structs.replace(ASKED, query="Low?"), "m"),
        head_name(spec, msgspec.structs.replace(ASKED, choices=("no", "yes")), "m"),
        head_name(spec, RULED, "m"),
        head_name(msgspec.structs.replace(spec, tenant="t"), ASKED, "m"),
    ]
    assert len({name.key, *(one.key for one in others)}) == 7
    more = msgspec.structs.replace(
        spec, flash=(ASKED, FlashQuery("Else?")), overflow="coalesce", queue_records=5
    )
    same = head_name(more, msgspec.structs.replace(ASKED, id=3, name="other"), "m")
    assert same.key == name.key


def test_answers_are_the_heads_when_it_has_learnt() -> None:
    s = Session()
    learning: HeadLearning | None = None
    for value in range(40):
        s.reading(value)
        assert s.state is not None
        assert s.outcome("no", s.state.head.version) is None
        learning = learning or HeadLearning.new(s.examples[0].head)
        learning.learn(s.examples[-1])
        s.head = learning.head
    s.reading(41)
    assert s.state is not None
    [answer] = s.state.head.answers
    assert (answer.answered_by.head, answer.answered_by.head_version) == ("mixed", 40)
    assert answer.value == "no"  # the model says yes, and is always wrong
    assert answer.raw is not None
    assert answer.raw.value == "yes"
    assert answer.learned is not None
    parts = {one.forecaster: one.probabilities for one in answer.learned.forecasts}
    assert parts["mixed"] == answer.probabilities
    assert answer.learned.answer_set == ("no",)
    assert s.state.head.previous == {1: "no"}
