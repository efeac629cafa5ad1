"""A worker of bench/scale.py in a process of its own: the real one, but for its engine.

`scale_worker.py CONFIG` says a line of JSON each LOOK_S, and each time it is asked (a line on
its stdin): whether it is ready, how many records and sessions it has, what memory it takes.
It stops on SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from scale_engine import DelayEngine

from flashfeed.agents.app import Worker
from flashfeed.cli.collector import calm_collector
from flashfeed.cli.settings import load
from flashfeed.cli.worker import feeds_of

LOOK_S = 0.05
PAGE = os.sysconf("SC_PAGE_SIZE")


def memory_bytes() -> int:
    """What is resident now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def look(worker: Worker, engine: DelayEngine, *, exact: bool) -> dict[str, Any]:
    """The worker now. `exact` goes through every session: records in the changelog."""
    seen: dict[str, Any] = {
        "at": time.time(),
        "ready": worker.partitions.ready,
        "partitions": len(worker.partitions.numbers),
        "decoded": engine.lines,
        "exact": exact,
    }
    if exact:
        gc.collect()
        states = [owner.state for owner in worker.partitions.live()]
        heads = [state.head for state in states if state is not None]
        seen["sessions"] = len(heads)
        seen["applied"] = sum(head.counters.processed for head in heads)
        seen["memory"] = memory_bytes()
    return seen


async def serve(path: Path) -> None:
    logging.basicConfig(level=logging.ERROR)
    config = load(path)
    engine: Any = DelayEngine()
    worker = Worker(config, engine, lambda outside: feeds_of(config, outside))
    loop, stop, asked = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin.fileno(), lambda: (sys.stdin.readline(), asked.set()))
    await worker.start()
    calm_collector()
    worker.claims.announce("http://127.0.0.1:1")
    failed = asyncio.ensure_future(worker.failed())
    while not stop.is_set() and not failed.done():
        print(json.dumps(look(worker, engine, exact=asked.is_set())), flush=True)
        asked.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_S)
    if failed.done():
        failed.result()
    failed.cancel()
    await worker.stop()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
