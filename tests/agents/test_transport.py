"""The batching transport in a real Faust app on the embedded broker."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from flashfeed.agents import transport
from flashfeed.agents.transport import IN_FLIGHT_MAX, Batch

pytestmark = pytest.mark.broker
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


async def test_what_is_not_acknowledged_is_not_committed_and_comes_again(broker: str) -> None:
    topic = group = f"stuck-{time.time_ns()}"
    await fill(broker, topic)
    got = await run_app(broker, group, topic, 1, lambda got: len(records_of(got, 0)) == RECORDS)
    assert records_of(got, 0) == list(range(RECORDS))
    assert await committed(broker, group, topic) == {0: RECORDS, 1: None}
    again = await run_app(
        broker, group, topic, None, lambda got: len(records_of(got, 1)) == RECORDS
    )
    assert records_of(again, 1) == list(range(RECORDS))
    assert records_of(again, 0) == []
    assert await committed(broker, group, topic) == {0: RECORDS, 1: RECORDS}


async def test_a_stuck_partition_is_bounded_and_holds_back_no_other(broker: str) -> None:
    topic = group = f"bounded-{time.time_ns()}"
    await fill(broker, topic)
    got = await run_app(
        broker,
        group,
        topic,
        1,
        lambda got: len(records_of(got, 0)) == RECORDS,
        broker_max_poll_records=5,
    )
    assert records_of(got, 0) == list(range(RECORDS))
    stuck = [batch for batch in got if batch.partition == 1]
    assert 0 < len(stuck) <= IN_FLIGHT_MAX
    assert len(records_of(got, 1)) <= 5 * IN_FLIGHT_MAX


async def test_a_group_that_never_read_a_topic_can_begin_at_its_end(broker: str) -> None:
    topic = group = f"end-{time.time_ns()}"
    await fill(broker, topic)
    got = await run_app(broker, group, topic, None, lambda _: True, begins_at_end=(topic,))
    # The embedded broker answers `latest` one too low behind a batch.
    assert set(records_of(got, 0) + records_of(got, 1)) <= {RECORDS - 1}
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    await producer.start()
    await producer.send_and_wait(topic, b"while it was away", partition=0)
    await producer.stop()
    again = await run_app(broker, group, topic, None, bool, begins_at_end=(topic,))
    assert records_of(again, 0)[-1] == RECORDS  # the end was committed, and is not asked again
    assert set(records_of(again, 0)) <= {RECORDS - 1, RECORDS}
