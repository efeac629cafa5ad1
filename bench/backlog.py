"""A backlog that the model needs minutes for, on Apache Kafka: a slow engine is no failure.

    backlog.py --minutes 10                     a whole one: about that long, and a minute more
    backlog.py --minutes 0.5 --max-poll-s 6 --pack 1 --fetched 1          the same in small

Records for a few sessions are written to flashfeed.records all at once, `pack` in a message, as
a feed would; a real worker with the real model, which fetches `fetched` messages at a time,
works them off. It owns those partitions and nothing else, so that all it has is held back.
Where it is quicker than at first it is sent more. While it works its /metrics and its group
are looked at; then every record is accounted for. All of this must hold, or the exit is 1:

    rebalances, members                0 assignments since it began, 1 member in every look: the
                                       generation never changed, heartbeats went on
    all_held_back                      the share of looks in which nothing could be fetched
    over_session, over_poll            how often session_timeout_s and max_poll_interval_s fit
                                       into the backlog: more than once each
    queued_max <= queued_bound         records at the sessions' owners, in every look
    rss_growth <= RSS_GROWTH_MAX       the second half's largest over the first half's
    healed                             0: a partition that is held back does not stand still
    lost, repeated, dropped            0, of the data_updated events' origins: each record once
    updated, processed, applied, committed   as many as were sent: by the events, the sessions,
                                       /metrics, the group. Where it became so slow that it is
                                       not through at the end (`drained`): no hole in what is
                                       answered, and nothing committed beyond it
    stop_s                             < 10, from SIGTERM
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from flashfeed.agents.key_partition import partition_of
from flashfeed.agents.transport import IN_FLIGHT_MAX
from flashfeed.cli.embedded_broker import free_port
from flashfeed.cli.worker_process import scrape, start_worker, stop_worker, wait_until_ready
from flashfeed.models.messages import PackedRecord, Records, encode_message

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from apache_kafka import kafka_node

PARTITIONS, SESSIONS = 2, 4
WARM_RECORDS = 16
RSS_GROWTH_MAX = 1.1
LOOK_S = 1.0
STOP_MAX_S = 10.0
GROUP = "backlog"
REBALANCES = "flashfeed_rebalances_total"
CONFIG = """
[kafka]
brokers = "{brokers}"
group = "backlog"
partitions = {partitions}
batch_records_max = {fetched}
session_timeout_s = {session_s}
max_poll_interval_s = {poll_s}
[control]
enabled = false
[bridge]
port = {port}
[log]
format = "text"
[engine]
context_tokens = 1024
sessions_max = 8
[templates.plant]
type = "iot"
window = {{ mode = "exact", items = 24 }}
flash = [{{ query = "Is the last value high or low?", choices = ["high", "low"] }}]
"""


def sessions() -> list[str]:
    """Names, so many of each partition."""
    names = (f"sensor-{number}" for number in range(10_000))
    places = [n % PARTITIONS for n in range(SESSIONS)]
    return [
        next(name for name in names if partition_of(name, PARTITIONS) == place) for place in places
    ]


@dataclass(frozen=True)
class Shape:
    """How long the backlog is to be, in seconds, and how it comes."""

    seconds: float
    session_s: float
    poll_s: float
    pack: int
    fetched: int

    @property
    def queued_bound(self) -> int:
        """Records that may wait at the sessions' owners."""
        return PARTITIONS * IN_FLIGHT_MAX * self.fetched * self.pack


@dataclass
class Source:
    """What was sent, packed as a feed packs it."""

    brokers: str
    names: list[str]
    pack: int
    each: int = 0

    @property
    def records(self) -> int:
        """Records sent to all sessions."""
        return self.each * len(self.names)

    async def send(self, records: float) -> None:
        """At least so many records more, to the sessions in turn."""
        messages = int(records / self.pack / len(self.names)) + 1
        producer = AIOKafkaProducer(bootstrap_servers=self.brokers, linger_ms=20)
        async with producer:
            waits = []
            for _ in range(messages):
                for place, name in enumerate(self.names):
                    value = encode_message(self._message(place))
                    waits.append(await producer.send("flashfeed.records", value, name.encode()))
                self.each += self.pack
            await asyncio.gather(*waits)

    def _message(self, place: int) -> Records:
        now_ms = int(time.time() * 1000)
        records = tuple(
            PackedRecord(number, 0, now_ms, {"sid": "a", "val": float(number % 100)})
            for number in range(self.each, self.each + self.pack)
        )
        return Records(
            type="iot", records=records, topic="source", partition=place, template="plant"
        )


@dataclass
class Seen:
    """What the looks at a worker under its backlog found."""

    queued: list[float] = field(default_factory=list)
    held_back: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    rebalances: list[float] = field(default_factory=list)
    members: set[str] = field(default_factory=set)
    states: set[str] = field(default_factory=set)


def applied(port: int) -> float:
    """Records that the sessions have."""
    return scrape(port, 'flashfeed_applied_records_total{result="applied"}')


async def look(port: int, admin: AIOKafkaAdminClient, seen: Seen) -> None:
    """One look at the worker and at its group."""
    seen.queued.append(scrape(port, "flashfeed_queued_records"))
    seen.held_back.append(scrape(port, "flashfeed_held_back_partitions"))
    seen.rss.append(scrape(port, "process_resident_memory_bytes"))
    seen.rebalances.append(scrape(port, REBALANCES))
    [group] = (await admin.describe_consumer_groups([GROUP]))[0].groups
    seen.states.add(group[2])
    seen.members.update(member[0] for member in group[5])


async def work_off(source: Source, port: int, seconds: float) -> tuple[Seen, float, float]:
    """The backlog, sent at once and worked off: what was seen, the seconds it took, and how
    many records a second were applied."""
    seen = Seen()
    admin = AIOKafkaAdminClient(bootstrap_servers=source.brokers)
    await admin.start()
    try:
        await source.send(WARM_RECORDS)
        warm_began = time.monotonic()
        while applied(port) < source.records:
            await asyncio.sleep(0.1)
        rate = source.records / (time.monotonic() - warm_began)
        warmed, began = source.records, time.monotonic()
        seen.rebalances.append(scrape(port, REBALANCES))
        await source.send(0.8 * rate * seconds)
        while (done := applied(port)) < source.records:
            await look(port, admin, seen)
            took = time.monotonic() - began
            if took > 1.2 * seconds + 20:
                break  # it became slower: what there is by now must be consistent
            rate = (done - warmed) / took
            left_s = (source.records - done) / max(rate, 1.0)
            if took < seconds and took + left_s < seconds * 1.05:
                await source.send(rate * seconds * 0.1)
            await asyncio.sleep(LOOK_S)
        took = time.monotonic() - began
        return seen, took, (applied(port) - warmed) / took
    finally:
        await admin.close()


async def read_all(brokers: str, topic: str) -> list[dict[str, object]]:
    """The events on a topic, those that were aborted not among them."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=brokers,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    found = []
    async with consumer:
        while fetched := await consumer.getmany(timeout_ms=2000):
            found += [json.loads(one.value) for records in fetched.values() for one in records]
    return found


async def committed(brokers: str) -> tuple[int, int]:
    """What the group has committed of flashfeed.records, and where it ends."""
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, group_id=GROUP, enable_auto_commit=False)
    async with consumer:
        places = [TopicPartition("flashfeed.records", number) for number in range(PARTITIONS)]
        ends = await consumer.end_offsets(places)
        offsets = [await consumer.committed(place) for place in places]
    return sum(one or 0 for one in offsets), sum(ends.values())


def updated_records(events: list[dict[str, object]]) -> Iterator[tuple[object, int]]:
    """The session and source offset of every record that a version brought."""
    for event in events:
        origins = event["origins"]
        assert isinstance(origins, list)
        for one in origins:
            yield from ((event["session_id"], n) for n in range(one["first"], one["last"] + 1))


def accounted(source: Source, port: int, events: list[dict[str, object]]) -> dict[str, float]:
    """Every record that was sent, by the events, by the sessions and by /metrics."""
    counts = Counter(updated_records(events))
    # Of each session up to the newest that was answered.
    ends = {name: 0 for name in source.names}
    for name, number in counts:
        ends[str(name)] = max(ends[str(name)], number + 1)
    sent = {(name, number) for name in source.names for number in range(ends[name])}
    statuses = [
        httpx.get(f"http://127.0.0.1:{port}/v1/sessions/{name}/stream/status", timeout=30).json()
        for name in source.names
    ]
    statistics = [one["statistics"] for one in statuses]
    return {
        "lost": len(sent - counts.keys()) + len(counts.keys() - sent),
        "repeated": sum(number - 1 for number in counts.values()),
        "dropped": sum(one["total_dropped"] for one in statistics),
        "processed": sum(one["items_processed"] for one in statistics),
        "applied": int(applied(port)),
        "updated": sum(ends.values()),
        "versions": len(events),
    }


async def run(shape: Shape, home: Path) -> dict[str, object]:
    """A worker under such a backlog, and what became of it."""
    config, log = home / "worker.toml", home / "worker.log"
    port = free_port()
    with kafka_node(home) as node:
        config.write_text(
            CONFIG.format(
                brokers=node.plain,
                partitions=PARTITIONS,
                fetched=shape.fetched,
                session_s=shape.session_s,
                poll_s=shape.poll_s,
                port=port,
            )
        )
        worker = start_worker(config, log)
        try:
            wait_until_ready(port, worker, log)
            source = Source(node.plain, sessions(), shape.pack)
            seen, took, rate = await work_off(source, port, shape.seconds)
            drained = applied(port) == source.records
            await asyncio.sleep(2)  # a commit interval
            offsets, end = await committed(node.plain)
            counts = accounted(source, port, await read_all(node.plain, "flashfeed.data_updated"))
            healed = scrape(port, "flashfeed_silent_partitions_total")
            letters = scrape(port, "flashfeed_dead_letters_total")
        finally:
            stopping = time.monotonic()
            code = stop_worker(worker)
            stop_s = time.monotonic() - stopping
    all_held = sum(one == PARTITIONS for one in seen.held_back)
    half = max(1, len(seen.rss) // 2)
    rss_first, rss_last = max(seen.rss[:half]), max(seen.rss[-half:])
    return {
        "bench": "backlog",
        "minutes": round(took / 60, 2),
        "records": source.records,
        "records_per_s": round(rate, 1),
        "over_session": round(took / shape.session_s, 1),
        "over_poll": round(took / shape.poll_s, 1),
        "rebalances": seen.rebalances[-1] - seen.rebalances[0],
        "members": len(seen.members),
        "states": sorted(seen.states),
        "looks": len(seen.rss),
        "all_held_back": round(all_held / len(seen.held_back), 2),
        "queued_median": median(seen.queued),
        "queued_max": max(seen.queued),
        "queued_bound": shape.queued_bound,
        "rss_mib": round(rss_last / 2**20),
        "rss_growth": round(rss_last / rss_first, 3),
        "healed": healed,
        "dead_letters": letters,
        **counts,
        "records_a_version": round(source.records / max(1, counts["versions"]), 1),
        "drained": drained,
        "committed": offsets * shape.pack,
        "end": end * shape.pack,
        "stop_code": code,
        "stop_s": round(stop_s, 1),
    }


def faults(found: dict[str, object], shape: Shape) -> list[str]:
    """What of it must not be."""
    wanted = {
        "rebalances": 0, "members": 1, "states": ["Stable"], "healed": 0,
        "dead_letters": 0, "lost": 0, "repeated": 0, "dropped": 0, "stop_code": 0,
    }  # fmt: skip
    if found["drained"]:
        counted = ("updated", "processed", "applied", "committed", "end")
        wanted |= dict.fromkeys(counted, found["records"])
    wrong = [
        f"{name}: expected {value}, got {found[name]}"
        for name, value in wanted.items()
        if found[name] != value
    ]
    bounds: dict[str, tuple[float, object]] = {
        "committed": (1, found["updated"]),
        "queued_max": (1, shape.queued_bound),
        "rss_growth": (0, RSS_GROWTH_MAX),
        "over_session": (2, 1e9),
        "over_poll": (1.5, 1e9),
        "minutes": (0.95 * shape.seconds / 60, 1e9),
        "all_held_back": (0.3, 1.1),
        "stop_s": (0, STOP_MAX_S),
    }
    for name, (least, most) in bounds.items():
        value = found[name]
        assert isinstance(value, int | float) and isinstance(most, int | float)
        if not least <= value <= most:
            wrong.append(f"{name}: expected {least:g} to {most:g}, got {value}")
    return wrong


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--session-timeout-s", type=float, default=6.0)
    arguments.add_argument("--max-poll-s", type=float, default=300.0)
    arguments.add_argument("--pack", type=int, default=4)
    arguments.add_argument("--fetched", type=int, default=5)
    given = arguments.parse_args()
    shape = Shape(
        60 * given.minutes, given.session_timeout_s, given.max_poll_s, given.pack, given.fetched
    )
    with tempfile.TemporaryDirectory(prefix="flashfeed-backlog-") as folder:
        home = Path(folder)
        found = asyncio.run(run(shape, home))
        wrong = faults(found, shape)
        if wrong:
            print((home / "worker.log").read_text()[-3000:], file=sys.stderr)
    for name, value in found.items():
        print(f"{name:<18}{value}")
    for one in wrong:
        print(one)
    print(json.dumps({**found, "pass": not wrong}))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
