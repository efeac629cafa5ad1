"""How many records a second reach an agent's body, orjson included.

Side by side on one embedded broker, over the same records, each side in a process of
its own: stock Faust (an event a record), flashfeed's transport (a message a batch),
and raw aiokafka `getmany` with orjson, which is the ceiling. Rounds interleave; the
medians count. The clock starts behind the first batch, whose fetch is a start-up cost.

    batched_over_stock >= 10        batched_over_raw >= 0.5
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import subprocess
import sys
import time

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from flashfeed.cli.embedded_broker import embedded_broker
from flashfeed.cli.sample_data import candles, cryptofeed_json

SIDES = ("stock", "batched", "raw")
RECORDS = 120_000
STOCK_RECORDS = 12_000
ROUNDS = 3
TOPIC = "candles"


async def fill(broker: str) -> None:
    """Write the records: real candles in cryptofeed's JSON, over and over."""
    values = [cryptofeed_json("AAPL", row) for row in candles("AAPL")]
    producer = AIOKafkaProducer(bootstrap_servers=broker, linger_ms=5, max_batch_size=500_000)
    await producer.start()
    try:
        for place in range(RECORDS):
            await producer.send(TOPIC, values[place % len(values)], key=b"candles", partition=0)
        await producer.flush()
    finally:
        await producer.stop()


class Clock:
    """Counts records; the rate is over those behind the first batch."""

    def __init__(self) -> None:
        self.seen = self.first = 0
        self.began = 0.0

    def count(self, records: int) -> None:
        """Note that many more records as read."""
        self.seen += records
        if not self.began:
            self.began, self.first = time.perf_counter(), self.seen

    def rate(self) -> float:
        """Records a second up to now."""
        return (self.seen - self.first) / (time.perf_counter() - self.began)


async def raw_side(broker: str, wanted: int) -> float:
    """Records a second of `getmany` and orjson alone."""
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=broker,
        group_id=f"raw-{time.time_ns()}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
    )
    await consumer.start()
    clock = Clock()
    while clock.seen < wanted:
        fetched = await consumer.getmany(timeout_ms=1000)
        for records in fetched.values():
            for record in records:
                orjson.loads(record.value)
            clock.count(len(records))
    rate = clock.rate()
    await consumer.stop()
    return rate


async def faust_side(broker: str, wanted: int, *, batched: bool) -> float:
    """Records a second through a Faust agent, stock or batched."""
    import faust

    from flashfeed.agents import transport

    transport.register()
    app = (transport.BatchApp if batched else faust.App)(
        f"bench-{time.time_ns()}",
        broker=f"{transport.SCHEME if batched else 'kafka'}://{broker}",
        value_serializer="raw",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=False,
        table_standby_replicas=0,
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.0,
        consumer_auto_offset_reset="earliest",
    )
    finished = asyncio.Event()
    clock = Clock()

    def count(records: int) -> None:
        clock.count(records)
        if clock.seen >= wanted:
            finished.set()

    if batched:

        @app.agent(app.topic(TOPIC))
        async def by_batch(stream):  # type: ignore[no-untyped-def]
            async for event in stream.noack().events():
                for record in event.value.records:
                    orjson.loads(record.value)
                count(len(event.value.records))
                event.ack()

    else:

        @app.agent(app.topic(TOPIC))
        async def by_record(stream):  # type: ignore[no-untyped-def]
            async for value in stream:
                orjson.loads(value)
                count(1)

    await app.start()
    await finished.wait()
    rate = clock.rate()
    await app.stop()
    return rate


def side_in_process(side: str, broker: str) -> float:
    """Run one side in a fresh process and read its rate."""
    done = subprocess.run(
        [sys.executable, __file__, side, broker],
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
    )
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    return float(done.stdout.split()[-1])


def main() -> None:
    if len(sys.argv) == 3:
        logging.disable(logging.CRITICAL)
        side, broker = sys.argv[1:]
        if side == "raw":
            rate = asyncio.run(raw_side(broker, RECORDS))
        else:
            wanted = RECORDS if side == "batched" else STOCK_RECORDS
            rate = asyncio.run(faust_side(broker, wanted, batched=side == "batched"))
        sys.__stdout__.write(f"{rate}\n")
        sys.__stdout__.flush()
        return
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    with embedded_broker() as broker:
        asyncio.run(fill(broker))
        for _ in range(ROUNDS):
            for side in SIDES:
                rates[side].append(side_in_process(side, broker))
    medians = {side: statistics.median(values) for side, values in rates.items()}
    print(f"{'side':<10}{'records/s':>12}   rounds")
    for side in SIDES:
        rounds = "  ".join(f"{rate:,.0f}" for rate in rates[side])
        print(f"{side:<10}{medians[side]:>12,.0f}   {rounds}")
    figures = {
        "bench": "transport",
        "batched_over_stock": round(medians["batched"] / medians["stock"], 2),
        "batched_over_raw": round(medians["batched"] / medians["raw"], 2),
        "records_per_s": {side: round(rate) for side, rate in medians.items()},
    }
    figures["pass"] = figures["batched_over_stock"] >= 10 and figures["batched_over_raw"] >= 0.5
    print(json.dumps(figures))
    sys.exit(not figures["pass"])


if __name__ == "__main__":
    main()
