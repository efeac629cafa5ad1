"""A Faust app over the batching transport, run until a condition holds."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from flashfeed.agents import transport
from flashfeed.agents.transport import Batch

RECORDS = 300


async def fill(broker: str, topic: str, records: int = RECORDS) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    await producer.start()
    for place in range(records):
        for partition in (0, 1):
            await producer.send(topic, b"%d" % place, partition=partition)
    await producer.flush()
    await producer.stop()


def make_app(broker: str, group: str, begins_at_end: tuple[str, ...] = (), **settings: Any) -> Any:
    transport.register()
    app = transport.BatchApp(
        group,
        broker=f"flashfeed://{broker}",
        value_serializer="raw",
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_wait_empty=False,
        table_standby_replicas=0,
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.0,
        broker_commit_interval=0.2,
        consumer_auto_offset_reset="earliest",
        **settings,
    )
    app.begins_at_end = lambda topic: topic in begins_at_end
    return app


async def committed(broker: str, group: str, topic: str) -> dict[int, int | None]:
    consumer = AIOKafkaConsumer(bootstrap_servers=broker, group_id=group, enable_auto_commit=False)
    await consumer.start()
    offsets = {n: await consumer.committed(TopicPartition(topic, n)) for n in (0, 1)}
    await consumer.stop()
    return offsets


async def until(condition: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.02)


async def run_app(
    broker: str, group: str, topic: str, stuck: int | None, done: Any, **settings: Any
) -> list[Batch]:
    """Run an app whose agent acknowledges every batch but those of the stuck partition."""
    app = make_app(broker, group, **settings)
    got: list[Batch] = []

    @app.agent(app.topic(topic))  # type: ignore[untyped-decorator, unused-ignore]
    async def read(batches: Any) -> None:
        async for event in batches.noack().events():
            got.append(event.value)
            if event.value.partition != stuck:
                event.ack()

    await app.start()
    try:
        await until(lambda: done(got))
        await asyncio.sleep(0.5)  # a commit interval
    finally:
        await app.stop()
    return got


def records_of(batches: list[Batch], partition: int) -> list[int]:
    return [
        one.offset for batch in batches if batch.partition == partition for one in batch.records
    ]
