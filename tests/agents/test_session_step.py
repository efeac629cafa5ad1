"""A session's step as values: invariants 2, 3 and 6 without broker or model."""

from __future__ import annotations

import pytest

from flashfeed.agents.session_events import flash_events, updated_event
from flashfeed.agents.session_plan import failed_step, plan_step
from flashfeed.agents.session_queue import take_waiting
from flashfeed.agents.session_step import (
    STEP_ITEMS_MAX,
    SessionState,
    Waiting,
)
from flashfeed.models.errors import (
    ContextFull,
    RequestError,
    SessionExists,
    SessionFailed,
    SessionUnknown,
)
from flashfeed.models.events import cloud_event
from flashfeed.models.messages import (
    AddQuery,
    Append,
    Create,
    Delete,
    MarkPrefix,
    PackedRecord,
    Records,
    RemoveQuery,
)
from flashfeed.models.session import QUERIES_MAX, FlashQuery, SessionSpec

from session_steps import SPEC, apply, lines, reading, templates, values


def test_what_waits_becomes_one_version() -> None:
    state, steps = apply(None, reading(0, 1, 2), reading(5, 3, at=7))
    assert len(steps) == 1
    assert values(state) == [1, 2, 3]
    assert state is not None
    assert state.head.version == 1
    assert state.head.counters.processed == 3
    [origin] = state.head.origins
    assert (origin.topic, origin.partition, origin.first, origin.last) == ("t", 0, 0, 7)


def test_a_message_seen_before_is_skipped_whole() -> None:
    state, _ = apply(None, reading(0, 1), reading(1, 2))
    again, [step] = apply(state, reading(1, 2))
    assert again is not None and state is not None
    assert not step.moves
    assert (again.head.version, values(again)) == (state.head.version, [1, 2])


def test_a_record_that_a_feed_sent_twice_is_applied_once() -> None:
    state, [step] = apply(None, reading(0, 1, 2), reading(3, 2, 3, at=1))
    assert values(state) == [1, 2, 3]
    assert step.duplicates == 1


def test_an_idempotency_key_is_applied_once() -> None:
    first = reading(0, 1, topic="", key="k")
    state, _ = apply(None, first, reading(1, 1, topic="", key="k"), reading(2, 1, topic=""))
    assert values(state) == [1, 1]


def test_an_unknown_session_sends_its_records_to_the_dead_letters() -> None:
    lost = Waiting(0, Records(type="iot", records=(PackedRecord(0, 0, 0, {}),), template="none"))
    state, [step] = apply(None, lost)
    assert state is None
    assert [one.reason for one in step.refused] == ["session_unknown"]
    assert isinstance(step.outcomes[0], SessionUnknown)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"sid": "a"}, "validate"), ({"sid": "a", "val": "x"}, "validate")],
)
def test_a_bad_record_leaves_its_neighbours(fields: dict[str, object], reason: str) -> None:
    bad = PackedRecord(1, 0, 0, fields)
    good = [PackedRecord(place, 0, 0, {"sid": "a", "val": place}) for place in (0, 2)]
    message = Records(type="iot", records=(good[0], bad, good[1]), topic="t", template="sensor")
    state, [step] = apply(None, Waiting(0, message))
    assert values(state) == [0, 2]
    assert [(one.record.offset, one.reason) for one in step.refused] == [(1, reason)]


def test_a_record_of_another_type_is_refused() -> None:
    candle = PackedRecord(0, 0, 0, {"o": 1, "h": 1, "l": 1, "c": 1, "v": 1})
    state, _ = apply(None, reading(0, 1))
    _, [step] = apply(state, Waiting(1, Records(type="ohlcv", records=(candle,), topic="u")))
    assert [one.reason for one in step.refused] == ["session_failed"]


def test_what_changes_the_session_is_a_step_of_its_own() -> None:
    taken = take_waiting([reading(0, 1), Waiting(1, AddQuery(query=FlashQuery("Q?")))], None, 1)
    assert [one.offset for one in taken.messages] == [0]
    many = [reading(place * 30, *range(30), at=place * 30) for place in range(12)]
    for bound in (64, STEP_ITEMS_MAX):
        taken = take_waiting(many, SPEC, 1, fits=lambda items, most=bound: items <= most)
        assert bound - 30 < sum(one.records for one in taken.messages) <= bound
    whole = reading(0, *range(STEP_ITEMS_MAX + 1))
    assert take_waiting([whole, whole], SPEC, 1).messages == [whole]  # a message is never cut


def test_queries_come_and_go_and_keep_their_ids() -> None:
    state, steps = apply(
        None,
        Waiting(0, Create(spec=SPEC)),
        reading(1, 1),
        Waiting(2, AddQuery(query=FlashQuery("Low?"))),
        Waiting(3, RemoveQuery(query_id=1)),
        Waiting(4, AddQuery(query=FlashQuery("Flat?"))),
        Waiting(5, AddQuery(query=FlashQuery("Flat?"))),
        Waiting(6, RemoveQuery(query_id=1)),
    )
    assert state is not None
    assert [(query.id, query.query) for query in state.head.spec.flash] == [
        (2, "Low?"),
        (3, "Flat?"),
    ]
    assert [query.id for query in steps[2].queries] == [2]  # answered over what is there
    assert {answer.query_id for answer in state.head.answers} == {2, 3}
    assert state.head.version == 1
    assert isinstance(steps[5].outcomes[5], SessionExists)
    assert isinstance(steps[6].outcomes[6], SessionUnknown)


def test_a_session_has_so_many_queries_and_no_more() -> None:
    state, _ = apply(None, Waiting(0, Create(spec=SessionSpec(type="iot"))))
    asked = [Waiting(n, AddQuery(query=FlashQuery(f"{n}?"))) for n in range(1, QUERIES_MAX + 2)]
    state, steps = apply(state, *asked)
    assert state is not None
    assert len(state.head.spec.flash) == QUERIES_MAX
    assert isinstance(steps[-1].outcomes[QUERIES_MAX + 1], RequestError)


def test_create_twice_append_prefix_and_delete() -> None:
    state, steps = apply(
        None,
        Waiting(0, Create(spec=SPEC)),
        Waiting(1, Append(text="Ward 3")),
        Waiting(2, MarkPrefix()),
        Waiting(3, Create(spec=SPEC)),
    )
    assert state is not None
    assert lines(state) == []
    assert state.head.frozen == ("Ward 3",)
    assert state.head.prefix_tokens == 10
    assert isinstance(steps[-1].outcomes[3], SessionExists)
    gone, [step] = apply(state, Waiting(4, Delete()))
    assert gone is None
    assert step.deletes


def test_a_failed_step_moves_past_its_records_and_refuses_them() -> None:
    state, _ = apply(None, reading(0, 1))
    taken = [reading(1, 2)]
    step = plan_step("s", state, taken, templates)
    failed = failed_step(step, state, ContextFull("full"))
    assert [one.reason for one in failed.refused] == ["context_full"]
    assert failed.head.records_offset == 1
    assert failed.head.version == 1
    assert not failed.items
    assert isinstance(failed.outcomes[1], ContextFull)
    assert state is not None
    after = SessionState(failed.head, state.items, state.last)
    later = plan_step("s", after, [reading(2, 3), Waiting(3, Append(text="x"))], templates)
    assert [one.reason for one in later.refused] == ["session_failed"]
    assert isinstance(later.outcomes[3], SessionFailed)


def test_the_same_head_gives_the_same_events() -> None:
    state, _ = apply(None, reading(0, 1), reading(1, 2))
    assert state is not None
    first = [cloud_event(one, "/x") for one in flash_events(state.head)]
    again = [cloud_event(one, "/x") for one in flash_events(state.head)]
    assert first == again
    assert updated_event(state.head).data_count == 2
    assert [one.changed for one in flash_events(state.head)] == [True]
    moved, _ = apply(state, reading(2, 3))
    assert moved is not None
    assert [(one.previous, one.changed) for one in flash_events(moved.head)] == [("yes", False)]


def test_what_follows_a_version_does_not_change_its_events() -> None:
    state, _ = apply(None, reading(0, 1))
    assert state is not None
    published = [cloud_event(one, "/x") for one in flash_events(state.head)]
    published.append(cloud_event(updated_event(state.head), "/x"))
    for later in (
        reading(1, 1, at=0),  # a repeat
        Waiting(2, MarkPrefix()),
        Waiting(3, AddQuery(query=FlashQuery("Low?"))),
    ):
        state, _ = apply(state, later)
        assert state is not None
        again = [cloud_event(one, "/x") for one in flash_events(state.head, [1])]
        again.append(cloud_event(updated_event(state.head), "/x"))
        assert again == published


def test_a_question_too_long_fails_its_caller_and_not_the_session() -> None:
    state, _ = apply(None, reading(0, 1))
    taken = [Waiting(1, AddQuery(query=FlashQuery("long?")))]
    failed = failed_step(plan_step("s", state, taken, templates), state, ContextFull("full"))
    assert isinstance(failed.outcomes[1], ContextFull)
    assert failed.head.failed == ""
    assert state is not None
    assert failed.head.spec == state.head.spec
    assert failed.head.records_offset == 1
