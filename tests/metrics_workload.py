"""A workload whose numbers are known, for the tests of what a worker exports: the demo's feeds
on Apache Kafka (the embedded broker where there is no Java), a real worker, the probe, and a
real Prometheus with our rules."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import orjson
from aiokafka import AIOKafkaProducer
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from flashfeed.agents.past import Past
from flashfeed.cli.demo import write_config
from flashfeed.cli.demo_feed import SourceRecord, create_source_topics, source_records
from flashfeed.cli.embedded_broker import die_with_parent, embedded_broker, free_port
from flashfeed.cli.worker_process import wait_until_ready, worker_process
from flashfeed.models.config import KafkaConfig

from apache_kafka import available, kafka_node
from boards import ALERTS
from prometheus_tools import asked, folder, prometheus

EACH = 4
SYMBOLS = 4
SESSIONS = SYMBOLS + 1
QUESTIONS = 3
BAD = 3
APPLIED = SESSIONS * EACH + 1
"""The correction is applied too."""
HOUR_PRICE, MILLION_PRICE = 3.6, 1000.0
SEATS = 4
ENGINE = f"""sessions_max = 16
seats_max = {SEATS}
snapshots = "@home@/kv"
sessions_per_context = 1

[prices]
currency = "EUR"
device_hour = {HOUR_PRICE}
million_tokens = {MILLION_PRICE}
"""
PROMETHEUS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{alerts}]
scrape_configs:
  - job_name: flashfeed
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
  - job_name: flashfeed-probe
    static_configs: [{{targets: ["127.0.0.1:{probe}"]}}]
"""


class Scraped:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families: dict[str, Metric] = {
            family.name: family for family in text_string_to_metric_families(text)
        }

    def sum(self, sample: str, **labels: str) -> float:
        """The sum over the series of that name that have these labels."""
        return sum(
            one.value
            for family in self.families.values()
            for one in family.samples
            if one.name == sample and labels.items() <= one.labels.items()
        )

    def counters(self) -> set[str]:
        """The names of flashfeed's counters."""
        return {
            f"{name}_total"
            for name, family in self.families.items()
            if family.type == "counter" and name.startswith("flashfeed_")
        }


class Written(NamedTuple):
    """What lies in flashfeed's own topics when all was over."""

    answers: list[dict[str, Any]]
    updates: list[dict[str, Any]]
    letters: list[dict[str, bytes]]
    """Their headers."""
    packs: list[dict[str, Any]]
    """The messages of records on flashfeed.records."""


class Ran(NamedTuple):
    """A scrape while a stream and a WebSocket are open, one when all was over, and what the
    topics held then; the Prometheus that saw it all, "" where there is none, and when it had
    seen that all was over (seconds since 1970)."""

    busy: Scraped
    after: Scraped
    written: Written
    prometheus: str
    over_at: float


@contextmanager
def broker_of(home: Path) -> Iterator[str]:
    """Apache Kafka, where it can run."""
    if not available():
        with embedded_broker() as brokers:
            yield brokers
        return
    with kafka_node(home) as node:
        yield node.plain


@contextmanager
def watching(home: Path, port: int, probe: int) -> Iterator[str]:
    """A Prometheus with our rules; "" where this machine has none."""
    if folder() is None:
        yield ""
        return
    with prometheus(home, PROMETHEUS.format(alerts=ALERTS, port=port, probe=probe)) as url:
        yield url


@contextmanager
def probing(config: Path, port: int, *more: str) -> Iterator[None]:
    """`flashfeed probe` again and again."""
    command = [sys.executable, "-m", "flashfeed.cli.main", "probe", "-c", str(config)]
    command += ["--every", "1", "--port", str(port), *more]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        preexec_fn=die_with_parent,  # noqa: PLW1509 (nothing else ties it to us)
    ) as process:
        try:
            yield
        finally:
            process.terminate()


def scraped(url: str) -> Scraped:
    """What a worker exports now."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        return Scraped(answer.read().decode())


def until(url: str, done: Callable[[Scraped], bool]) -> Scraped:
    """The first scrape that is so."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        found = scraped(url)
        if done(found):
            return found
        time.sleep(0.2)
    raise AssertionError(f"not reached:\n{found.text}")


def workload() -> list[SourceRecord]:
    """`EACH` records a session; then of the first one an equal repeat, a correction, and one
    that is not closed; then what nobody can read."""
    records = list(source_records(EACH))
    last = [one for one in records if one.topic == records[0].topic][-1]
    # The same candle in another fetched batch: of one batch only the last would count.
    more = [last, candle(last, close=orjson.loads(last.value)["close"] * 1.001)]
    unclosed = candle(last, closed=False)
    bad = [last._replace(value=value) for value in (b"{not json", b"[1, 2]", b'{"closed":true}')]
    return [*records, *more, unclosed, *bad]


def candle(record: SourceRecord, **changes: Any) -> SourceRecord:
    """A candle with other values."""
    value = orjson.dumps(orjson.loads(record.value) | changes)
    return record._replace(value=value)


async def send(brokers: str, records: list[SourceRecord]) -> None:
    """Write them one after the other."""
    async with AIOKafkaProducer(bootstrap_servers=brokers) as producer:
        for one in records:
            await producer.send_and_wait(one.topic, one.value, key=one.key)


async def lying_in(brokers: str, topic: str) -> list[Any]:
    """All records of a topic, as who reads what is committed sees them."""
    kafka = KafkaConfig(brokers=brokers)
    async with Past(kafka) as past:
        stretches = await past.stretches(await past.partitions(topic))
        return [one async for records in past.read(stretches, to_now=True) for one in records]


async def written(brokers: str) -> Written:
    """What lies in the topics."""
    answers, updates, letters, packs = await asyncio.gather(
        *(
            lying_in(brokers, f"flashfeed.{topic}")
            for topic in ("flash_ready", "data_updated", "dead_letters", "records")
        )
    )
    messages = [orjson.loads(one.value) for one in packs]
    return Written(
        [orjson.loads(one.value) for one in answers],
        [orjson.loads(one.value) for one in updates],
        [dict(one.headers) for one in letters],
        [one for one in messages if one["op"] == "records"],
    )


@contextmanager
def ran_workload(home: Path) -> Iterator[Ran]:
    """The run; the probe goes on for the time of the block."""
    with broker_of(home) as brokers:
        asyncio.run(create_source_topics(brokers))
        config, port = write_config(home, brokers)
        text = config.read_text().replace(
            "context_tokens = 2048\n", "context_tokens = 1024\n" + ENGINE
        )
        config.write_text(text.replace("@home@", str(home)))
        url, log, probe = f"http://127.0.0.1:{port}", home / "worker.log", free_port()
        with (
            watching(home, port, probe) as watcher,
            worker_process(config, log) as process,
        ):
            wait_until_ready(port, process, log)
            records = workload()
            # In two parts, so that Prometheus sees the series grow.
            asyncio.run(send(brokers, records[:SESSIONS]))
            until(url, lambda one: one.sum("flashfeed_applied_records_total") == SESSIONS)
            time.sleep(2)
            asyncio.run(send(brokers, records[SESSIONS:]))
            until(url, _all_applied)
            open_now = busy(url)
            until(url, _nothing_left)
            topics = asyncio.run(written(brokers))
            after = scraped(url)
            over_at = _seen(watcher) if watcher else 0.0
            with probing(config, probe):
                yield Ran(open_now, after, topics, watcher, over_at)


def _seen(watcher: str) -> float:
    """Wait until Prometheus has scraped what is now; when that was."""
    began = time.time()
    while not (found := asked(watcher, f"timestamp(flashfeed_sessions) > {began}")):
        assert time.time() < began + 60, "Prometheus does not scrape"
        time.sleep(0.2)
    return float(found[0]["value"][1])


def _all_applied(found: Scraped) -> bool:
    applied = found.sum("flashfeed_applied_records_total", result="applied")
    repeated = found.sum("flashfeed_applied_records_total", result="duplicate")
    letters = found.sum("flashfeed_dead_letters_total")
    return (applied, repeated, letters) == (APPLIED, 1, BAD)


def _nothing_left(found: Scraped) -> bool:
    return (
        found.sum("flashfeed_consumer_lag_records") == 0
        and found.sum("flashfeed_engine_jobs") == 0
        and found.sum("flashfeed_bridge_streams") == 0
    )


def busy(url: str) -> Scraped:
    """Ask the bridge for one of each kind, and scrape while two streams are open."""
    session = f"{url}/v1/sessions/cgm-01"
    choose = {"prompt": "Up or down?", "fast_answer": ["up", "down"], "gap_threshold": 0}
    with httpx.Client(timeout=60) as http:
        told = {"prompt": "Say what you see.", "max_tokens": 8, "ignore_eos": True}
        assert http.post(f"{session}/generate", json=told).status_code == 200
        # All in turn, and more than have seats: some come back.
        for one in http.get(f"{url}/v1/sessions").json()["sessions"]:
            place = f"{url}/v1/sessions/{one['session_id']}"
            assert http.post(f"{place}/generate", json=choose).json()["speculative"]
        assert http.get(f"{url}/v1/sessions/nobody").status_code == 404
        assert http.get(f"{url}/nowhere").status_code == 404
        with (
            connect(f"{session.replace('http', 'ws')}/ws"),
            http.stream("GET", f"{session}/events") as stream,
        ):
            lines = stream.iter_lines()  # held, or the stream ends with it
            assert next(lines)
            return scraped(url)
