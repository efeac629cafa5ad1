"""How many records a second get how far, from a topic to a session's changelog.

Side by side on the embedded broker (Tansu) and on one Apache Kafka node, over the same
records (cryptofeed's candles of 32 symbols, one partition), each side in a process of its
own. Rounds interleave; a ratio is the median of the rounds' ratios. The clock starts behind
the first half, in which clients warm up and use what they fetched at the start. Every side
decodes with orjson, commits behind its handler (at least once), and is checked to have
committed.

    raw        aiokafka's `getmany`
    batched    flashfeed's transport, a message a batch
    stock      stock Faust, an event a record; `take` with what Stream.take buffers
    confluent, quix, faststream_aiokafka, faststream_confluent: frameworks.py

    mapped     (Tansu) ours up to checked, packed records: a feed's whole reading
    applied    (Tansu) a worker from that topic through flashfeed.records to the changelog
               and the events, one standing question a session; the engine is a stub that
               answers at once (transport_worker.py)
    spread     (Tansu) the same with 1,000 symbols in one partition of each topic; reported
    transactions, ordered   (Kafka) `applied` with kafka.transactions and without: what they
               cost. A transaction takes all steps that wait, so that the more sessions are
               busy the less it costs; reported

    over_best_framework >= 1    over_raw_aiokafka >= 0.5      of `batched`, on both brokers
    batched_over_stock >= 10    mapped_over_raw >= 0.4    applied_over_raw >= 0.2    on Tansu

`--on tansu` or `--on kafka` for one broker, `--rounds N`, `--records N` (a share of all).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from framework_packages import frameworks_python
from transport_sides import SPREAD_TOPIC, TOPIC

from flashfeed.cli.embedded_broker import embedded_broker
from flashfeed.cli.sample_data import candles, cryptofeed_json

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import apache_kafka

HERE = Path(__file__).parent
OURS = str(HERE / "transport_sides.py")
THEIRS = str(HERE / "frameworks.py")
SYMBOLS, SPREAD_SYMBOLS = 32, 1000
ROUNDS = 3
READERS = {
    "raw": 240_000,
    "batched": 240_000,
    "stock": 6_000,
    "take": 6_000,
    "confluent": 240_000,
    "quix": 40_000,
    "faststream_aiokafka": 240_000,
    "faststream_confluent": 240_000,
}
"""Who reads only, and how many records."""
RECORDS = {
    "tansu": READERS | {"mapped": 100_000, "applied": 30_000, "spread": 10_000},
    "kafka": READERS | {"transactions": 30_000, "ordered": 30_000},
}
FRAMEWORKS = ("stock", "take", "quix", "faststream_aiokafka", "faststream_confluent")
IN_THEIR_ENVIRONMENT = ("confluent", "quix", "faststream_aiokafka", "faststream_confluent")
BOUNDS = {
    "over_best_framework": 1.0,
    "over_raw_aiokafka": 0.5,
    "batched_over_stock": 10.0,
    "mapped_over_raw": 0.4,
    "applied_over_raw": 0.2,
}
BOUNDED = {
    "tansu": tuple(BOUNDS),
    "kafka": ("over_best_framework", "over_raw_aiokafka"),
}

Round = Mapping[str, float]
"""Records a second by side; a side that cannot run is not in it."""


class Measured(NamedTuple):
    """What a broker's rounds gave, and why a side is not among them."""

    rounds: Sequence[Round]
    failed: Mapping[str, str]


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


async def make_topic(broker: str, topic: str) -> None:
    """A topic of one partition, where the broker makes none by itself."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()


async def committed(broker: str, group: str) -> int:
    """How far the group has committed the topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        return await consumer.committed(TopicPartition(TOPIC, 0)) or 0
    finally:
        await consumer.stop()


class SideFailed(Exception):
    """A side's process ended badly; the last it said."""


def side_in_process(script: str, *arguments: str, python: str = sys.executable) -> float:
    """Run one side of a bench in a fresh process, and read the number that it prints last.
    Raises SideFailed."""
    try:
        done = subprocess.run(
            [python, script, *arguments], check=False, capture_output=True, text=True, timeout=300
        )
    except subprocess.TimeoutExpired:
        raise SideFailed("did not end in 300 s") from None
    if done.returncode or not done.stdout.strip():
        raise SideFailed(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return float(done.stdout.split()[-1])


def run_side(side: str, broker: str, records: int) -> float:
    """One side's records a second; raises SideFailed where it cannot, or commits nothing."""
    group = f"{side}-{time.time_ns()}"
    if side in IN_THEIR_ENVIRONMENT:
        python = frameworks_python()
        rate = side_in_process(THEIRS, side, broker, group, str(records), python=python)
    else:
        rate = side_in_process(OURS, side, broker, group, str(records))
    if side in READERS and not asyncio.run(committed(broker, group)):
        raise SideFailed("it committed nothing")
    return rate


def measure(broker: str, records: Mapping[str, int], n_rounds: int) -> Measured:
    """The rounds; a framework that cannot run here is left out from then on, with its word."""
    rounds: list[Round] = []
    failed: dict[str, str] = {}
    for number in range(n_rounds):
        order = list(records) if number % 2 else list(records)[::-1]
        rates: dict[str, float] = {}
        for side in order:
            if side in failed:
                continue
            try:
                rates[side] = run_side(side, broker, records[side])
            except SideFailed as error:
                if side not in IN_THEIR_ENVIRONMENT:
                    raise
                failed[side] = str(error).strip().splitlines()[-1]
            print(f"  {side} {rates.get(side, 0):,.0f}", file=sys.stderr, flush=True)
        rounds.append(rates)
    return Measured(rounds, failed)


def ratios(rounds: Sequence[Round]) -> dict[str, float]:
    """The median of the rounds' ratios, of those whose sides are there. Pure."""

    def ratio(side: Callable[[Round], float], other: Callable[[Round], float]) -> float:
        return round(statistics.median(side(one) / other(one) for one in rounds), 3)

    def of(side: str) -> Callable[[Round], float]:
        return lambda one: one[side]

    def best(one: Round) -> float:
        return max(one[name] for name in FRAMEWORKS if name in one)

    there = set.intersection(*(set(one) for one in rounds))
    found = {
        "over_best_framework": ratio(of("batched"), best),
        "over_raw_aiokafka": ratio(of("batched"), of("raw")),
        "batched_over_stock": ratio(of("batched"), of("stock")),
    }
    if "confluent" in there:
        found["over_raw_confluent"] = ratio(of("batched"), of("confluent"))
    for side in ("mapped", "applied", "spread"):
        if side in there:
            found[f"{side}_over_raw"] = ratio(of(side), of("raw"))
    if "transactions" in there:
        found["transactions_over_ordered"] = ratio(of("transactions"), of("ordered"))
    return found


def table(name: str, measured: Measured, records: Mapping[str, int]) -> Iterator[str]:
    """The lines of one broker's table. Pure."""
    yield f"{name:<22}{'records/s':>12}   rounds"
    for side in records:
        if side in measured.failed:
            yield f"{side:<22}{'-':>12}   cannot run here: {measured.failed[side]}"
            continue
        rates = [one[side] for one in measured.rounds]
        each = "  ".join(f"{rate:,.0f}" for rate in rates)
        yield f"{side:<22}{statistics.median(rates):>12,.0f}   {each}"


@contextlib.contextmanager
def apache_node() -> Iterator[str]:
    """One Apache Kafka node."""
    with tempfile.TemporaryDirectory() as home, apache_kafka.kafka_node(Path(home)) as node:
        asyncio.run(make_topic(node.plain, TOPIC))
        yield node.plain


BROKERS: dict[str, Callable[[], Any]] = {"tansu": embedded_broker, "kafka": apache_node}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--on", choices=list(BROKERS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--records", type=float, default=1.0, help="a share of all")
    parser.add_argument("--sides", nargs="*", help="these only, and no ratios")
    options = parser.parse_args()
    frameworks_python()
    figures: dict[str, Any] = {"bench": "transport"}
    good = True
    for name in [options.on] if options.on else BROKERS:
        wanted = {side: int(n * options.records) for side, n in RECORDS[name].items()}
        wanted = {side: n for side, n in wanted.items() if side in (options.sides or wanted)}
        with BROKERS[name]() as broker:
            asyncio.run(fill(broker, TOPIC, SYMBOLS, max(wanted.values())))
            if "spread" in wanted:
                asyncio.run(fill(broker, SPREAD_TOPIC, SPREAD_SYMBOLS, wanted["spread"]))
            measured = measure(broker, wanted, options.rounds)
        print(*table(name, measured, wanted), "", sep="\n")
        if options.sides:
            continue
        found = ratios(measured.rounds)
        good &= all(found[one] >= BOUNDS[one] for one in BOUNDED[name])
        rates = {
            side: round(statistics.median(one[side] for one in measured.rounds))
            for side in wanted
            if side not in measured.failed
        }
        figures[name] = {**found, "records_per_s": rates, "cannot_run": dict(measured.failed)}
    print(json.dumps(figures | {"pass": good}))
    sys.exit(not good)


if __name__ == "__main__":
    main()
