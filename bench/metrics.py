"""What metrics cost: processor time of a record, and of a scrape.

overhead       process CPU seconds a record of a worker with its metrics over one whose
               Metrics counts nothing: from the topic through flashfeed.records to the
               changelog and the events, with an engine that answers at once
               (transport_worker.py). 10 pairs, interleaved; the median of their ratios
scrape_ms      after 10,000 sessions in 50 scopes of tenant and feed had their answers, with
               100 partitions behind and a real engine in which the sessions are open: from
               the call to the text. collect_ms of it are in the event loop, the rest is a
               thread's. Medians
scrape_bytes   how large it is then

overhead <= 0.05   scrape_ms < 100   scrape_bytes < 2,000,000
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transport import TOPIC, fill, side_in_process
from transport_worker import applied_run

from flashfeed.agents import app
from flashfeed.agents.metrics import Metrics
from flashfeed.agents.metrics_sessions import SessionMetrics
from flashfeed.agents.metrics_text import text_of
from flashfeed.cli.embedded_broker import embedded_broker
from flashfeed.engine import Engine, EngineSettings
from flashfeed.engine.packaged_model import fastest_form, find_packaged_model
from flashfeed.models.probe_session import is_probe
from flashfeed.models.session import SessionSpec, WindowSpec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from many_sessions import busy_metrics

PAIRS, RECORDS, SYMBOLS = 10, 100_000, 32
SIDES = ("with", "without")
SESSIONS, SCRAPES = 10_000, 20
GROW = WindowSpec("grow")
BOUNDS = {"overhead": 0.05, "scrape_ms": 100.0, "scrape_bytes": 2_000_000}


class SilentSessions(SessionMetrics):
    """Counts nothing."""

    def stepped(self, *_: Any) -> None:
        pass


class SilentMetrics(Metrics):
    """Counts nothing of what a record passes."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.sessions = SilentSessions(self._names, self._costs, type(self.registry)())

    def feed_batch(self, *_: Any) -> None:
        pass

    def dead_letters(self, *_: Any) -> None:
        pass


def overhead(broker: str) -> dict[str, Any]:
    """The median of the pairs' ratios, less 1; who goes first alternates."""
    pairs: list[dict[str, float]] = []
    for number in range(PAIRS):
        order: Iterable[str] = SIDES if number % 2 else reversed(SIDES)
        pairs.append({side: side_in_process(__file__, side, broker) for side in order})
        print(*(f"{side} {pairs[-1][side] * 1e6:.1f} us" for side in SIDES), file=sys.stderr)
    ratios = [pair["with"] / pair["without"] for pair in pairs]
    us = {f"us_{side}": statistics.median(pair[side] for pair in pairs) * 1e6 for side in SIDES}
    return {
        "overhead": round(statistics.median(ratios) - 1, 4),
        "overheads": [round(ratio - 1, 3) for ratio in sorted(ratios)],
        **{name: round(value, 2) for name, value in us.items()},
    }


async def scrape() -> dict[str, Any]:
    """The medians of scrapes, in milliseconds, and the size of one."""
    model = fastest_form(find_packaged_model())
    engine = Engine(
        EngineSettings(
            model_path=model, threads=1, context_tokens=64, sessions_max=SESSIONS, seats_max=50
        )
    )
    engine.start()
    try:
        names = [f"session-{number}" for number in range(SESSIONS)]
        for name in names:
            await engine.open(name, SessionSpec(type="iot", prompt="Go.", window=GROW))
        return _scraped(engine, names)
    finally:
        await engine.stop()


def _scraped(engine: Engine, names: list[str]) -> dict[str, Any]:
    metrics = busy_metrics(SESSIONS)
    metrics.watch_engine(engine)
    metrics.watch(lambda: sum(not is_probe(name) for name in names))
    collect_ms, whole_ms, size = [], [], 0
    for _ in range(SCRAPES):
        began = time.perf_counter()
        families = metrics.collect()
        collect_ms.append((time.perf_counter() - began) * 1000)
        size = len(text_of(families))
        whole_ms.append((time.perf_counter() - began) * 1000)
    return {
        "scrape_ms": round(statistics.median(whole_ms), 1),
        "collect_ms": round(statistics.median(collect_ms), 1),
        "scrape_bytes": size,
    }


def main() -> None:
    if len(sys.argv) == 3:
        logging.disable(logging.CRITICAL)
        side, broker = sys.argv[1:]
        if side == "without":
            app.Metrics = SilentMetrics  # type: ignore[misc]
        done = asyncio.run(applied_run(broker, TOPIC, RECORDS, partitions=4))
        sys.__stdout__.write(f"{done.cpu_s}\n")
        sys.__stdout__.flush()
        return
    figures = asyncio.run(scrape())
    with embedded_broker() as broker:
        asyncio.run(fill(broker, TOPIC, SYMBOLS, RECORDS))
        figures = overhead(broker) | figures
    good = all(figures[name] <= bound for name, bound in BOUNDS.items())
    for name, value in figures.items():
        print(f"{name:<16}{value!s:>12}   {f'<= {BOUNDS[name]}' if name in BOUNDS else ''}")
    print(json.dumps({"bench": "metrics", **figures, "pass": good}))
    sys.exit(not good)


if __name__ == "__main__":
    main()
