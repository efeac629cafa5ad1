"""What a control message's outcome leads to, also where it is read again after a crash."""

from __future__ import annotations

import orjson

from flashfeed.agents.auto_sessions import AutoSessions
from flashfeed.agents.control_replies import asked_for
from flashfeed.agents.metrics import Metrics
from flashfeed.agents.session_plan import plan_step
from flashfeed.agents.session_settle import next_state, settle_step
from flashfeed.agents.session_step import SessionState, Step, Waiting
from flashfeed.models.config import FeedConfig
from flashfeed.models.messages import AddQuery, Append, Asked, Create, Delete, Message, RemoveQuery
from flashfeed.models.session import FlashQuery
from flashfeed.models.state import Head

from session_steps import SPEC, ran, reading, templates

NEW = FlashQuery("Cold?", choices=("yes", "no"))


def asked(number: int, reply_to: str = "replies") -> dict[str, object]:
    """What a message of the control topic at that offset carries."""
    return {
        "asked": Asked("flashfeed.control", 0, number, reply_to, f"w{number}"),
        "idempotency_key": f"flashfeed.control/0/{number}",
    }


def run(
    state: SessionState | None, offset: int, message: Message
) -> tuple[SessionState | None, Step, Head]:
    step = plan_step("s", state, [Waiting(offset, message)], templates)
    head = settle_step(step, state, ran(step))
    if step.deletes or (state is None and not step.creates):
        return None, step, head
    return next_state(step, state, head), step, head


def made() -> SessionState:
    state, step, head = run(None, 5, Create(spec=SPEC, **asked(1)))  # type: ignore[arg-type]
    [reply] = asked_for(step, head).replies
    assert orjson.loads(reply.value or b"")["error"] is None
    assert (reply.topic, reply.key) == ("replies", b"s")
    assert dict(reply.headers)["correlation_id"] == b"w1"
    assert state is not None
    return state


def test_a_refusal_is_said_and_a_letter_and_changes_nothing() -> None:
    state, step, head = run(made(), 6, RemoveQuery(query_id=9, **asked(2)))  # type: ignore[arg-type]
    out = asked_for(step, head)
    [letter], [refusal] = out.letters, out.refusals
    assert not out.replies
    assert (letter.topic, letter.offset, letter.reason) == (
        "flashfeed.control",
        2,
        "session_unknown",
    )
    assert orjson.loads(refusal.value or b"")["error"]["code"] == "session_not_found"
    assert state is not None and len(state.head.spec.flash) == 1


def test_who_awaits_nothing_hears_nothing() -> None:
    message = Append(text="x", **asked(2, reply_to=""))  # type: ignore[arg-type]
    _, step, head = run(made(), 6, message)
    assert asked_for(step, head) == ([], [], [])


def test_read_again_after_a_crash_it_is_answered_as_it_was() -> None:
    done = AddQuery(query=NEW, **asked(2))  # type: ignore[arg-type]
    refused = RemoveQuery(query_id=9, **asked(3))  # type: ignore[arg-type]
    state, step, head = run(made(), 6, done)
    first = asked_for(step, head).replies
    state, _, _ = run(state, 7, refused)
    # The changelog has both, their offsets were not committed.
    _, step, head = run(state, 6, done)
    again = asked_for(step, head)
    assert not step.items and not step.queries and not step.moves
    assert [orjson.loads(one.value or b"")["query_id"] for one in (*first, *again.replies)] == [
        2,
        2,
    ]
    assert not again.letters
    _, step, head = run(state, 7, refused)  # its refusal went out before the changelog
    assert asked_for(step, head) == ([], [], [])


def test_written_twice_it_is_done_once() -> None:
    message = Append(text="once", **asked(2))  # type: ignore[arg-type]
    state, _, _ = run(made(), 6, message)
    state, step, head = run(state, 7, message)
    assert state is not None
    assert [item.line for item in state.items] == ["once"]
    assert len(asked_for(step, head).replies) == 1
    _, step, _ = run(state, 8, Create(spec=SPEC, **asked(1)))  # type: ignore[arg-type]
    assert step.outcomes == {8: None}


def test_an_end_for_idleness_is_for_what_was_idle() -> None:
    state = made()
    later, step, _ = run(state, 6, reading(6, 1.5).message)
    assert later is not None
    kept, step, _ = run(later, 7, Delete(idle_since=state.head.records_offset))
    assert not step.deletes and kept is not None and len(kept.items) == 1
    gone, step, _ = run(later, 8, Delete(idle_since=later.head.records_offset))
    assert step.deletes and gone is None


class Owner:
    """An owner as AutoSessions sees it."""

    def __init__(self, session_id: str, feed: str, quiet_since_ms: int = 0) -> None:
        self.session_id = session_id
        self.feed = feed
        self.state = object()
        self.busy = False
        self.arrived_ms = quiet_since_ms
        self.last_used_ms = 0


def test_only_a_feeds_own_idle_sessions_end() -> None:
    feeds = {
        "a": FeedConfig(topics=("t",), template="x", idle_ttl="10s"),
        "b": FeedConfig(topics=("t",), template="x"),
    }
    owners = [Owner("1", "a"), Owner("2", "a", 5000), Owner("3", "b"), Owner("4", "")]
    busy, used = Owner("5", "a"), Owner("6", "a")
    busy.busy, used.last_used_ms = True, 9000
    auto = AutoSessions(feeds, lambda: [*owners, busy, used], None, "r", Metrics())  # type: ignore[arg-type, list-item]
    assert [one.session_id for one in auto.idle(10_000)] == ["1"]
    assert [one.session_id for one in auto.idle(15_000)] == ["1", "2"]
