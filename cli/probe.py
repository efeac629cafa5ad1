"""`flashfeed probe`: does the whole work? A known record goes to a session of the probe's own in
every partition of `flashfeed.records`, and its answer is awaited at the output topic.

The sessions are called flashfeed-probe-N (models/probe_session.py), a name that nobody else may
give. Each round costs one small update a partition, and counts in the worker's costs alone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from aiokafka.errors import KafkaError
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)

from flashfeed.agents.connection import broker_list, client_settings
from flashfeed.agents.kafka_writer import KafkaWriter, Write
from flashfeed.agents.key_partition import partition_of
from flashfeed.agents.rights import READ, denied
from flashfeed.client import ClientError, FlashReady, TopicEvents
from flashfeed.models.config import Config
from flashfeed.models.errors import FlashfeedError, Unavailable
from flashfeed.models.messages import Create, PackedRecord, Records, encode_message
from flashfeed.models.probe_session import PROBE_PREFIX
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec

from .logs import set_up
from .settings import load

log = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
STOP_S: Final = 3.0
BOUNDS_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
SPEC: Final = SessionSpec(
    type="iot",
    prompt="You check that everything works.",
    flash=(
        FlashQuery(query="Is there a value?", name="probe", choices=("yes", "no"), calibrate=False),
    ),
    window=WindowSpec("exact", 2),
    context=256,
)


class ProbeOptions(NamedTuple):
    """Where to, how long an answer may take, and how often (0: once) with metrics where."""

    config: Path | None = None
    brokers: str | None = None
    timeout_s: float = 30.0
    every_s: float = 0.0
    port: int = 0
    host: str = HOST


class ProbeMetrics:
    """What the rounds found, for a Prometheus to scrape."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self._success = Gauge(
            "flashfeed_probe_success",
            "Whether the last known record was answered in time, by partition.", ["partition"],
            registry=registry,
        )  # fmt: skip
        self._last = Gauge(
            "flashfeed_probe_last_success_timestamp_seconds",
            "When a known record was last answered in time.", ["partition"], registry=registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "flashfeed_probe_seconds",
            "From a known record's sending to its answer at the output topic.",
            buckets=BOUNDS_S, registry=registry,
        )  # fmt: skip
        self._probes = Counter(
            "flashfeed_probes", "Known records sent, by result: answered or lost.", ["result"],
            registry=registry,
        )  # fmt: skip
        for result in ("answered", "lost"):
            self._probes.labels(result)

    def found(self, partition: int, seconds: float | None) -> None:
        """The record of a partition was answered after so long; None: not in time."""
        label, answered = str(partition), seconds is not None
        self._success.labels(label).set(answered)
        self._probes.labels("answered" if answered else "lost").inc()
        if seconds is not None:
            self._seconds.observe(seconds)
            self._last.labels(label).set_to_current_time()


def session_of(partition: int, partitions: int) -> str:
    """The probe's session of a partition: the first of its names that hashes there."""
    names = (f"{PROBE_PREFIX}{number}" for number in itertools.count())
    return next(name for name in names if partition_of(name, partitions) == partition)


class Prober:
    """Sends known records and awaits their answers, over one connection."""

    def __init__(self, config: Config, writer: KafkaWriter, events: TopicEvents) -> None:
        self._topic = config.topics.records
        self._writer = writer
        self._events = events
        self._answered: dict[str, int] = {}
        self._came = asyncio.Event()
        self.sessions: dict[int, str] = {}
        self.reading = asyncio.create_task(self._read(), name="read answers")

    async def _read(self) -> None:
        async for event in self._events:
            data = event.data
            if isinstance(data, FlashReady):
                self._answered[data.session_id] = data.records_last
                self._came.set()

    async def round(self, timeout_s: float) -> dict[int, float | None]:
        """Probe every partition at once: seconds to the answer, None where none came. Raises
        Unavailable where answers cannot be read any more, or nothing can be written."""
        if self.reading.done():
            raise Unavailable(f"the answers' topic cannot be read: {self.reading.exception()}")
        try:
            count = await self._writer.partitions(self._topic)
        except KafkaError as error:  # no worker has made it yet, or the broker is away
            raise Unavailable(f"{self._topic}: its partitions are not known: {error}") from error
        self.sessions = {number: session_of(number, count) for number in range(count)}
        found = await asyncio.gather(
            *(self._probe(one, timeout_s) for one in self.sessions.values())
        )
        return dict(zip(self.sessions, found, strict=True))

    async def _probe(self, session_id: str, timeout_s: float) -> float | None:
        began = time.perf_counter()
        now_ms = int(time.time() * 1000)
        reading = {"sid": "probe", "val": now_ms // 1000 % 1000, "timestamp": now_ms / 1000}
        record = Records(
            type="iot",
            records=(PackedRecord(0, 0, now_ms, reading),),
            idempotency_key=uuid.uuid4().hex,
        )
        # A session that is there already refuses the first, quietly.
        messages = (Create(spec=SPEC, created_ms=now_ms), record)
        key = session_id.encode()
        try:
            # The write too: a producer may try for as long as the brokers are away.
            async with asyncio.timeout(timeout_s):
                *_, written = await self._writer.write(
                    Write(self._topic, key, encode_message(one)) for one in messages
                )
                while self._answered.get(session_id, -1) < written.offset:
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            return None
        return time.perf_counter() - began


@asynccontextmanager
async def prober(config: Config) -> AsyncIterator[Prober]:
    """A prober that is connected. Raises Unavailable where no broker answers."""
    writer = KafkaWriter(config.kafka, lambda _: None)  # its writes raise it as well
    connection = client_settings(config.kafka)
    connection.pop("bootstrap_servers")
    brokers = broker_list(config.kafka)
    events = TopicEvents(brokers, (config.topics.flash_ready,), connection=connection)
    await writer.start()
    try:
        async with events:
            made = Prober(config, writer, events)
            try:
                yield made
            finally:
                made.reading.cancel()
                await asyncio.gather(made.reading, return_exceptions=True)
    except ClientError as error:
        why = denied(error, READ) or error
        raise Unavailable(f"the answers' topic cannot be read: {why}") from error
    finally:
        await _stop(writer)


async def _stop(writer: KafkaWriter) -> None:
    """Stop the writer. One whose brokers are away has records to write yet: it goes on beside,
    and ends with what they take or with the process."""
    stopping = asyncio.create_task(writer.stop(), name="stop the writer")
    await asyncio.wait({stopping}, timeout=STOP_S)
    if stopping.done():
        stopping.result()


def probe(options: ProbeOptions) -> int:
    """Probe once, or for ever; 1 where a record was not answered in time."""
    config = load(options.config) if options.config else Config()
    if options.brokers:
        kafka = msgspec.structs.replace(config.kafka, brokers=options.brokers)
        config = msgspec.structs.replace(config, kafka=kafka)
    if not options.every_s:
        return asyncio.run(_once(config, options.timeout_s))
    set_up(config.log)
    metrics = ProbeMetrics()
    server, _ = start_http_server(options.port, addr=options.host, registry=metrics.registry)
    log.info("metrics on http://%s:%d/metrics", options.host, server.server_port)
    asyncio.run(_for_ever(config, options, metrics))
    return 0


async def _once(config: Config, timeout_s: float) -> int:
    async with prober(config) as one:
        found = await one.round(timeout_s)
    for partition, seconds in found.items():
        said = f"not answered within {timeout_s:g} s" if seconds is None else f"{seconds:.2f} s"
        print(f"partition {partition} ({one.sessions[partition]}): {said}")
    return int(None in found.values())


async def _for_ever(config: Config, options: ProbeOptions, metrics: ProbeMetrics) -> None:
    """A round every so often. One that cannot even be sent has failed in every partition."""
    known: list[int] = []
    while True:
        try:
            async with prober(config) as one:
                while True:
                    began = time.monotonic()
                    found = await one.round(options.timeout_s)
                    known = list(found)
                    for partition, seconds in found.items():
                        metrics.found(partition, seconds)
                        if seconds is None:
                            log.warning(
                                "partition %d: not answered within %g s", partition,
                                options.timeout_s,
                                extra={"partition": partition, "session": one.sessions[partition]},
                            )  # fmt: skip
                    rest = options.every_s - (time.monotonic() - began)
                    await asyncio.sleep(max(0.0, rest))
        except FlashfeedError as error:
            log.warning("no round: %s", error)
            for partition in known or [0]:
                metrics.found(partition, None)
            await asyncio.sleep(options.every_s)
