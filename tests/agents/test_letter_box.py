"""The dead-letter topic as it is read: no more than is needed, and originals that are the same."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from flashfeed.agents.dead_letters import VALUE_BYTES_MAX, DeadLetter
from flashfeed.agents.feeds import Feed
from flashfeed.agents.kafka_writer import KafkaWriter, Write, Written
from flashfeed.agents.letter_box import TOO_LARGE, LetterBox, Report, read_letters
from flashfeed.agents.letter_replay import CUT
from flashfeed.agents.letters import Chosen, Letter
from flashfeed.agents.metrics import Metrics
from flashfeed.agents.supplies import Supplies
from flashfeed.codecs.codec import Outside
from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.registry import codec
from flashfeed.models.config import Config, FeedConfig, KafkaConfig, TopicsConfig
from flashfeed.models.errors import RequestError
from flashfeed.models.feed import MappingSpec

pytestmark = pytest.mark.broker


def config_of(broker: str) -> Config:
    """A configuration with topics that no other test has."""
    unique = time.time_ns()
    return Config(
        kafka=KafkaConfig(brokers=broker),
        topics=TopicsConfig(dead_letters=f"dead-{unique}", records=f"records-{unique}"),
        feeds={"f": FeedConfig(topics=(f"t-{unique}",), template="sensor")},
    )


async def make(config: Config, *letters: DeadLetter, original: bytes = b"") -> None:
    """The topics with what lies on them."""
    kafka, topics, [source] = config.kafka, config.topics, config.feeds["f"].topics
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.brokers)
    await admin.start()
    await admin.create_topics(
        [NewTopic(name, 1, 1) for name in (topics.dead_letters, topics.records, source)]
    )
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=kafka.brokers)
    await producer.start()
    for one in letters:
        out = one.write(topics.dead_letters)
        await producer.send_and_wait(
            out.topic, out.value, key=out.key, headers=list(out.headers), timestamp_ms=5000
        )
    await producer.send_and_wait(source, original)
    await producer.stop()


def letter(config: Config, reason: str, value: bytes, offset: int = 0) -> DeadLetter:
    [topic] = config.feeds["f"].topics
    return DeadLetter(topic, 0, offset, reason, "$", "why", b"key", value, [("h", b"1")], feed="f",
                      where="feed f")  # fmt: skip


async def test_only_letters_that_are_meant_keep_their_bytes(broker: str) -> None:
    config = config_of(broker)
    await make(config, letter(config, "map", b"one"), letter(config, "decode", b"two"))

    async def values(whole: Chosen | None) -> list[tuple[str, bytes | None, bytes | None, int]]:
        found = await read_letters(config, whole)
        return [(one.reason, one.key, one.value, len(one.headers)) for one in found]

    bare = [("map", None, None, 0), ("decode", None, None, 0)]
    whole = [("map", b"key", b"one", 1), ("decode", b"key", b"two", 1)]
    assert await values(None) == bare
    assert await values(Chosen()) == whole
    assert await values(Chosen(reason="decode")) == [bare[0], whole[1]]
    assert await values(Chosen(since_ms=5000, until_ms=5001)) == whole
    assert await values(Chosen(since_ms=5001)) == bare


async def replayed_by(config: Config, writer: KafkaWriter | None, found: list[Letter]) -> Report:
    feed = Feed(
        name="f",
        template="sensor",
        type="iot",
        codec=codec("json", {}, Outside(read_file=Path.read_bytes)),
        mapping=Mapping(MappingSpec(model="iot", key="n", map={"sid": "n", "val": "v"})),
        session_id=lambda key: key,
    )
    box = LetterBox(config, [feed], Supplies(config, Metrics()), writer)
    return await box.replay(found, found, print)


class LittleWriter(KafkaWriter):
    """To topics that take little."""

    async def write(self, writes: Iterable[Write]) -> list[Written]:
        """Refuse them all where one of them is too large."""
        writes = list(writes)
        if any(len(one.value or b"") > 280 for one in writes):
            raise RequestError("a record is too large for Kafka")
        return await super().write(writes)


async def test_a_record_that_is_too_large_keeps_no_other_back(broker: str) -> None:
    config = config_of(broker)
    values = [f'{{"n": "{name}", "v": 1}}'.encode() for name in ("a", "b" * 120, "c")]
    await make(config, *(letter(config, "map", one, at) for at, one in enumerate(values)))
    found = await read_letters(config, Chosen())
    writer = LittleWriter(config.kafka, lambda error: None)
    await writer.start()
    try:
        report = await replayed_by(config, writer, found)
    finally:
        await writer.stop()
    assert (report.replayed, report.skipped) == (2, {TOO_LARGE: 1})
    again = await replayed_by(config, None, found)
    assert (again.applied_before, again.replayed) == (2, 1)


def text(name: str) -> bytes:
    """A message longer than a letter may be."""
    pad = "x" * VALUE_BYTES_MAX
    return f'{{"n": "{name}", "pad": "{pad}", "v": 1}}'.encode()


@pytest.mark.parametrize(("lies_there", "replayed"), [("a", 1), ("b", 0)])
async def test_a_cut_letter_is_completed_by_its_own_record_alone(
    broker: str, lies_there: str, replayed: int
) -> None:
    """The topic may have been made anew: its offsets then say other records."""
    config = config_of(broker)
    await make(config, letter(config, "map", text("a")), original=text(lies_there))
    found: list[Letter] = await read_letters(config, Chosen())
    assert [one.cut for one in found] == [True]
    report = await replayed_by(config, None, found)
    assert report.replayed == replayed
    assert report.skipped == ({} if replayed else {CUT: 1})
