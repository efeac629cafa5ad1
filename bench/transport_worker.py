"""A worker with the cryptofeed preset whose engine answers at once, and how fast it applies."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from bridge_stub import StubEngine

from flashfeed.agents.app import Worker
from flashfeed.cli.collector import calm_collector
from flashfeed.cli.settings import load
from flashfeed.cli.worker import feeds_of

LOOK_S = 0.05
CONFIG = """
[kafka]
brokers = "{broker}"
group = "{group}"
partitions = {partitions}
{kafka}

[topics]
records = "{group}.records"
changelog = "{group}.changelog"
owners = "{group}.owners"
documents = "{group}.documents"

[engine]
sessions_max = 2000

[feeds.candles]
topics = ["{topic}"]
preset = "cryptofeed"
template = "market"

[templates.market]
type = "ohlcv"

[[templates.market.flash]]
name = "trend"
query = "Is the trend up or down?"
choices = ["up", "down"]
"""


class Applied(NamedTuple):
    """Records a second, and this process's CPU seconds a record."""

    rate: float
    cpu_s: float


async def applied_rate(broker: str, topic: str, wanted: int, *, partitions: int) -> float:
    """Records a second from the topic into sessions' changelogs."""
    return (await applied_run(broker, topic, wanted, partitions=partitions)).rate


async def applied_run(
    broker: str, topic: str, wanted: int, *, partitions: int, kafka: str = ""
) -> Applied:
    """Records from the topic into sessions' changelogs; measured behind the first of them."""
    group = f"applied-{time.time_ns()}"
    with tempfile.TemporaryDirectory(prefix="flashfeed-transport-") as folder:
        path = Path(folder) / "flashfeed.toml"
        path.write_text(
            CONFIG.format(
                broker=broker, group=group, topic=topic, partitions=partitions, kafka=kafka
            )
        )
        config = load(path)
    engine: Any = StubEngine()
    worker = Worker(config, engine, lambda outside: feeds_of(config, outside))
    await worker.start()
    calm_collector()
    worker.claims.announce("http://127.0.0.1:1")
    failed = asyncio.ensure_future(worker.failed())
    began = cpu = first = 0.0
    while (applied := _applied(worker)) < wanted:
        if applied and not began:
            began, cpu, first = time.perf_counter(), time.process_time(), applied
        await asyncio.wait({failed}, timeout=LOOK_S)
        if failed.done():
            failed.result()
    records = applied - first
    done = Applied(records / (time.perf_counter() - began), (time.process_time() - cpu) / records)
    failed.cancel()
    await worker.stop()
    return done


def _applied(worker: Worker) -> int:
    """Records that stand in the changelog."""
    states = [owner.state for owner in worker.partitions.live()]
    return sum(state.head.counters.processed for state in states if state is not None)
