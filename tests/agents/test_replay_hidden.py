"""What a head reads of a replay's answers is what it reads of the same answers live."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np

from flashfeed.agents.replay_hidden import HiddenRows
from flashfeed.agents.session_events import flash_events
from flashfeed.agents.session_plan import plan_step
from flashfeed.agents.session_settle import next_state, settle_step
from flashfeed.agents.session_step import SessionState
from flashfeed.engine import Update
from flashfeed.heads.learner import Head
from flashfeed.models.events import FlashReady

from session_steps import SPEC, ran, reading

LEARNS = msgspec.structs.replace(
    SPEC, flash=(msgspec.structs.replace(SPEC.flash[0], id=1, learn=True),)
)
STATES = [np.array([0.5, -1.5, at], "<f2").tobytes() for at in (1.0, 4.0, -2.0, 0.25)]


class Lived(NamedTuple):
    """A version: what the engine gave, the event, and what the live head read."""

    update: Update
    event: FlashReady
    row: bytes


def lived() -> list[Lived]:
    state: SessionState | None = None
    head, versions = Head(2), []
    for offset, hidden in enumerate(STATES):
        step = plan_step("s", state, [reading(offset, float(offset))], lambda _: LEARNS)
        given = replace(ran(step), hidden=[hidden], heads=lambda _: head)
        after = settle_step(step, state, given)
        state = next_state(step, state, after)
        features = state.pending.waiting[1][after.version].features
        assert features is not None
        update = Update(tuple(given.answers), 1, 1, 0, 1, 0.0, 0.0, 1, hidden=(hidden,))
        versions.append(Lived(update, flash_events(after)[0], features.hidden))
    return versions


def test_the_rows_are_those_that_the_live_head_read() -> None:
    rows = HiddenRows()
    for one in lived():
        rows.updated("s", one.update)
        rows.published(one.event)
    assert [rows.take(one.event) for one in lived()] == [one.row for one in lived()]
    assert len({one.row for one in lived()}) == len(STATES)
    assert rows.take(lived()[0].event) == b""  # once


def test_an_answer_that_does_not_go_out_moves_what_is_held_against() -> None:
    rows, versions = HiddenRows(), lived()
    for one in versions:
        rows.updated("s", one.update)
    rows.published(versions[-1].event)
    assert rows.take(versions[0].event) == b""
    assert rows.take(versions[-1].event) == versions[-1].row


def test_another_life_and_another_session_have_not_moved() -> None:
    rows, versions = HiddenRows(), lived()
    rows.updated("s", versions[0].update)
    rows.ended("s")
    rows.updated("s", versions[1].update)
    rows.published(versions[1].event)
    rows.updated("t", versions[1].update)
    other = msgspec.structs.replace(versions[1].event, session_id="t")
    rows.published(other)
    still = STATES[1] + bytes(len(STATES[1]))
    assert rows.take(versions[1].event) == rows.take(other) == still != versions[1].row


def test_where_no_hidden_states_are_read_there_are_none() -> None:
    rows, one = HiddenRows(), lived()[0]
    rows.updated("s", replace(one.update, hidden=()))
    rows.published(one.event)
    assert rows.take(one.event) == b""
