"""What of the past is meant, by times and offsets."""

from __future__ import annotations

from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from flashfeed.agents.past import Past, Stretch
from flashfeed.agents.replay_places import Place
from flashfeed.cli.replay_range import Found, find, offsets_line, parse_range
from flashfeed.models.errors import ConfigError

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)
HELD = {A0: Stretch(5, 50), A1: Stretch(0, 30), B0: Stretch(0, 10)}


class Shelf:
    """What a broker holds; a time in ms is an offset here."""

    async def partitions(self, topic: str) -> list[TopicPartition]:
        return [place for place in HELD if place.topic == topic]

    async def stretches(
        self, places: Any, since_ms: int | None = None, until_ms: int | None = None
    ) -> dict[TopicPartition, Stretch]:
        return {
            place: Stretch(
                max(HELD[place].first, since_ms or 0),
                HELD[place].end if until_ms is None else min(until_ms, HELD[place].end),
            )
            for place in places
        }


async def found(*, since: str = "", until: str = "", first: Any = (), end: Any = ()) -> Found:
    return await find(cast(Past, Shelf()), parse_range(since, until, first, end), ["a", "b"])


EPOCH = "1970-01-01T00:00:00.020"


async def test_a_time_is_of_all_partitions_and_an_offset_of_its_own() -> None:
    at = await found(since=EPOCH, first=["a:1:3"], end=["b:0:7"])
    assert at.stretches == {A0: Stretch(20, 50), A1: Stretch(3, 30), B0: Stretch(20, 20)}
    assert at.to_now == {A0, A1}
    assert not at.gone


async def test_without_a_time_only_those_are_read_that_are_named() -> None:
    at = await found(until=EPOCH, first=["a:1:3"])
    assert (at.stretches, at.to_now) == ({A1: Stretch(3, 20)}, frozenset())
    at = await found(first=["a:1:3", "b:0:0"], end=["b:0:4"])
    assert at.stretches == {A1: Stretch(3, 30), B0: Stretch(0, 4)}
    assert at.to_now == {A1}


async def test_what_is_gone_is_said_and_the_rest_replayed() -> None:
    at = await found(first=["a:0:1"])
    assert at.stretches == {A0: Stretch(5, 50)}
    assert at.gone == ("a:0 begins at offset 5, what was before it is gone (--from-offset 1)",)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "--from TIME or --from-offset TOPIC:PARTITION:OFFSET"),
        ({"first": ["a:1"]}, "--from-offset: expected TOPIC:PARTITION:OFFSET"),
        ({"first": ["a:1:-3"]}, "got 'a:1:-3'"),
        ({"first": ["a:1:3", "a:1:4"]}, "expected a:1 once"),
        ({"first": ["c:0:3"]}, "c:0:3: no partition that is replayed; those are a:0, a:1, b:0"),
        ({"first": ["a:1:3"], "end": ["b:0:4"]}, "--to-offset b:0: it begins nowhere"),
        ({"since": EPOCH, "end": ["a:7:4"]}, "--to-offset a:7:4: no partition"),
    ],
)
async def test_what_is_wrong_is_named(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        await found(**asked)
    assert said in str(raised.value)


def test_what_is_left_is_written_as_it_is_read() -> None:
    text = offsets_line([Place("a", 0, 7), Place("b.c-d_e", 12, 900)])
    assert text == "--from-offset a:0:7 --from-offset b.c-d_e:12:900"
    asked = parse_range("", "", text.split()[1::2], ())
    assert asked.first == {A0: 7, TopicPartition("b.c-d_e", 12): 900}
