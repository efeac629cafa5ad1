"""A partition that waits for a schema or a birth holds back nobody else, and loses nothing."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from flashfeed.agents.feeds import Feed, FeedAgent, FeedTopics
from flashfeed.agents.kafka_writer import KafkaWriter
from flashfeed.agents.metrics import Metrics
from flashfeed.agents.supplies import Supplies
from flashfeed.agents.transport import Batch
from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.registry import codec
from flashfeed.models.config import Config, FeedConfig, KafkaConfig, SchemaRegistryConfig
from flashfeed.models.feed import MappingSpec

from codec_samples import avro_bytes, sparkplug
from registry_server import RegistryServer

pytestmark = pytest.mark.broker

SCHEMA = {
    "type": "record",
    "name": "R",
    "fields": [{"name": "n", "type": "string"}, {"name": "v", "type": "double"}],
}
MAPPING = MappingSpec(model="iot", key="n", map={"sid": "n", "val": "v"})
METRICS = MappingSpec(
    model="iot", key="^edge", each="metrics[]", map={"sid": "name", "val": "value"}
)


class Raw(NamedTuple):
    offset: int
    value: bytes
    key: bytes | None = None
    topic: str = "sensors"
    partition: int = 0
    timestamp: int = 1_700_000_000_000
    headers: tuple[tuple[str, bytes], ...] = ()


def batch(partition: int, *raws: tuple[int, bytes], epoch: int = 0, key: Any = None) -> Batch:
    records: list[Any] = [
        Raw(offset, value, key=key, partition=partition) for offset, value in raws
    ]
    return Batch("sensors", partition, epoch, records)


def reading(schema: int, name: str, value: float) -> bytes:
    return b"\0" + schema.to_bytes(4, "big") + avro_bytes(SCHEMA, {"n": name, "v": value})


class Rig:
    """A feed's agent over a real broker, and what it wrote and acknowledged."""

    def __init__(self, broker: str, name: str, spec: MappingSpec, **config: Any) -> None:
        self.broker = broker
        self.topics = FeedTopics(f"records-{uuid.uuid4().hex}", f"dead-{uuid.uuid4().hex}")
        self.metrics = Metrics()
        self.failures: list[BaseException] = []
        self.acknowledged: list[tuple[int, int]] = []
        options = config.pop("codec_options", {})
        self.config = Config(
            kafka=KafkaConfig(brokers=broker),
            feeds={"f": FeedConfig(topics=("sensors",), template="t", codec=name,
                                   codec_options=options)},
            **config,
        )  # fmt: skip
        self.supplies = Supplies(self.config, self.metrics)
        feed = Feed(
            name="f",
            template="t",
            type="iot",
            codec=codec(name, options, self.supplies.outside),
            mapping=Mapping(spec),
            session_id=lambda key: key,
        )
        self.writer = KafkaWriter(self.config.kafka, self.failures.append)
        self.agent = FeedAgent(
            feed, self.writer, self.supplies, self.topics, self.metrics, self.failures.append
        )

    async def start(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker)
        await admin.start()
        wanted = [*self.topics, self.config.topics.births]
        existing = await admin.list_topics()
        await admin.create_topics([NewTopic(one, 1, 1) for one in wanted if one not in existing])
        await admin.close()
        await self.writer.start()
        await self.supplies.start(self.writer, self.failures.append)

    async def stop(self) -> None:
        await self.agent.stop()
        await self.supplies.stop()
        await self.writer.stop()
        assert not self.failures

    async def take(self, one: Batch) -> None:
        """Hand a batch over; it may not take long, whatever it waits for."""
        done = self.acknowledged.append
        await asyncio.wait_for(
            self.agent.take(one, lambda: done((one.partition, one.first))), timeout=5
        )

    async def until(self, count: int) -> None:
        for _ in range(400):
            if len(self.acknowledged) >= count:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"acknowledged {self.acknowledged}, expected {count}")

    async def written(self, topic: str, count: int) -> list[Any]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.broker)
        await consumer.start()
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        found: list[Any] = []
        while len(found) < count:
            found += (await asyncio.wait_for(consumer.getmany(timeout_ms=500), 20)).get(place, [])
        await consumer.stop()
        return found

    async def values(self, count: int) -> list[float]:
        messages = [
            orjson.loads(one.value) for one in await self.written(self.topics.records, count)
        ]
        return [record[3]["val"] for message in messages for record in message["records"]]

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def registry() -> AsyncIterator[RegistryServer]:
    server = RegistryServer()
    assert server.register("s", {"schema": orjson.dumps(SCHEMA).decode()}) == 1
    assert server.register("s", {"schema": orjson.dumps({**SCHEMA, "doc": "2"}).decode()}) == 2
    yield server
    server.stop()


async def test_a_registry_that_is_away_pauses_only_who_needs_it(
    broker: str, registry: RegistryServer, caplog: pytest.LogCaptureFixture
) -> None:
    config = SchemaRegistryConfig(url=registry.url, attempts=2, retry_max_s=0.1, timeout_s=1)
    rig = Rig(broker, "avro", MAPPING, schema_registry=config)
    await rig.start()
    await rig.take(batch(0, (10, reading(1, "a", 1.0))))
    await rig.until(1)
    registry.broken = 503
    with caplog.at_level(logging.WARNING):
        # Partition 0 wants another schema; a record that needs none waits in line behind it.
        await rig.take(batch(0, (11, reading(1, "a", 2.0)), (12, reading(2, "a", 3.0))))
        await rig.take(batch(0, (13, reading(1, "a", 4.0))))
        await rig.take(batch(1, (70, reading(1, "b", 5.0))))
        await rig.until(2)
        assert rig.acknowledged == [(0, 10), (1, 70)]
        assert rig.metric("flashfeed_paused_partitions") == 1
        for _ in range(100):
            if "stays paused" in caplog.text:
                break
            await asyncio.sleep(0.05)
    assert "sensors[0] stays paused: the schema of id 2" in caplog.text
    assert "nothing is lost" in caplog.text
    [told] = [vars(one) for one in caplog.records if "stays paused" in one.message]
    assert (told["topic"], told["partition"]) == ("sensors", 0)
    assert rig.metric("flashfeed_schema_requests_total", result="failed") >= 2
    assert rig.acknowledged == [(0, 10), (1, 70)]
    registry.broken = 0
    await rig.until(4)
    assert rig.acknowledged[2:] == [(0, 11), (0, 13)]
    assert await rig.values(4) == [1.0, 5.0, 2.0, 3.0, 4.0]
    assert rig.metric("flashfeed_paused_partitions") == 0
    # It goes on as before.
    await rig.take(batch(0, (14, reading(2, "a", 6.0))))
    assert rig.acknowledged[-1] == (0, 14)
    await rig.stop()


async def test_an_unknown_id_is_a_dead_letter_and_no_wait(
    broker: str, registry: RegistryServer
) -> None:
    rig = Rig(broker, "avro", MAPPING, schema_registry=SchemaRegistryConfig(url=registry.url))
    await rig.start()
    await rig.take(
        batch(
            0,
            (1, reading(9, "a", 1.0)),
            (2, b"{}"),
            (3, reading(1, "a", 2.0)),
            (4, b"\0\0\0\0\x01"),
        )
    )
    await rig.until(1)
    letters = [dict(one.headers) for one in await rig.written(rig.topics.dead_letters, 3)]
    assert [(letter["flashfeed_offset"], letter["flashfeed_reason"]) for letter in letters] == [
        (b"1", b"unknown_schema"),
        (b"2", b"bad_framing"),
        (b"4", b"decode"),
    ]
    assert await rig.values(1) == [2.0]
    await rig.stop()


async def test_a_revoked_partition_forgets_what_waits(
    broker: str, registry: RegistryServer
) -> None:
    config = SchemaRegistryConfig(url=registry.url, retry_max_s=0.1)
    rig = Rig(broker, "avro", MAPPING, schema_registry=config)
    await rig.start()
    registry.broken = 503
    await rig.take(batch(0, (1, reading(1, "a", 1.0))))
    await rig.agent.revoke([("sensors", 0), ("sensors", 1)])
    assert rig.metric("flashfeed_paused_partitions") == 0
    # Assigned again: the same batch under another epoch, and then once more while it waits.
    await rig.take(batch(0, (1, reading(1, "a", 1.0)), epoch=1))
    await rig.take(batch(0, (1, reading(1, "a", 1.0)), epoch=2))
    await rig.take(batch(0, (2, reading(1, "a", 9.0)), epoch=1))  # late, and stale: not ours
    registry.broken = 0
    await rig.until(1)
    assert rig.acknowledged == [(0, 1)]
    assert await rig.values(1) == [1.0]
    await rig.stop()


async def test_an_alias_waits_for_its_birth_and_no_longer_than_it_should(broker: str) -> None:
    options = {"birth_wait_s": 1.0}
    rig = Rig(broker, "sparkplug_b", METRICS, codec_options=options)
    await rig.start()
    node = uuid.uuid4().hex
    data, birth = f"spBv1.0/g/NDATA/{node}".encode(), f"spBv1.0/g/NBIRTH/{node}".encode()
    early = sparkplug(1, {"alias": 1, "double_value": 5.0})
    await rig.take(batch(0, (1, early), key=data))
    assert not rig.acknowledged
    # The birth stands behind it in the same partition: it would never come by waiting alone.
    first = sparkplug(0, {"name": "temp", "alias": 1, "datatype": 10, "double_value": 4.0})
    await rig.take(batch(0, (2, first), key=birth))
    await rig.until(2)
    assert rig.acknowledged == [(0, 1), (0, 2)]
    assert await rig.values(2) == [5.0, 4.0]
    # Another node's never comes: a wait, a dead letter with its reason, and no second wait.
    await rig.take(batch(1, (5, early), key=b"spBv1.0/g/NDATA/x" + node.encode()))
    await rig.until(3)
    await rig.take(batch(1, (6, early), key=b"spBv1.0/g/NDATA/x" + node.encode()))
    assert rig.acknowledged[2:] == [(1, 5), (1, 6)]
    letters = [dict(one.headers) for one in await rig.written(rig.topics.dead_letters, 2)]
    assert [letter["flashfeed_reason"] for letter in letters] == [b"birth_missing"] * 2
    await rig.stop()
    # The next worker has the birth from its topic.
    other = Rig(broker, "sparkplug_b", METRICS, codec_options=options)
    await other.start()
    await other.take(batch(0, (3, early), key=data))
    assert other.acknowledged == [(0, 3)]
    await other.stop()
