"""Births are kept on their topic, waited for within bounds, and gaps are counted."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from flashfeed.agents.births import BirthBook
from flashfeed.agents.followed_topic import FollowedTopic
from flashfeed.agents.kafka_writer import KafkaWriter
from flashfeed.agents.metrics import Metrics
from flashfeed.codecs.codec import Birth, BirthWanted
from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import BirthMissing

BIRTH = Birth({1: ("temp", 10)})


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


async def test_a_wait_ends_with_the_birth() -> None:
    book = BirthBook(Metrics())
    with pytest.raises(BirthWanted):
        book.find("g/n", 5)
    waiting = asyncio.create_task(book.wait("g/n", 5))
    await asyncio.sleep(0)
    book.learn("g/other", BIRTH)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    book.learn("g/n", BIRTH)
    await asyncio.wait_for(waiting, 1)
    assert book.find("g/n", 5) == BIRTH


async def test_a_wait_in_vain_is_remembered_until_the_birth_comes() -> None:
    metrics = Metrics()
    book = BirthBook(metrics)
    await book.wait("g/n", 0.01)
    for _ in range(2):
        with pytest.raises(BirthMissing, match="no birth of g/n came"):
            book.find("g/n", 5)
    assert value(metrics, "flashfeed_births_total", result="missing") == 1
    book.note("g/n", BIRTH)
    assert book.find("g/n", 5) == BIRTH


def test_gaps_are_counted_once_a_batch_is_read_whole() -> None:
    metrics = Metrics()
    book = BirthBook(metrics)

    def gaps(*numbers: int, whole: bool = True) -> float:
        book.begin()
        for number in numbers:
            book.sequence("t", "g/n", number)
        if whole:
            book.writes("births")
        return value(metrics, "flashfeed_sparkplug_sequence_gaps_total")

    assert gaps(254, 255, 0, 1) == 0
    assert gaps(2, 9, whole=False) == 0  # cut short: it is read again
    assert gaps(2, 3) == 0
    assert gaps(5) == 1
    assert gaps(0) == 1  # a birth begins again


def test_a_birth_is_written_until_it_is_there() -> None:
    book = BirthBook(Metrics())
    book.note("g/n", BIRTH)
    first = book.writes("births")
    assert book.writes("births") == first  # the batch was cut short: the next one writes it
    newer = Birth({1: ("temp", 9)})
    book.note("g/n", newer)
    book.written(first)
    (second,) = book.writes("births")
    assert second != first[0]
    book.written([second])
    assert not book.writes("births")


async def test_what_one_worker_notes_another_reads(broker: str) -> None:
    kafka = KafkaConfig(brokers=broker)
    topic = f"births-{uuid.uuid4().hex}"
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    failures: list[BaseException] = []
    writer = KafkaWriter(kafka, failures.append)
    await writer.start()
    first, second = BirthBook(Metrics()), BirthBook(Metrics())
    first.note("g/n", BIRTH)
    await writer.write(first.writes(topic))
    following = FollowedTopic(kafka, topic, writer, second.take, failures.append)
    try:
        await following.start()
        assert second.find("g/n", 5) == BIRTH
        # And what comes later.
        first.note("g/m", BIRTH)
        await writer.write(first.writes(topic))
        await asyncio.wait_for(second.wait("g/m", 20), 20)
        assert second.find("g/m", 5) == BIRTH
    finally:
        await following.stop()
        await writer.stop()
    assert not failures
