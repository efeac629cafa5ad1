"""What of the past is replayed: from a time to a time, or from an offset to an offset.

An offset is written as kafka-get-offsets prints it, TOPIC:PARTITION:OFFSET. Without `--from`
those partitions alone are replayed that a `--from-offset` names; with it the others as well.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from aiokafka import TopicPartition

from flashfeed.agents.past import Past, Stretch
from flashfeed.agents.replay_places import Place
from flashfeed.models.errors import ConfigError

from .times import parse_time

_PLACE: Final = re.compile(r"([A-Za-z0-9._-]{1,249}):(\d{1,9}):(\d{1,18})")

Offsets = Mapping[TopicPartition, int]


class Range(NamedTuple):
    """A range as it was asked for: times in ms since 1970, None: not said; ends are before."""

    since_ms: int | None
    until_ms: int | None
    first: Offsets
    end: Offsets


class Found(NamedTuple):
    """The range as the broker has it: the stretches, those of them that go up to now, and
    what was asked for and is not there any more, in words."""

    stretches: dict[TopicPartition, Stretch]
    to_now: frozenset[TopicPartition]
    gone: tuple[str, ...] = ()


def parse_range(
    since: str, until: str, from_offsets: Sequence[str], to_offsets: Sequence[str]
) -> Range:
    """The range that the options say. Raises ConfigError."""
    now_s = time.time()
    if not since and not from_offsets:
        raise ConfigError("expected --from TIME or --from-offset TOPIC:PARTITION:OFFSET")
    return Range(
        parse_time(since, now_s) if since else None,
        parse_time(until, now_s) if until else None,
        parse_offsets("--from-offset", from_offsets),
        parse_offsets("--to-offset", to_offsets),
    )


def parse_offsets(option: str, texts: Iterable[str]) -> dict[TopicPartition, int]:
    """The offsets by partition. Raises ConfigError, also for a partition named twice."""
    found: dict[TopicPartition, int] = {}
    for text in texts:
        match = _PLACE.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"{option}: expected TOPIC:PARTITION:OFFSET, such as candles:0:1200, got {text!r}"
            )
        place = TopicPartition(match[1], int(match[2]))
        if place in found:
            raise ConfigError(f"{option}: expected {match[1]}:{match[2]} once, got it again")
        found[place] = int(match[3])
    return found


async def find(past: Past, asked: Range, topics: Sequence[str]) -> Found:
    """What the topics hold of the range. Raises ConfigError where an offset names what is not
    read, Unavailable."""
    there = [place for topic in topics for place in await past.partitions(topic)]
    for option, offsets in (("--from-offset", asked.first), ("--to-offset", asked.end)):
        for place in offsets:
            if place not in there:
                read = ", ".join(sorted({f"{one.topic}:{one.partition}" for one in there}))
                raise ConfigError(
                    f"{option} {place.topic}:{place.partition}:{offsets[place]}: no partition that "
                    f"is replayed; those are {read or 'none'}"
                )
    places = there if asked.since_ms is not None else [one for one in there if one in asked.first]
    for place in asked.end:
        if place not in places:
            raise ConfigError(
                f"--to-offset {place.topic}:{place.partition}: it begins nowhere; add --from, or "
                f"--from-offset {place.topic}:{place.partition}:0"
            )
    held = await past.stretches(places, asked.since_ms, asked.until_ms)
    whole = await past.stretches(asked.first)
    gone = tuple(
        f"{place.topic}:{place.partition} begins at offset {whole[place].first}, what was before "
        f"it is gone (--from-offset {offset})"
        for place, offset in asked.first.items()
        if offset < whole[place].first
    )
    stretches = {}
    for place, at in held.items():
        first = max(asked.first[place], whole[place].first) if place in asked.first else at.first
        stretches[place] = Stretch(first, max(first, asked.end.get(place, at.end)))
    to_now = frozenset(
        place for place in stretches if asked.until_ms is None and place not in asked.end
    )
    return Found(stretches, to_now, gone)


def offsets_line(places: Iterable[Place]) -> str:
    """The places as options of the command line."""
    return " ".join(f"--from-offset {one.topic}:{one.partition}:{one.offset}" for one in places)
