"""A replay's versions are what they are told to be, however fast the engine is, and one begins
when the events of the one before it are written."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from flashfeed.agents.replay_places import Place, Places
from flashfeed.agents.replay_sessions import ReplaySessions, Version, begun
from flashfeed.agents.session_step import Waiting
from flashfeed.models.config import Config
from flashfeed.models.errors import Unavailable
from flashfeed.models.events import DataUpdated
from flashfeed.models.messages import AddQuery, Delete
from flashfeed.models.session import FlashQuery
from flashfeed.models.views import SessionEvent

from session_bench import MemoryEngine
from session_steps import reading

MANY = 48


class Kept:
    """Keeps events, and fails where it is told to."""

    def __init__(self, room: int = 10_000) -> None:
        self.events: list[SessionEvent] = []
        self.room = room

    async def write(self, events: Sequence[SessionEvent]) -> None:
        await asyncio.sleep(0)
        if len(self.events) >= self.room:
            raise Unavailable("the output is full")
        self.events += events


def config(overflow: str) -> Config:
    queries = [{"query": "High?", "choices": ["yes", "no"]}]
    template = {"type": "iot", "window": {"items": 500}, "flash": queries, "overflow": overflow}
    return msgspec.convert({"templates": {"sensor": template}}, Config)


async def replayed(
    versions: Sequence[Version],
    overflow: str = "block",
    out: Kept | None = None,
    places: Places | None = None,
) -> Kept:
    out, places = out or Kept(), places or Places({})
    engine: Any = MemoryEngine(room=100_000)
    for version in versions:
        for place in version.places:
            places.read(place)
            places.hold(place)
    sessions = ReplaySessions(config(overflow), engine, out, places, begun(0))

    async def work() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                session = await sessions.make("s", group)
                for version in versions:
                    await session.put(version)
                await sessions.end()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    await sessions.run(asyncio.create_task(work()))
    return out


def readings(first: int, count: int) -> list[Waiting]:
    return [reading(offset, float(offset), at=offset) for offset in range(first, first + count)]


@pytest.mark.parametrize("overflow", ["block", "coalesce", "drop_oldest"])
async def test_a_version_is_one_step_however_many_records_it_has(overflow: str) -> None:
    """A live session takes as many as its engine does in a while; and drops or merges."""
    versions = [Version(readings(at * MANY, MANY)) for at in range(2)]
    out = await replayed(versions, overflow)
    updates = [one for one in out.events if isinstance(one, DataUpdated)]
    assert [(one.data_version, one.data_count) for one in updates] == [(1, MANY), (2, 2 * MANY)]


async def test_a_question_more_or_an_end_between_a_versions_records_keep_their_place() -> None:
    calm = AddQuery(query=FlashQuery("Calm?", choices=("yes", "no")))
    mixed = [*readings(0, 2), Waiting(2, calm), *readings(3, 2), Waiting(5, Delete())]
    out = await replayed([Version(mixed), Version(readings(6, 1))])
    seen = [(one.data_version, getattr(one, "id", 0)) for one in out.events]
    assert seen == [(1, 1), (1, 0), (1, 2), (2, 1), (2, 2), (2, 0), (1, 1), (1, 0)]


async def test_where_the_output_fails_it_goes_on_behind_what_was_written() -> None:
    versions = [Version(readings(at, 1), [Place("t", 0, at)]) for at in range(6)]
    out, places = Kept(room=6), Places({})  # two events a version
    with pytest.raises(Unavailable, match="the output is full"):
        await replayed(versions, out=out, places=places)
    assert [one.data_version for one in out.events] == [1, 1, 2, 2, 3, 3]
    assert places.resume() == [Place("t", 0, 3)]
    places = Places({})
    await replayed(versions, places=places)
    assert places.resume() == [Place("t", 0, 6)]
