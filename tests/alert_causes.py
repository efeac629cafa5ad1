"""What each alert is about, made to happen: two real workers on Apache Kafka, and what goes
wrong with them.

FEEDS    its source is late, broken, or wants a schema that nobody has; it has fewer seats than
         sessions, one of which grows too large; a client pushes more than Kafka takes
LONE     reads under a user of its own, with a probe: killed, held up by a transaction that does
         not end, busy with one long pass, and not served by the broker any more

Each cause ends, and its alert with it. Nothing here is made up: no series is written by hand.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from flashfeed.cli.embedded_broker import die_with_parent, free_port
from flashfeed.cli.worker_process import start_worker, stop_worker, wait_until_ready

from apache_kafka import HEAP, PASSWORD, USER, Node, jars
from codec_samples import avro_bytes
from registry_server import RegistryServer

PASSWORD_ENV = "KAFKA_TEST_PASSWORD"
HOUR_S = 3600.0
SOURCES = ("ticks", "readings", "growing")
SCHEMA = {
    "type": "record",
    "name": "R",
    "fields": [{"name": "n", "type": "string"}, {"name": "v", "type": "double"}],
}
COMMON = """
[bridge]
port = {port}

[engine]
threads = 1
"""
FEEDS = """
context_tokens = 512
batch_tokens = 256
sessions_max = 16
seats_max = 2

[kafka]
brokers = "{brokers}"
group = "feeds"
partitions = 2
batch_records_max = 100

[schema_registry]
url = "{registry}"
attempts = 2
retry_max_s = 0.5
timeout_s = 1

[feeds.ticks]
topics = ["ticks"]
template = "small"
model = "iot"
key = "sid"
map = {{ sid = "sid", val = "val" }}

[feeds.readings]
topics = ["readings"]
template = "small"
codec = "avro"
codec_options = {{ framing = "confluent" }}
model = "iot"
key = "n"
map = {{ sid = "n", val = "v" }}

[feeds.growing]
topics = ["growing"]
template = "growing"
model = "iot"
key = "sid"
map = {{ sid = "sid", val = "val" }}

[templates.small]
type = "iot"
prompt = "You watch a sensor."
window = {{ mode = "shift", items = 4 }}
context = 256

[[templates.small.flash]]
name = "level"
query = "High or low?"
choices = ["high", "low"]

[templates.growing]
type = "iot"
prompt = "You watch a sensor."
window = {{ mode = "grow" }}
context = 256
"""
LONE = """
context_tokens = 4096
batch_tokens = 4096
sessions_max = 16

[kafka]
brokers = "{brokers}"
group = "lone"
partitions = 1
stalled_s = 2.0
request_timeout_s = 7.0

[kafka.sasl]
mechanism = "SCRAM-SHA-512"
username = "{user}"
password_env = "{password_env}"

[kafka.tls]
ca_file = "{ca_file}"

[topics]
records = "flashfeed.lone.records"
changelog = "flashfeed.lone.changelog"
dead_letters = "flashfeed.lone.dead_letters"
flash_ready = "flashfeed.lone.flash_ready"
data_updated = "flashfeed.lone.data_updated"
answers = "flashfeed.lone.answers"
owners = "flashfeed.lone.owners"
documents = "flashfeed.lone.documents"
births = "flashfeed.lone.births"
control = "flashfeed.lone.control"
replies = "flashfeed.lone.replies"
"""


async def until_none(left: Callable[[], set[str]], what: str, timeout_s: float) -> None:
    """Wait until nothing is left. Raises AssertionError, which says what is."""
    deadline = time.monotonic() + timeout_s
    while left():
        assert time.monotonic() < deadline, f"not {what} within {timeout_s:.0f} s: {left()}"
        await asyncio.sleep(0.2)


class WorkerUnderTest:
    """A worker that can be started, and killed, again and again."""

    def __init__(self, home: Path, name: str, settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config, self.log = home / f"{name}.toml", home / f"{name}.log"
        self.config.write_text(COMMON.format(port=self.port) + settings)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is not ready yet."""
        self.process = start_worker(self.config, self.log)

    async def ready(self) -> None:
        """Wait until it is."""
        assert self.process is not None
        await asyncio.to_thread(wait_until_ready, self.port, self.process, self.log)

    async def answers(self) -> None:
        """Wait until it does, ready or not."""
        async with httpx.AsyncClient(timeout=1) as http:
            for _ in range(600):
                with suppress(httpx.HTTPError):
                    await http.get(f"{self.url}/livez")
                    return
                await asyncio.sleep(0.1)
        raise AssertionError(f"no answer from {self.url}; see {self.log}")

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """At the end."""
        if self.process is not None and self.process.poll() is None:
            stop_worker(self.process)


class Source:
    """Writes readings for as long as it runs, some of which nobody can read: at first fresh
    ones of one session, `age_s` old ones of `sessions` when it is told to."""

    def __init__(self, brokers: str) -> None:
        self.sessions, self.age_s, self.poison = 1, 0.0, False
        self._brokers = brokers

    async def run(self) -> None:
        """Until it is cancelled."""
        async with AIOKafkaProducer(bootstrap_servers=self._brokers) as producer:
            number = 0
            while True:
                number += 1
                value = {"sid": f"s{number % self.sessions}", "val": number % 50}
                await self._send(producer, orjson.dumps(value))
                if self.poison and number % 4 == 0:
                    await self._send(producer, b"{not json")
                await asyncio.sleep(0.12)

    async def _send(self, producer: AIOKafkaProducer, value: bytes) -> None:
        at_ms = int((time.time() - self.age_s) * 1000)
        await producer.send_and_wait("ticks", value, timestamp_ms=at_ms)


def reading(schema: int, value: float) -> bytes:
    """A reading as Confluent's serialisers frame it."""
    return b"\0" + schema.to_bytes(4, "big") + avro_bytes(SCHEMA, {"n": "r", "v": value})


def grown(number: int) -> bytes:
    """A reading of the session that keeps all of them."""
    return orjson.dumps({"sid": "grows", "val": number})


async def create_topics(brokers: str) -> None:
    """The topics that there are already."""
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1) for name in SOURCES])
    finally:
        await admin.close()


async def read_quota(brokers: str, change: str) -> None:
    """Give the lone worker's reads a quota, or take it: Kafka's own tool has a call for it."""
    command = ["java", HEAP, "-cp", f"{jars()}/*", "kafka.admin.ConfigCommand"]
    command += ["--bootstrap-server", brokers, "--alter", "--entity-type", "users"]
    command += ["--entity-name", USER, *change.split()]
    ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@asynccontextmanager
async def transaction_that_does_not_end(brokers: str, topic: str) -> AsyncIterator[None]:
    """Nobody who reads what is committed comes past it."""
    producer = AIOKafkaProducer(bootstrap_servers=brokers, transactional_id="hangs")
    await producer.start()
    try:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"", key=b"hangs", partition=0)
        yield
        await producer.abort_transaction()
    finally:
        await producer.stop()


@asynccontextmanager
async def running(coroutine: Any) -> AsyncIterator[None]:
    """A task for the time of the block; what it raises is raised at its end."""
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        if not task.done():
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Causes:
    """The workers, and all that happens to them. `told` says which alerts fire as far as the
    pager knows, and `ever` which of them it heard of at all."""

    def __init__(
        self, home: Path, node: Node, told: Callable[[], set[str]], ever: Callable[[], set[str]]
    ) -> None:
        os.environ[PASSWORD_ENV] = PASSWORD
        self.registry = RegistryServer()
        self.registry.register("s", {"schema": orjson.dumps(SCHEMA).decode()})
        feeds = FEEDS.format(brokers=node.plain, registry=self.registry.url)
        lone = LONE.format(
            brokers=node.secure, user=USER, password_env=PASSWORD_ENV, ca_file=node.ca_file
        )
        self.node = node
        self.feeds = WorkerUnderTest(home, "feeds", feeds)
        self.lone = WorkerUnderTest(home, "lone", lone)
        self.probe_port = free_port()
        self._probe: subprocess.Popen[bytes] | None = None
        self._told, self._ever = told, ever

    async def start(self) -> None:
        """Both workers and the probe, as they should be."""
        await create_topics(self.node.plain)
        self.feeds.start()
        self.lone.start()
        await self.feeds.ready()
        await self.lone.ready()
        self._start_probe()

    def _start_probe(self) -> None:
        command = [sys.executable, "-m", "flashfeed.cli.main", "probe", "-c", str(self.lone.config)]
        command += ["--every", "3", "--timeout", "4", "--port", str(self.probe_port)]
        self._probe = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            preexec_fn=die_with_parent,  # noqa: PLW1509 (nothing else ties it to us)
        )

    def stop(self) -> None:
        """End all that runs."""
        self.feeds.stop()
        self.lone.stop()
        if self._probe is not None:
            self._probe.terminate()
            self._probe.wait(15)
        self.registry.stop()

    async def run(self) -> None:
        """Everything, at the same time where it can be."""
        await asyncio.gather(self._feeds_go_wrong(), self._lone_goes_wrong())
        await self._nobody_answers()

    async def _nobody_answers(self) -> None:
        """Workers and probe hang, all of them."""
        hang = [self.feeds.process, self.lone.process, self._probe]
        for one in hang:
            assert one is not None
            one.send_signal(signal.SIGSTOP)
        try:
            await self.fire("FlashfeedNoWorker", "FlashfeedProbeSilent")
        finally:
            for one in hang:
                assert one is not None
                one.send_signal(signal.SIGCONT)
        await until_none(self._told, "resolved", 120)

    async def fire(self, *names: str) -> None:
        """Wait until these were heard of."""
        await until_none(lambda: set(names) - self._ever(), "firing", 90)

    async def resolve(self, *names: str) -> None:
        """Wait until these are over."""
        await until_none(lambda: set(names) & self._told(), "resolved", 120)

    # -- the worker with feeds -----------------------------------------------------------

    async def _feeds_go_wrong(self) -> None:
        brokers = self.node.plain
        source = Source(brokers)
        async with running(source.run()), AIOKafkaProducer(bootstrap_servers=brokers) as producer:
            await producer.send_and_wait("readings", reading(1, 1.0))
            await asyncio.sleep(5)
            source.sessions, source.age_s, source.poison = 6, HOUR_S, True
            self.registry.broken = 503
            an_hour_ago = int((time.time() - HOUR_S) * 1000)
            await producer.send_and_wait("readings", reading(2, 1.0), timestamp_ms=an_hour_ago)
            for number in range(80):  # more than its context has room for
                await producer.send("growing", grown(number), timestamp_ms=an_hour_ago)
            await self._push_more_than_kafka_takes()
            mine = {
                "FlashfeedDeadLetters", "FlashfeedFreshnessBurnFast", "FlashfeedFreshnessBurnSlow",
                "FlashfeedKvPressure", "FlashfeedLagOld", "FlashfeedPartitionPaused",
                "FlashfeedPartitionSilent", "FlashfeedPublishFailures", "FlashfeedRestoreStorm",
                "FlashfeedSessionsFailed",
            }  # fmt: skip
            await self.fire(*mine)
            source.sessions, source.age_s, source.poison = 1, 0.0, False
            self.registry.register("s", {"schema": orjson.dumps({**SCHEMA, "doc": "2"}).decode()})
            self.registry.broken = 0
            for topic, value in (("readings", reading(1, 2.0)), ("growing", grown(0))):
                await producer.send_and_wait(topic, value)
            await self.resolve(*mine)

    async def _push_more_than_kafka_takes(self) -> None:
        """A client's push is one record of Kafka's, and this one is larger than a topic takes."""
        events = [{"src": "\N{FIRE}" * 200, "cat": "\N{FIRE}" * 200, "sev": 1, "cnt": 1}] * 1000
        async with httpx.AsyncClient(timeout=60, base_url=self.feeds.url) as http:
            made = await http.post("/v1/sessions/init", json={"type": "event"})
            place = f"/v1/sessions/{made.json()['session_id']}"
            answer = await http.post(f"{place}/stream/push", json={"data": events})
        assert answer.status_code == 400 and "larger than" in answer.text, answer.text

    # -- the one that is alone -----------------------------------------------------------

    async def _lone_goes_wrong(self) -> None:
        brokers = self.node.plain
        self.lone.kill()
        await self.fire("FlashfeedWorkerDown", "FlashfeedWorkerGone", "FlashfeedProbeFailing")
        for _ in range(3):
            self.lone.start()
            await self.lone.answers()
            await asyncio.sleep(1.5)  # Prometheus has to see that it began anew
            self.lone.kill()
        async with transaction_that_does_not_end(brokers, "flashfeed.lone.changelog"):
            self.lone.start()
            await self.fire("FlashfeedPartitionNotServed", "FlashfeedWorkerRestarts")
        await self.lone.ready()
        await self._one_long_pass()
        await read_quota(brokers, "--add-config consumer_byte_rate=1")
        await self.fire("FlashfeedPartitionStuck")
        await read_quota(brokers, "--delete-config consumer_byte_rate")
        await self.resolve(
            "FlashfeedWorkerDown", "FlashfeedWorkerGone", "FlashfeedProbeFailing",
            "FlashfeedPartitionNotServed",
            "FlashfeedWorkerRestarts", "FlashfeedEngineStalled", "FlashfeedPartitionStuck",
        )  # fmt: skip

    async def _one_long_pass(self) -> None:
        """The device is in one call for longer than the alert waits."""
        for times in (800, 1200, 1800):  # the first is enough, but where the device is fast
            said = [{"role": "user", "content": "again and " * times}]
            asked = {"model": "packaged", "max_tokens": 1, "messages": said}
            async with httpx.AsyncClient(timeout=180) as http:
                answer = await http.post(f"{self.lone.url}/v1/chat/completions", json=asked)
            assert answer.status_code == 200, answer.text
            await asyncio.sleep(3)
            if "FlashfeedEngineStalled" in self._ever():
                return
        raise AssertionError("no pass was long enough for FlashfeedEngineStalled")
