"""How many records a second get how far, from a topic to a session's changelog.

Side by side on one embedded broker, over the same records (cryptofeed's candles of 32
symbols), each side in a process of its own. Rounds interleave; the medians count. The clock
starts behind the first batch, whose fetch is a start-up cost.

    raw       aiokafka's `getmany` with orjson, which is the ceiling
    stock     stock Faust, an event a record, orjson
    batched   flashfeed's transport, a message a batch, orjson
    mapped    the same up to checked, packed records: a feed's whole reading (agents/feeds.py)
    applied   a worker from that topic through flashfeed.records to the changelog and the
              events, one standing question a session; the engine is a stub that answers at
              once (transport_worker.py)
    spread    the same with 1,000 symbols in one partition of each topic; reported

    batched_over_stock >= 10   batched_over_raw >= 0.5
    mapped_over_raw >= 0.4     applied_over_raw >= 0.2
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from transport_worker import applied_rate

from flashfeed.agents.feeds import Feed, read_batch
from flashfeed.agents.transport import Batch
from flashfeed.cli.embedded_broker import embedded_broker
from flashfeed.cli.sample_data import candles, cryptofeed_json
from flashfeed.codecs.codec import Outside
from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.presets import mapping_spec
from flashfeed.codecs.registry import codec

RECORDS = {
    "stock": 12_000,
    "batched": 120_000,
    "mapped": 120_000,
    "applied": 60_000,
    "spread": 20_000,
    "raw": 120_000,
}
BOUNDS = {
    "batched_over_stock": 10.0,
    "batched_over_raw": 0.5,
    "mapped_over_raw": 0.4,
    "applied_over_raw": 0.2,
}
ROUNDS = 3
TOPIC, SYMBOLS = "candles", 32
SPREAD_TOPIC, SPREAD_SYMBOLS = "spread", 1000


async def fill(broker: str, topic: str, symbols: int, records: int) -> None:
    """Write the records: real candles in cryptofeed's JSON, day after day, symbol by symbol."""
    rows = list(candles("AAPL"))
    producer = AIOKafkaProducer(bootstrap_servers=broker, linger_ms=5, max_batch_size=500_000)
    await producer.start()
    try:
        for place in range(records):
            day, symbol = divmod(place, symbols)
            row = rows[day % len(rows)] | {"start": rows[0]["start"] + 86_400.0 * day}
            value = cryptofeed_json(f"S{symbol}", row)
            await producer.send(topic, value, key=b"candles", partition=0)
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


def loads(batch: Batch) -> None:
    for record in batch.records:
        orjson.loads(record.value)


def read_as_feed() -> Callable[[Batch], None]:
    """What a feed does with a batch before it writes."""
    mapping = Mapping(mapping_spec("cryptofeed", {}))
    outside = Outside(lambda _: b"", fields=mapping.fields)
    feed = Feed("bench", "market", "ohlcv", codec("json", {}, outside), mapping, str)

    def read(batch: Batch) -> None:
        done = read_batch(batch, feed)
        assert done.records == len(batch.records), done.dead_letters[:1]

    return read


async def faust_side(broker: str, wanted: int, read: Callable[[Batch], None] | None) -> float:
    """Records a second through a Faust agent: by batch with `read`, else stock."""
    import faust

    from flashfeed.agents import transport

    transport.register()
    app = (transport.BatchApp if read else faust.App)(
        f"bench-{time.time_ns()}",
        broker=f"{transport.SCHEME if read else 'kafka'}://{broker}",
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

    if read:

        @app.agent(app.topic(TOPIC))
        async def by_batch(stream):  # type: ignore[no-untyped-def]
            async for event in stream.noack().events():
                read(event.value)
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


async def run_side(side: str, broker: str, wanted: int) -> float:
    """One side's records a second."""
    if side == "raw":
        return await raw_side(broker, wanted)
    if side == "applied":
        return await applied_rate(broker, TOPIC, wanted, partitions=4)
    if side == "spread":
        return await applied_rate(broker, SPREAD_TOPIC, wanted, partitions=1)
    return await faust_side(
        broker, wanted, {"batched": loads, "mapped": read_as_feed(), "stock": None}[side]
    )


def side_in_process(script: str, side: str, broker: str) -> float:
    """Run one side of a bench in a fresh process, and read the number that it prints last."""
    done = subprocess.run(
        [sys.executable, script, side, broker],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    return float(done.stdout.split()[-1])


def main() -> None:
    if len(sys.argv) == 3:
        logging.disable(logging.CRITICAL)
        side, broker = sys.argv[1:]
        rate = asyncio.run(run_side(side, broker, RECORDS[side]))
        sys.__stdout__.write(f"{rate}\n")
        sys.__stdout__.flush()
        return
    rates: dict[str, list[float]] = {side: [] for side in RECORDS}
    with embedded_broker() as broker:
        asyncio.run(fill(broker, TOPIC, SYMBOLS, max(RECORDS.values())))
        asyncio.run(fill(broker, SPREAD_TOPIC, SPREAD_SYMBOLS, RECORDS["spread"]))
        for _ in range(ROUNDS):
            for side in RECORDS:
                rates[side].append(side_in_process(__file__, side, broker))
    medians = {side: statistics.median(values) for side, values in rates.items()}
    print(f"{'side':<10}{'records/s':>12}   rounds")
    for side in RECORDS:
        rounds = "  ".join(f"{rate:,.0f}" for rate in rates[side])
        print(f"{side:<10}{medians[side]:>12,.0f}   {rounds}")
    ratios = {"batched_over_stock": medians["batched"] / medians["stock"]}
    for side in ("batched", "mapped", "applied", "spread"):
        ratios[f"{side}_over_raw"] = medians[side] / medians["raw"]
    good = all(ratios[name] >= bound for name, bound in BOUNDS.items())
    figures = {
        "bench": "transport",
        **{name: round(ratio, 3) for name, ratio in ratios.items()},
        "records_per_s": {side: round(rate) for side, rate in medians.items()},
        "pass": good,
    }
    print(json.dumps(figures))
    sys.exit(not good)


if __name__ == "__main__":
    main()
