"""Lives of a session, made again from what is left of them on the topics: messages and events
that retention has taken, questions that come later, an end and another life."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from flashfeed.agents import as_live
from flashfeed.agents.as_live import NO_EARLIER, RECORDS_GONE, LiveReplay
from flashfeed.agents.as_live_state import NO_CREATION, prior_shares
from flashfeed.agents.live_history import History, LiveSession, LiveVersion
from flashfeed.agents.past import Stretch
from flashfeed.agents.replay_places import Place
from flashfeed.agents.session_events import flash_events, updated_event
from flashfeed.agents.session_learning import FindHead
from flashfeed.agents.session_step import Step, Waiting
from flashfeed.models.config import Config
from flashfeed.models.events import FlashReady
from flashfeed.models.messages import AddQuery, Create, Delete, encode_message
from flashfeed.models.session import FlashQuery, SessionSpec
from flashfeed.models.state import Head
from flashfeed.models.views import SessionEvent

from session_bench import MemoryEngine
from session_steps import apply, reading, taught_head

QUERIES = [{"query": "High?", "choices": ["yes", "no"]}]
TEMPLATE = {"type": "iot", "window": {"items": 4}, "flash": QUERIES}
CONFIG = msgspec.convert({"templates": {"sensor": TEMPLATE}}, Config)
SPEC = CONFIG.templates["sensor"].spec()
RECORDS, UPDATED = TopicPartition("flashfeed.records", 0), TopicPartition("flashfeed.updated", 0)
LEARNS = msgspec.convert(
    {"templates": {"sensor": TEMPLATE | {"flash": [QUERIES[0] | {"learn": True}]}}}, Config
)
CALM = FlashQuery("Calm?", choices=("yes", "no"))

grouped = st.lists(st.integers(1, 4), min_size=3, max_size=25)


@dataclass
class Raw:
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    timestamp: int = 0


class Life:
    """What a worker makes of messages that come in groups, each at once."""

    def __init__(
        self,
        *groups: Sequence[Waiting],
        spec: SessionSpec = SPEC,
        heads: FindHead | None = None,
    ) -> None:
        self.messages = [one for group in groups for one in group]
        self.versions: list[LiveVersion] = []
        state = None
        for group in groups:
            state, _ = apply(state, *group, settled=self._settled, find=lambda _: spec, heads=heads)

    def _settled(self, head: Head, step: Step) -> None:
        if step.moves:
            # The engine in memory counts its lines so.
            updated = msgspec.structs.replace(updated_event(head), n_tokens=1 + head.items)
            place = Place(*UPDATED, len(self.versions))
            answers = {one.id: one for one in flash_events(head)}
            self.versions.append(LiveVersion(updated, place, answers))
        elif step.queries:  # a question more is answered at once
            self.versions[-1].answers.update({one.id: one for one in flash_events(head)})


class Kept:
    def __init__(self) -> None:
        self.events: list[SessionEvent] = []

    async def write(self, events: Sequence[SessionEvent]) -> None:
        self.events += events


async def again(
    life: Life, *, since: int = 0, known: int = 0, retained: int = 0, config: Config = CONFIG
) -> tuple[LiveReplay, list[SessionEvent]]:
    """The versions from place `since` on, where those from `known` on and the messages from
    offset `retained` on are left."""
    live = LiveSession()
    for version in life.versions[known:]:
        live.take(version, in_range=version.place.offset >= since)
    history = History({UPDATED: Stretch(since, len(life.versions))}, {"s": live})
    history.stretches[RECORDS] = Stretch(retained, life.messages[-1].offset + 1)
    raws = [
        Raw(*RECORDS, one.offset, b"s", encode_message(one.message))
        for one in life.messages
        if one.offset >= retained
    ]

    class Shelf:
        def __init__(self, _: object) -> None:
            pass

        async def __aenter__(self) -> Shelf:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def read(self, _: object) -> AsyncIterator[list[Any]]:
            for raw in raws:
                yield [raw]

    engine: Any = MemoryEngine(room=100_000)
    out = Kept()
    replay = LiveReplay(config, engine, history, out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(as_live, "Past", Shelf)
        await replay.run()
    return replay, out.events


def groups_of(sizes: Sequence[int], first: int = 0) -> list[list[Waiting]]:
    """Groups of so many messages, of one to three readings each."""
    groups, offset, at = [], first, first * 3
    for size in sizes:
        group = []
        for _ in range(size):
            count = offset % 3 + 1
            group.append(reading(offset, *range(at, at + count), at=at))
            offset, at = offset + 1, at + count
        groups.append(group)
    return groups


@given(grouped, st.data())
@settings(max_examples=40)
async def test_any_groups_from_anywhere_are_the_versions_that_were(
    sizes: list[int], data: st.DataObject
) -> None:
    life = Life(*groups_of(sizes))
    since = data.draw(st.integers(0, len(life.versions) - 1))
    replay, events = await again(life, since=since)
    assert replay.compared.same, replay.compared.text()
    assert replay.compared.versions == len(life.versions) - since
    assert len(events) == 2 * replay.compared.versions
    assert replay.places.resume() == [Place(*UPDATED, len(life.versions))]


@given(grouped, st.data())
@settings(max_examples=40)
async def test_what_retention_took_is_left_out_and_the_rest_is_as_it_was(
    sizes: list[int], data: st.DataObject
) -> None:
    life = Life(*groups_of(sizes))
    retained = data.draw(st.integers(1, life.messages[-1].offset))
    known = data.draw(st.integers(0, len(life.versions) - 1))
    replay, _ = await again(life, known=known, since=known, retained=retained)
    compared = replay.compared
    assert not compared.n_differ and not compared.missing, compared.text()
    assert compared.versions + compared.skipped.total() == len(life.versions) - known
    assert compared.skipped.keys() <= {NO_EARLIER, RECORDS_GONE}
    left = [one for one in life.versions[known:] if one.updated.records_first >= retained]
    assert compared.versions >= len(left) - 1  # the first one left is where it begins


async def test_a_question_more_an_end_and_another_life_are_where_they_were() -> None:
    first = groups_of([2, 3])
    more = [Waiting(5, AddQuery(query=CALM))]
    then = groups_of([2], first=6)
    end = [[Waiting(8, Delete())], *groups_of([2, 2], first=9)]
    life = Life(*first, more, *then, *end)
    assert [one.updated.data_version for one in life.versions] == [1, 2, 3, 1, 2]
    for since in range(5):
        replay, events = await again(life, since=since)
        assert replay.compared.same, replay.compared.text()
        assert replay.compared.versions == 5 - since
        calm = {one.data_version for one in events if getattr(one, "query", "") == "Calm?"}
        assert calm == {0: {2, 3}, 1: {2, 3}, 2: {2, 3}, 3: set(), 4: set()}[since]
        assert not replay.compared.alone


async def test_a_session_made_by_hand_is_unknown_without_its_creation() -> None:
    spec = msgspec.structs.replace(SPEC, prompt="by hand")
    create = [Waiting(0, Create(spec=spec))]
    by_hand = [
        [one._replace(message=msgspec.structs.replace(one.message, template="")) for one in group]
        for group in groups_of([1] * 30, first=1)
    ]
    life = Life(create, *by_hand)
    replay, _ = await again(life)
    assert replay.compared.same, replay.compared.text()
    replay, events = await again(life, since=25, retained=3)
    assert replay.compared.skipped == {NO_CREATION: 5}
    assert (events, replay.compared.same) == ([], False)
    assert "5 live versions left out: its creation" in replay.compared.text()


async def test_answers_that_are_lost_are_made_and_not_compared() -> None:
    life = Life(*groups_of([2, 2, 2]))
    life.versions[1].answers.clear()
    replay, events = await again(life)
    assert len(events) == 6
    assert (replay.compared.same, replay.compared.alone) == (True, 1)


async def test_another_answer_is_named_and_a_near_tie_is_counted() -> None:
    life = Life(*groups_of([1, 1, 1]))
    for at, gap in ((1, 1.0), (2, 0.1)):
        answers = life.versions[at].answers
        answers[1] = msgspec.structs.replace(answers[1], value="no", logit_gap=gap)
    replay, _ = await again(life)
    assert (replay.compared.n_differ, replay.compared.near_ties) == (1, 1)
    assert "s version 2: q1 is yes, was no" in replay.compared.text()
    assert not replay.compared.same


def learning_life() -> Life:
    """A model that says yes, and a head that learnt otherwise."""
    head = taught_head(1)
    life = Life(*groups_of([1] * 6), spec=LEARNS.templates["sensor"].spec(), heads=lambda _: head)
    answers = [one.answers[1] for one in life.versions]
    assert {(one.value, one.answered_by.head) for one in answers} == {("no", "mixed")}
    return life


@pytest.mark.parametrize("since", [0, 3])
async def test_of_a_learnt_heads_answer_what_the_model_said_is_compared(since: int) -> None:
    life = learning_life()
    replay, events = await again(life, since=since, config=LEARNS)
    assert replay.compared.same, replay.compared.text()
    assert (replay.compared.learnt, replay.compared.near_ties) == (6 - since, 0)
    assert f"{6 - since} live answers are a learnt head's" in replay.compared.text()
    made = [one for one in events if isinstance(one, FlashReady)]
    for one, version in zip(made, life.versions[since:], strict=True):
        assert one.value == "yes"
        assert one.probabilities == pytest.approx(prior_shares(version.answers[1]))


async def test_a_model_that_says_something_else_under_a_learnt_head_is_named() -> None:
    life = learning_life()
    answer = life.versions[2].answers[1]
    assert answer.learned is not None
    turned = tuple(
        msgspec.structs.replace(part, probabilities={"yes": 0.2, "no": 0.8})
        if part.forecaster == "prior"
        else part
        for part in answer.learned.forecasts
    )
    learned = msgspec.structs.replace(answer.learned, forecasts=turned)
    life.versions[2].answers[1] = msgspec.structs.replace(answer, learned=learned)
    replay, _ = await again(life, config=LEARNS)
    assert replay.compared.n_differ == 1
    assert "s version 3: q1 is yes, was no, before its head" in replay.compared.text()


async def test_without_the_forecasters_what_the_model_said_uncorrected_is_compared() -> None:
    """Of such an answer it cannot be told what it was corrected by either."""
    life = learning_life()
    for version in life.versions:
        version.answers[1] = msgspec.structs.replace(version.answers[1], learned=None)
    replay, _ = await again(life, since=3, config=LEARNS)
    assert replay.compared.same, replay.compared.text()
    assert replay.compared.learnt == 3
