"""What traces cost a feed: processor time of a record from its batch to the write, JSON in and
packed messages out, with nothing behind the write and an exporter that drops what it gets.

none        [traces] is there, no record has a header, over a worker without the table
unsampled   each has a traceparent that is not sampled
hundredth   one in a hundred is followed
all         each is followed: two spans, made, ended and handed to the exporter's thread

The medians of 15 rounds, interleaved; a record without the table is microseconds.
none <= 1.1
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from flashfeed.agents.feeds import Feed, FeedAgent, FeedTopics
from flashfeed.agents.kafka_writer import Write, Written
from flashfeed.agents.metrics import Metrics
from flashfeed.agents.supplies import Supplies
from flashfeed.agents.tracing import Tracing
from flashfeed.agents.transport import Batch
from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.registry import codec
from flashfeed.models.config import Config, TracesConfig
from flashfeed.models.feed import MappingSpec

RECORDS, ROUNDS, SYMBOLS = 2_000, 15, 32
NONE_MAX = 1.1
MAPPING = MappingSpec(model="iot", key="n", map={"sid": "n", "val": "v"})


class Raw(NamedTuple):
    """A fetched record, as far as a feed reads it."""

    offset: int
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    key: bytes | None = None
    topic: str = "sensors"
    partition: int = 0
    timestamp: int = 1_700_000_000_000


class Nowhere:
    """Everything is written at once."""

    async def write(self, writes: Sequence[Write]) -> list[Written]:
        return [Written(0, place) for place in range(len(writes))]


class Dropped(SpanExporter):
    """Exports nothing."""

    def export(self, spans: Iterable[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def batch_of(every: int, flags: str) -> Batch:
    """A batch, every so many of whose records have a traceparent (0: none)."""
    records: list[Any] = []
    for offset in range(RECORDS):
        value = orjson.dumps({"n": f"s{offset % SYMBOLS}", "v": offset / 7})
        parent = f"00-{offset + 1:032x}-{offset + 1:016x}-{flags}".encode()
        has = every and not offset % every
        records.append(Raw(offset, value, (("traceparent", parent),) if has else ()))
    return Batch("sensors", 0, 0, records)


def agent_of(tracing: Tracing | None) -> FeedAgent:
    """A feed's agent that writes nowhere."""
    config, metrics, writer = Config(), Metrics(), Nowhere()
    supplies = Supplies(config, metrics)
    read = codec("json", {}, supplies.outside)
    feed = Feed("f", "t", "iot", read, Mapping(MAPPING), lambda key: key)
    anything: Any = writer
    topics = FeedTopics("records", "letters")
    return FeedAgent(feed, anything, supplies, topics, metrics, lambda _: None, tracing)


async def measured() -> dict[str, float]:
    """Microseconds a record of each side."""
    tracing = Tracing(Config(), TracesConfig(), Dropped())
    off, on = agent_of(None), agent_of(tracing)
    plain = batch_of(0, "00")
    sides = {
        "off": (off, plain),
        "none": (on, plain),
        "unsampled": (on, batch_of(1, "00")),
        "hundredth": (on, batch_of(100, "01")),
        "all": (on, batch_of(1, "01")),
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(ROUNDS):
        for side, (agent, batch) in sides.items():
            began = time.process_time()
            await agent.take(batch, lambda: None)
            tracing.provider.force_flush()
            seconds[side].append(time.process_time() - began)
    tracing.close()
    return {side: statistics.median(held) / RECORDS * 1e6 for side, held in seconds.items()}


def main() -> None:
    us = asyncio.run(measured())
    figures = {side: round(held / us["off"], 3) for side, held in us.items() if side != "off"}
    for side, held in us.items():
        print(f"{side:<12}{held:>10.2f} us{held / us['off']:>10.2f}")
    good = figures["none"] <= NONE_MAX
    print(json.dumps({"bench": "traces", "us_off": round(us["off"], 2), **figures, "pass": good}))
    sys.exit(not good)


if __name__ == "__main__":
    main()
