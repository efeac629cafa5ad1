"""Our sides of bench/transport.py and what they stand on: aiokafka alone, and stock Faust.
Run as `transport_sides.py SIDE BROKER GROUP RECORDS`, a process each."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable

import orjson
from aiokafka import AIOKafkaConsumer
from clock import COMMIT_S, Clock
from transport_worker import applied_rate, applied_run

from flashfeed.agents.feeds import Feed, read_batch
from flashfeed.agents.transport import Batch
from flashfeed.codecs.codec import Outside
from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.presets import mapping_spec
from flashfeed.codecs.registry import codec

TOPIC = "candles"
SPREAD_TOPIC = "spread"
TAKE_RECORDS, TAKE_S = 2_000, 0.1


async def raw(broker: str, group: str, wanted: int) -> float:
    """`getmany` and orjson alone, and what is handled committed."""
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=broker,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
    )
    await consumer.start()
    clock = Clock(wanted)
    done, committed = False, time.monotonic()
    while not done:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            loads(records)
            done = clock.count(len(records))
        if time.monotonic() - committed >= COMMIT_S:
            await consumer.commit()
            committed = time.monotonic()
    await consumer.commit()
    await consumer.stop()
    return clock.rate()


def loads(records: list) -> list:  # type: ignore[type-arg]
    """Every record's value, decoded."""
    return [orjson.loads(record.value) for record in records]


def decoded(batch: Batch) -> None:
    """A handler that has a batch's values, and does nothing."""
    loads(batch.records)


def read_as_feed() -> Callable[[Batch], None]:
    """What a feed does with a batch before it writes."""
    mapping = Mapping(mapping_spec("cryptofeed", {}))
    outside = Outside(lambda _: b"", fields=mapping.fields)
    feed = Feed("bench", "market", "ohlcv", codec("json", {}, outside), mapping, str)

    def read(batch: Batch) -> None:
        done = read_batch(batch, feed)
        assert done.records == len(batch.records), done.dead_letters[:1]

    return read


async def faust_side(side: str, broker: str, group: str, wanted: int) -> float:
    """Through a Faust agent: by our batches, or as stock Faust has it, a record or what
    `take` buffers at a time ("Buffer n values at a time and yield a list of buffered
    values", Faust's only batch mode)."""
    import faust

    from flashfeed.agents import transport

    ours = side in ("batched", "mapped")
    if ours:  # it changes what aiokafka gives, which stock Faust cannot read
        transport.register()
    app = (transport.BatchApp if ours else faust.App)(
        group,
        broker=f"{transport.SCHEME if ours else 'kafka'}://{broker}",
        value_serializer="raw",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=False,
        table_standby_replicas=0,
        broker_commit_interval=COMMIT_S,
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.0,
        consumer_auto_offset_reset="earliest",
    )
    finished = asyncio.Event()
    clock = Clock(wanted)

    def count(records: int) -> None:
        if clock.count(records):
            finished.set()

    if ours:
        read = decoded if side == "batched" else read_as_feed()

        @app.agent(app.topic(TOPIC))
        async def by_batch(stream):  # type: ignore[no-untyped-def]
            async for event in stream.noack().events():
                read(event.value)
                count(len(event.value.records))
                event.ack()

    elif side == "take":

        @app.agent(app.topic(TOPIC))
        async def by_buffer(stream):  # type: ignore[no-untyped-def]
            async for values in stream.take(TAKE_RECORDS, within=TAKE_S):
                count(len([orjson.loads(value) for value in values]))

    else:

        @app.agent(app.topic(TOPIC))
        async def by_record(stream):  # type: ignore[no-untyped-def]
            async for value in stream:
                orjson.loads(value)
                count(1)

    await app.start()
    await finished.wait()
    await app.stop()
    return clock.rate()


async def run_side(side: str, broker: str, group: str, wanted: int) -> float:
    """One side's records a second."""
    if side == "raw":
        return await raw(broker, group, wanted)
    if side == "applied":
        return await applied_rate(broker, TOPIC, wanted, partitions=4)
    if side == "spread":
        return await applied_rate(broker, SPREAD_TOPIC, wanted, partitions=1)
    if side in ("transactions", "ordered"):
        kafka = f"transactions = {str(side == 'transactions').lower()}"
        return (await applied_run(broker, TOPIC, wanted, partitions=4, kafka=kafka)).rate
    return await faust_side(side, broker, group, wanted)


def main() -> None:
    side, broker, group, wanted = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    rate = asyncio.run(run_side(side, broker, group, int(wanted)))
    sys.__stdout__.write(f"{rate}\n")
    sys.__stdout__.flush()


if __name__ == "__main__":
    main()
