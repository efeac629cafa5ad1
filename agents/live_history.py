"""What the live topics say of the past: which versions workers made, what was answered, and
where on `flashfeed.records` the messages lie that made them. Read once, nothing is written.

A version is what its data_updated says. Of the versions before the range the last one of each
session is kept: its context is what the first one in the range goes on from. Versions and
answers of the range are kept in memory, about a kilobyte each.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import TopicPartition

from flashfeed.models.config import Config
from flashfeed.models.event_format import decode_event
from flashfeed.models.events import DataUpdated, FlashReady

from .key_partition import partition_of
from .past import Past, Stretch
from .replay_places import Place

ANSWERS_BESIDE_MS: Final = 60_000
"""An answer is looked for so long before and after the versions, by Kafka's times."""


@dataclass(frozen=True, slots=True)
class LiveVersion:
    """A version as it was published, and where; the answers by the query's id."""

    updated: DataUpdated
    place: Place
    answers: dict[int, FlashReady] = field(default_factory=dict)


@dataclass(slots=True)
class LiveSession:
    """A session's versions in the range, and the last one before it, where that is there."""

    before: LiveVersion | None = None
    versions: list[LiveVersion] = field(default_factory=list)

    def known(self) -> list[LiveVersion]:
        """All of them: a question more is answered at once, at the version before the range
        where it comes first in it."""
        return self.versions if self.before is None else [self.before, *self.versions]

    def take(self, version: LiveVersion, *, in_range: bool) -> None:
        """The next version; one that was published again is the same one."""
        last = self.versions[-1] if self.versions else self.before
        if last is not None and version.updated.records_last <= last.updated.records_last:
            return
        if in_range:
            self.versions.append(version)
        else:
            self.before = version


@dataclass(slots=True)
class History:
    """The sessions of the range, and the stretches of `flashfeed.records` to read for them.
    `asked` is the range; `unreadable` counts events that are none."""

    asked: Mapping[TopicPartition, Stretch]
    sessions: dict[str, LiveSession] = field(default_factory=dict)
    stretches: dict[TopicPartition, Stretch] = field(default_factory=dict)
    unreadable: int = 0


async def read_history(
    config: Config,
    asked: Mapping[TopicPartition, Stretch],
    to_now: Collection[TopicPartition] = (),
) -> History:
    """Read it; `asked` are stretches of the topic of data_updated. Raises Unavailable,
    ConfigError where a topic is not there."""
    history = History(asked)
    async with Past(config.kafka) as past:
        times = await _versions(past, history, to_now)
        sessions = history.sessions
        history.sessions = {key: one for key, one in sessions.items() if one.versions}
        if times is not None:
            await _answers(past, config, history, times)
        places = await past.partitions(config.topics.records)
        held = await past.stretches(places)
    ends: dict[int, int] = {}
    for key, session in history.sessions.items():
        number = partition_of(key, len(places))
        last = session.versions[-1].updated.records_last
        ends[number] = max(ends.get(number, 0), last + 1)
    for place in places:
        if place.partition in ends:
            history.stretches[place] = Stretch(held[place].first, ends[place.partition])
    return history


async def _versions(
    past: Past, history: History, to_now: Collection[TopicPartition]
) -> tuple[int, int] | None:
    """Read the data_updated events up to the range's end; the times of the first and the last
    in it, None where there are none."""
    begins = await past.stretches(history.asked)
    first, last = None, 0
    whole = {place: Stretch(begins[place].first, at.end) for place, at in history.asked.items()}
    async for one in _both(past, whole, to_now):
        event = _event("data_updated", one)
        if not isinstance(event, DataUpdated):
            history.unreadable += 1
            continue
        at = history.asked[TopicPartition(one.topic, one.partition)]
        in_range = one.offset >= at.first
        version = LiveVersion(event, Place(one.topic, one.partition, int(one.offset)))
        session = history.sessions.setdefault(event.session_id, LiveSession())
        session.take(version, in_range=in_range)
        if in_range:
            first = one.timestamp if first is None else min(first, one.timestamp)
            last = max(last, one.timestamp)
    return None if first is None else (first, last)


async def _answers(past: Past, config: Config, history: History, times: tuple[int, int]) -> None:
    by_version = {
        (key, one.updated.data_version, one.updated.records_last): one.answers
        for key, session in history.sessions.items()
        for one in session.known()
    }
    places = await past.partitions(config.topics.flash_ready)
    first, last = times[0] - ANSWERS_BESIDE_MS, times[1] + ANSWERS_BESIDE_MS
    stretches = await past.stretches(places, max(0, first), last)
    to_now = last >= time.time() * 1000
    async for one in _both(past, stretches, places if to_now else ()):
        event = _event("flash_ready", one)
        if not isinstance(event, FlashReady):
            history.unreadable += 1
            continue
        answers = by_version.get((event.session_id, event.data_version, event.records_last))
        if answers is not None:
            answers.setdefault(event.id, event)


async def _both(
    past: Past, stretches: Mapping[TopicPartition, Stretch], to_now: Collection[TopicPartition]
) -> AsyncIterator[Any]:
    """The records of the stretches, and of those to now what came behind their ends."""
    for open_ended in (False, True):
        some = {place: at for place, at in stretches.items() if (place in to_now) == open_ended}
        async for records in past.read(some, to_now=open_ended):
            for one in records:
                yield one


def _event(name: str, record: Any) -> FlashReady | DataUpdated | None:
    if record.value is None:
        return None
    content_type = dict(record.headers).get("content-type", b"application/json")
    try:
        return decode_event(name, record.value, content_type.decode())
    except ValueError:
        return None
