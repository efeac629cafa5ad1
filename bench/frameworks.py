"""Other frameworks' sides of bench/transport.py, each in the fastest way that its
documentation has: records a second to a handler that gets them decoded and does nothing.

Run by the interpreter of framework_packages.py, as `frameworks.py SIDE BROKER GROUP`. All
commit behind the handler (at least once); those that let one choose, every clock.COMMIT_S.
Each decodes with orjson, the two frameworks by their own choice where it is installed.

What the documentation says:

confluent   docs.confluent.io, confluent_kafka API: "consume([num_messages=1], [timeout=-1])
            Consumes a list of messages (possibly empty on timeout)". librdkafka, Consumer
            offset management: "set `enable.auto.offset.store` to false and manually store
            offsets after processing".
quix        docs/advanced/checkpointing.md: "If `commit_interval` is set to 0, the application
            will commit a checkpoint for every processed Kafka message". There is no batch
            mode: a StreamingDataFrame's functions get a message each.
faststream  docs/kafka/Subscriber/batch_subscriber.md: "by [...] setting the `batch` parameter
            to `True`, the subscriber will call your consuming function with a batch of
            messages"; "Consuming messages in batches [...] can enhance the overall performance
            of your data pipelines". docs/kafka/ack.md: "if you wish to use the at least once
            strategy [...] set a consumer group and use the `AckPolicy.ACK` strategy", which
            commits each batch. `apply_types=False` "Disable pydantic validation"; `logger=None`
            leaves out a line for each batch. The decoder is the batch's own ("Custom Decoder"):
            the stock one makes a message of each record first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import orjson
from clock import COMMIT_S, Clock

TOPIC = "candles"
BATCH_RECORDS = 2_000
"""What one `consume` may give."""


def confluent(broker: str, group: str, clock: Clock) -> None:
    """Raw confluent-kafka: `consume`, the last record's offset stored behind the handler."""
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
            "enable.auto.offset.store": False,
            "auto.commit.interval.ms": int(COMMIT_S * 1000),
        }
    )
    consumer.subscribe([TOPIC])
    done = False
    while not done:
        messages = consumer.consume(BATCH_RECORDS, 0.1)
        for message in messages:
            if message.error():
                raise RuntimeError(str(message.error()))
        if messages:
            no_op([orjson.loads(message.value()) for message in messages])
            consumer.store_offsets(messages[-1])  # one partition
            done = clock.count(len(messages))
    consumer.close()


def quix(broker: str, group: str, clock: Clock) -> None:
    """Quix Streams: a StreamingDataFrame's function for each message."""
    from quixstreams import Application

    app = Application(
        broker_address=broker,
        consumer_group=group,
        auto_offset_reset="earliest",
        commit_interval=COMMIT_S,
        auto_create_topics=False,
        loglevel=None,
        consumer_extra_config={"session.timeout.ms": 6000},
    )

    def handle(value: Any) -> None:
        if clock.count(1):
            app.stop()

    app.dataframe(app.topic(TOPIC, value_deserializer="json")).update(handle)
    app.run()


def faststream_aiokafka(broker: str, group: str, clock: Clock) -> None:
    """FastStream over aiokafka: a batch subscriber."""
    from faststream.kafka import KafkaBroker

    client = KafkaBroker(broker, apply_types=False, logger=None)
    asyncio.run(_faststream(client, group, clock, lambda record: record.value, {}))


def faststream_confluent(broker: str, group: str, clock: Clock) -> None:
    """FastStream over confluent-kafka: a batch subscriber."""
    from faststream.confluent import KafkaBroker

    client = KafkaBroker(broker, apply_types=False, logger=None)
    more = {"max_records": BATCH_RECORDS}
    asyncio.run(_faststream(client, group, clock, lambda record: record.value(), more))


async def _faststream(
    client: Any, group: str, clock: Clock, value: Callable[[Any], bytes], more: dict[str, Any]
) -> None:
    from faststream import AckPolicy

    finished = asyncio.Event()

    async def decode(message: Any) -> list[Any]:
        return [orjson.loads(value(record)) for record in message.raw_message]

    @client.subscriber(
        TOPIC,
        group_id=group,
        batch=True,
        ack_policy=AckPolicy.ACK,
        auto_offset_reset="earliest",
        session_timeout_ms=6000,
        decoder=decode,
        **more,
    )
    async def handle(values: Any) -> None:
        no_op(values)
        if clock.count(len(values)):
            finished.set()

    await client.start()
    await finished.wait()
    await client.stop()


def no_op(_values: list[Any]) -> None:
    """What every side's handler does."""


SIDES: dict[str, Callable[[str, str, Clock], None]] = {
    "confluent": confluent,
    "quix": quix,
    "faststream_aiokafka": faststream_aiokafka,
    "faststream_confluent": faststream_confluent,
}


def main() -> None:
    side, broker, group, wanted = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    clock = Clock(int(wanted))
    SIDES[side](broker, group, clock)
    os.write(1, f"{clock.rate()}\n".encode())


if __name__ == "__main__":
    main()
