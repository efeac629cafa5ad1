"""A worker with the cryptofeed preset whose engine answers at once, and how fast it applies."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

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


async def applied_rate(broker: str, topic: str, wanted: int, *, partitions: int) -> float:
    """Records a second from the topic into sessions' changelogs."""
    group = f"applied-{time.time_ns()}"
    with tempfile.TemporaryDirectory(prefix="flashfeed-transport-") as folder:
        path = Path(folder) / "flashfeed.toml"
        path.write_text(
            CONFIG.format(broker=broker, group=group, topic=topic, partitions=partitions)
        )
        config = load(path)
    engine: Any = StubEngine()
    worker = Worker(config, engine, lambda outside: feeds_of(config, outside))
    await worker.start()
    calm_collector()
    worker.claims.announce("http://127.0.0.1:1")
    failed = asyncio.ensure_future(worker.failed())
    began = first = 0.0
    while (applied := _applied(worker)) < wanted:
        if applied and not began:
            began, first = time.perf_counter(), applied
        await asyncio.wait({failed}, timeout=LOOK_S)
        if failed.done():
            failed.result()
    rate = (applied - first) / (time.perf_counter() - began)
    failed.cancel()
    with contextlib.suppress(Exception):
        await worker.stop()
    return rate


def _applied(worker: Worker) -> int:
    """Records that stand in the changelog."""
    states = [owner.state for owner in worker.partitions.live()]
    return sum(state.head.counters.processed for state in states if state is not None)
