"""What more workers and more sessions cost, without the model, on one Apache Kafka node.

The engine is a stub: a decode takes a fixed 2 ms and is of up to 64 updates (scale_engine.py).
All else is the real worker: feeds, sessions, transactions, changelog, events. Candles in
cryptofeed's JSON, one standing question a session, PARTITIONS partitions of each topic.

    workers    records a second of 1, 2 and 4 workers, over WORKER_SESSIONS sessions; as many
               workers as there are cores. The broker has its share of those cores too
    sessions   with 10, 1,000 and 100,000 sessions in the table:
               create_per_s       sessions made a second, each by its first record
               records_per_s      records to at most 1,000 of them, the others idle
               memory_bytes       resident memory a session: what the worker grew by
               restored_bytes     the same after a restart
               changelog_bytes    of its changelog a record, where each record is a step
               stop_s             SIGTERM to the process's end
               recovery_s         a new process's start to every session ready

Reported, and with these bounds: `memory_growth`, the memory a session at 100,000 over that at
1,000, <= 1.5; `rate_kept`, records_per_s with 100,000 sessions over that with 1,000, >= 0.7;
`stop_s` <= 10.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from scale_process import Process, wait_for

from flashfeed.cli.sample_data import candles, cryptofeed_json

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import apache_kafka

PARTITIONS = 4
WORKERS = (1, 2, 4)
WORKER_SESSIONS, WORKER_RECORDS = 256, 40_000
SESSIONS = (10, 1_000, 100_000)
ACTIVE, ACTIVE_RECORDS = 1_000, 20_000
EXACT_S = 0.5
BOUNDS = {"memory_growth": 1.5, "rate_kept": 0.7, "stop_s": 10.0}
CONFIG = """
[kafka]
brokers = "{broker}"
group = "{group}"
partitions = {partitions}

[topics]
records = "{group}.records"
changelog = "{group}.changelog"
owners = "{group}.owners"
documents = "{group}.documents"

[engine]
sessions_max = 1000000

[feeds.candles]
topics = ["{group}.candles"]
preset = "cryptofeed"
template = "market"

[templates.market]
type = "ohlcv"

[[templates.market.flash]]
name = "trend"
query = "Is the trend up or down?"
choices = ["up", "down"]
"""


class Feed:
    """Writes candles: each symbol's next day at every call."""

    def __init__(self, broker: str, topic: str) -> None:
        self._topic = topic
        self._producer = Producer({"bootstrap.servers": broker, "linger.ms": 5})
        self._rows = list(candles("AAPL"))
        self._days: dict[int, int] = {}
        self.written = 0

    def write(self, records: int, symbols: int) -> None:
        """So many records, symbol by symbol; acknowledged when it returns."""
        for place in range(records):
            symbol = place % symbols
            day = self._days.get(symbol, 0)
            self._days[symbol] = day + 1
            start = self._rows[0]["start"] + 86_400.0 * day
            row = self._rows[day % len(self._rows)] | {"start": start}
            while True:
                try:
                    self._producer.produce(
                        self._topic,
                        cryptofeed_json(f"S{symbol}", row),
                        partition=symbol % PARTITIONS,
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)
        self._producer.flush()
        self.written += records


class Pace(NamedTuple):
    """Records that were applied, and in which time."""

    records: int
    seconds: float

    @property
    def rate(self) -> float:
        """Records a second; 0 where they came all at once."""
        return self.records / self.seconds if self.records else 0.0


def applied(feed: Feed, processes: Sequence[Process], records: int, symbols: int) -> Pace:
    """Write records, and time the workers from the first of them that is decoded to the last;
    returns when that is in the changelog."""
    before = sum(one.last["decoded"] for one in processes)
    feed.write(records, symbols)
    seen: list[tuple[float, int]] = []

    def look() -> int:
        done = sum(one.last["decoded"] for one in processes) - before
        if done and (not seen or done > seen[-1][1]):
            seen.append((max(one.last["at"] for one in processes), done))
        return done

    def written() -> bool:
        time.sleep(EXACT_S)
        return sum(one.exact()["applied"] for one in processes) >= feed.written

    wait_for(lambda: look() >= records, *processes)
    wait_for(written, *processes)
    (began, first), (ended, last) = seen[0], seen[-1]
    return Pace(last - first, ended - began)


def config_file(folder: Path, broker: str, group: str) -> Path:
    """The workers' configuration, and its feed's topic made."""
    path = folder / f"{group}.toml"
    path.write_text(CONFIG.format(broker=broker, group=group, partitions=PARTITIONS))
    admin = AdminClient({"bootstrap.servers": broker})
    for made in admin.create_topics([NewTopic(f"{group}.candles", PARTITIONS, 1)]).values():
        made.result(30)
    return path


def started(config: Path, n_workers: int) -> list[Process]:
    """Workers that have all partitions among them, and are ready."""
    processes = [Process(config) for _ in range(n_workers)]
    share = PARTITIONS // n_workers

    def settled() -> bool:
        return all(one.last["ready"] and one.last["partitions"] == share for one in processes)

    wait_for(settled, *processes)
    return processes


def changelog_bytes(home: Path, group: str) -> int:
    """What the changelog's segments take on the broker's disk."""
    folders = (home / "data").glob(f"{group}.changelog-*")
    return sum(file.stat().st_size for one in folders for file in one.glob("*.log"))


def by_workers(folder: Path, broker: str, n_records: int) -> Iterator[dict[str, Any]]:
    """A row for each number of workers that this machine has cores for."""
    cores = len(os.sched_getaffinity(0))
    for n_workers in WORKERS:
        if n_workers > cores:
            yield {"workers": n_workers, "skipped": f"{cores} cores here"}
            continue
        group = f"workers{n_workers}"
        config = config_file(folder, broker, group)
        processes = started(config, n_workers)
        feed = Feed(broker, f"{group}.candles")
        applied(feed, processes, WORKER_SESSIONS * 4, WORKER_SESSIONS)  # warm
        pace = applied(feed, processes, n_records, WORKER_SESSIONS)
        for one in processes:
            one.stop()
        yield {"workers": n_workers, "records_per_s": round(pace.rate)}


def by_sessions(folder: Path, broker: str, sessions: int, n_records: int) -> dict[str, Any]:
    """The row of that many sessions."""
    group = f"sessions{sessions}"
    config = config_file(folder, broker, group)
    [worker] = started(config, 1)
    feed = Feed(broker, f"{group}.candles")
    before = worker.exact()["memory"]
    made = applied(feed, [worker], sessions, sessions)
    after = worker.exact()
    assert after["sessions"] == sessions, after
    log = changelog_bytes(folder, group)
    pace = applied(feed, [worker], n_records, min(sessions, ACTIVE))
    stop_s = worker.stop()
    again = Process(config)
    wait_for(lambda: again.last["ready"], again)
    recovery_s = again.last["at"] - again.began
    restored = again.exact()
    assert restored["sessions"] == sessions, restored
    assert restored["applied"] == feed.written, (restored, feed.written)
    again.stop()
    return {
        "sessions": sessions,
        "create_per_s": round(made.rate) or "",
        "records_per_s": round(pace.rate),
        "memory_bytes": round((after["memory"] - before) / sessions),
        "restored_bytes": round((restored["memory"] - before) / sessions),
        "changelog_bytes": round(log / sessions),
        "stop_s": round(stop_s, 1),
        "recovery_s": round(recovery_s, 1),
    }


def judged(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The figures that have bounds, of the rows by sessions. Pure."""
    few, many = rows[-2], rows[-1]
    return {
        "memory_growth": round(many["memory_bytes"] / few["memory_bytes"], 2),
        "rate_kept": round(many["records_per_s"] / few["records_per_s"], 2),
        "stop_s": max(row["stop_s"] for row in rows),
    }


def passed(figures: dict[str, float]) -> bool:
    """Whether every figure is within its bound. Pure."""
    return (
        figures["memory_growth"] <= BOUNDS["memory_growth"]
        and figures["rate_kept"] >= BOUNDS["rate_kept"]
        and figures["stop_s"] <= BOUNDS["stop_s"]
    )


def lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A table of rows, whose columns are those of all of them. Pure."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    yield "".join(f"{name:>16}" for name in names)
    for row in rows:
        yield "".join(f"{row.get(name, '')!s:>16}" for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, nargs="*", default=SESSIONS)
    parser.add_argument("--records", type=float, default=1.0, help="a share of all")
    parser.add_argument("--no-workers", action="store_true", help="the sessions' rows alone")
    options = parser.parse_args()
    print("the decode is a stub of 2 ms for up to 64 updates; the rest is the real worker")
    workers: list[dict[str, Any]] = []
    sessions: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as home, apache_kafka.kafka_node(Path(home)) as node:
        folder = Path(home)
        if not options.no_workers:
            for row in by_workers(folder, node.plain, int(WORKER_RECORDS * options.records)):
                workers.append(row)
                print(row, file=sys.stderr, flush=True)
        for count in options.sessions:
            n_records = int(ACTIVE_RECORDS * options.records)
            sessions.append(by_sessions(folder, node.plain, count, n_records))
            print(sessions[-1], file=sys.stderr, flush=True)
    print(*lines(workers), "", *lines(sessions), sep="\n")
    figures: dict[str, Any] = {"bench": "scale", "cores": len(os.sched_getaffinity(0))}
    figures |= {"stub": "a decode of 2 ms, up to 64 updates"}
    figures |= {"workers": workers, "sessions": sessions}
    good = True
    if len(sessions) > 1:
        found = judged(sessions)
        good = passed(found)
        figures |= found
    print(json.dumps(figures | {"pass": good}))
    sys.exit(not good)


if __name__ == "__main__":
    main()
