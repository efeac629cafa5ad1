"""What is larger than Kafka takes troubles nobody but who wrote it, on a real broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from flashfeed.agents.kafka_writer import RECORD_BYTES_MAX, KafkaWriter, Write
from flashfeed.agents.topics import prepare_topics
from flashfeed.models.config import Config, KafkaConfig, TopicsConfig
from flashfeed.models.errors import ConfigError, RequestError

from apache_kafka import available, kafka_node

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(not available(), reason="needs java, mvn and openssl"),
]


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with kafka_node(tmp_path_factory.mktemp("kafka")) as node:
        yield node.plain


async def create(brokers: str, topic: str, **settings: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    named = {name.replace("_", "."): value for name, value in settings.items()}
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=named)])
    await admin.close()


async def read(brokers: str, topic: str, number: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=brokers, auto_offset_reset="earliest")
    async with consumer, asyncio.timeout(30):
        return [(await anext(consumer)).value for _ in range(number)]


async def test_a_record_too_large_is_refused_before_anything_is_sent(brokers: str) -> None:
    """Sent, it would be refused with its whole batch, and the producer's sequence broken."""
    topic = f"large-{time.time_ns()}"
    await create(brokers, topic)
    failures: list[BaseException] = []
    writer = KafkaWriter(KafkaConfig(brokers=brokers), failures.append)
    await writer.start()
    assert writer.idempotent
    large = Write(topic, b"k", b"x" * RECORD_BYTES_MAX)
    for number in range(3):
        mine = writer.write([Write(topic, b"k", b"lost"), large])
        others = [writer.write([Write(topic, b"k", b"%d" % (10 * number + n))]) for n in range(3)]
        done = await asyncio.gather(mine, *others, return_exceptions=True)
        assert isinstance(done[0], RequestError) and f"{topic}: a record of 1000" in str(done[0])
        assert not [one for one in done[1:] if isinstance(one, BaseException)]
    largest = Write(topic, b"k", b"x" * (RECORD_BYTES_MAX - 200))
    await writer.write([largest])
    await writer.stop()
    assert not failures and writer.failures["too_large"] == 3
    values = await read(brokers, topic, 10)
    assert values == [b"0", b"1", b"2", b"10", b"11", b"12", b"20", b"21", b"22", largest.value]


async def test_a_topics_own_bound_is_read_and_kept_to(brokers: str) -> None:
    name = f"bounds-{time.time_ns()}"
    topics = TopicsConfig(records=f"{name}.records", changelog=f"{name}.changelog")
    config = Config(kafka=KafkaConfig(brokers=brokers, partitions=1), topics=topics)
    await create(brokers, topics.changelog, cleanup_policy="compact", max_message_bytes="2000000")
    found = await prepare_topics(config)
    assert found.bytes_max[topics.changelog] == 2_000_000
    assert found.bytes_max[topics.records] == 1_048_588
    assert topics.changelog in found.existing and topics.records not in found.existing
    writer = KafkaWriter(config.kafka, lambda error: None)
    await writer.start(found.bytes_max)
    await writer.write([Write(topics.changelog, b"k", b"x" * 1_900_000, partition=0)])
    with pytest.raises(RequestError):
        await writer.write([Write(topics.records, b"k", b"x" * 1_900_000, partition=0)])
    await writer.stop()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"cleanup_policy": "delete"}, "cleanup.policy=compact"),
        ({"cleanup_policy": "compact", "max_message_bytes": "65536"}, "max.message.bytes"),
    ],
)
async def test_a_topic_with_wrong_settings_is_told_at_the_start(
    brokers: str, settings: dict[str, str], why: str
) -> None:
    name = f"wrong-{time.time_ns()}"
    topics = TopicsConfig(records=f"{name}.records", changelog=f"{name}.changelog")
    await create(brokers, topics.changelog, **settings)
    with pytest.raises(ConfigError, match=f"{topics.changelog} must have {why}"):
        await prepare_topics(
            Config(kafka=KafkaConfig(brokers=brokers, partitions=1), topics=topics)
        )
