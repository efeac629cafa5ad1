"""What the containers would run, run without them: Kafka by the settings of compose.yaml, a
worker by start.sh, the demo's feed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
import yaml
from aiokafka.admin import AIOKafkaAdminClient

from flashfeed.cli.embedded_broker import die_with_parent, free_port
from flashfeed.cli.settings import load
from flashfeed.cli.worker_process import stop_worker, wait_until_ready
from flashfeed.client import TopicEvents
from flashfeed.models.errors import Unavailable

from apache_kafka import available, jars, kafka_process
from deployment import COMPOSE, read
from prometheus_tools import prometheus

pytestmark = [
    pytest.mark.broker,
    pytest.mark.model,
    pytest.mark.skipif(not available(), reason="needs java, mvn and openssl"),
]
KEY, METRICS_KEY = "k" * 64, "m" * 64
MEMBER = "flashfeed-0"


class Running(NamedTuple):
    """Where the broker and the bridge are, and the worker's configuration."""

    brokers: str
    port: int
    config: Path


def kafka_settings(home: Path, outside: int) -> str:
    """The settings that the image makes of compose.yaml's environment, with free ports."""
    ports = {"9093": free_port(), "19092": free_port(), "9092": outside}
    lines = []
    for name, value in read("compose.yaml")["services"]["kafka"]["environment"].items():
        if name == "KAFKA_HEAP_OPTS":
            continue
        text = str(value).replace("kafka:", "127.0.0.1:").replace("//:", "//127.0.0.1:")
        for port, free in sorted(ports.items(), reverse=True):
            text = text.replace(f":{port}", f":@{free}")
        key = name.removeprefix("KAFKA_").lower().replace("_", ".")
        lines.append(f"{key}={text.replace(':@', ':')}")
    return "\n".join(lines).replace("/var/lib/kafka/data", str(home / "data")) + "\n"


@contextmanager
def started(home: Path, brokers: str) -> Iterator[Running]:
    port = free_port()
    given = home / "given.toml"
    text = (COMPOSE / "flashfeed.toml").read_text()
    for before, after in (
        ("kafka:19092", brokers),
        ('host = "0.0.0.0"', f'host = "127.0.0.1"\nport = {port}'),
        ("SELF:8080", f"SELF:{port}"),
        ("[kafka]\n", '[kafka]\ninstance_id_env = "FLASHFEED_INSTANCE_ID"\n'),
    ):
        assert before in text
        text = text.replace(before, after)
    given.write_text(text)
    log = home / "worker.log"
    folder = Path(sys.executable).parent
    with log.open("wb") as sink:
        worker = subprocess.Popen(
            ["sh", str(COMPOSE / "start.sh")],
            stdout=sink,
            stderr=sink,
            env={
                **os.environ,
                "PATH": f"{folder}:{os.environ['PATH']}",
                "TMPDIR": str(home),
                "FLASHFEED_CONFIG": str(given),
                "FLASHFEED_SELF": "127.0.0.1",
                "FLASHFEED_API_KEYS": f"demo:{KEY}",
                "FLASHFEED_CLUSTER_SECRET": "s" * 64,
                "FLASHFEED_METRICS_KEY": METRICS_KEY,
                "FLASHFEED_INSTANCE_ID": MEMBER,
            },
            preexec_fn=die_with_parent,  # noqa: PLW1509 (nothing else ties it to us)
        )
    try:
        # On a busy machine Kafka's first topics and groups take longer than one wait allows.
        with suppress(Unavailable):
            wait_until_ready(port, worker, log)
        wait_until_ready(port, worker, log)
        yield Running(brokers, port, home / "flashfeed.toml")
    finally:
        assert stop_worker(worker) == 0, log.read_text()[-3000:]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("compose")
    outside = free_port()
    with (
        kafka_process(home, kafka_settings(home, outside), outside),
        started(home, f"127.0.0.1:{outside}") as one,
    ):
        yield one


def get(port: int, path: str, key: str = "") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def write_feed(brokers: str, records: int) -> str:
    command = [sys.executable, str(COMPOSE / "demo_feed.py"), "--brokers", brokers]
    ran = subprocess.run(
        [*command, "--records", str(records), "--rate", "0"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_start_puts_the_worker_s_own_address_in(running: Running) -> None:
    assert load(running.config).bridge.advertise_url == f"http://127.0.0.1:{running.port}"


async def test_every_session_of_the_feed_is_answered(running: Running) -> None:
    said = await asyncio.to_thread(write_feed, running.brokers, 2)
    assert said == "10 records written\n"
    again = await asyncio.to_thread(write_feed, running.brokers, 1)  # its topics are there now
    assert again == "5 records written\n"
    answered: set[str] = set()
    async with TopicEvents(running.brokers, start="earliest") as events:
        async with asyncio.timeout(120):
            async for event in events:
                answered.add(event.data.session_id)
                if len(answered) == 5:
                    break
    assert "cgm-01" in str(answered)


def test_health_checks_want_no_key_and_the_metrics_key_opens_the_metrics_alone(
    running: Running,
) -> None:
    status, text = get(running.port, "/readyz")
    assert status == 200, text
    assert get(running.port, "/livez")[0] == 200
    assert "flashfeed_build_info" in get(running.port, "/metrics", METRICS_KEY)[1]
    assert "flashfeed_build_info" not in get(running.port, "/metrics", KEY)[1]
    for path, key in (("/metrics", ""), ("/v1/models", ""), ("/v1/models", METRICS_KEY)):
        assert get(running.port, path, key)[0] == 401
    assert get(running.port, "/v1/models", KEY)[0] == 200


def test_prometheus_reads_the_worker_as_its_file_says(running: Running, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(METRICS_KEY)
    config = read("prometheus.yml")
    [job] = [one for one in config["scrape_configs"] if one["job_name"] == "flashfeed"]
    del job["dns_sd_configs"]  # there is no such name here
    job["static_configs"] = [{"targets": [f"127.0.0.1:{running.port}"]}]
    job["authorization"]["credentials_file"] = str(tmp_path / "key")
    text = yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]})
    with prometheus(tmp_path, text) as url:
        deadline = time.monotonic() + 60
        found: list[Any] = []
        while not found and time.monotonic() < deadline:
            asked = quote('flashfeed_build_info{job="flashfeed"}')
            with urllib.request.urlopen(f"{url}/api/v1/query?query={asked}", timeout=10) as answer:
                found = json.load(answer)["data"]["result"]
            time.sleep(0.2)
    assert found, "Prometheus read nothing"


def test_kafka_s_health_check_does_with_the_heap_that_it_is_given(running: Running) -> None:
    kind, line = read("compose.yaml")["services"]["kafka"]["healthcheck"]["test"]
    asked = re.fullmatch(
        r"KAFKA_HEAP_OPTS=(-Xmx\d+m) \S+/kafka-broker-api-versions.sh --bootstrap-server \S+", line
    )
    assert kind == "CMD-SHELL" and asked is not None
    program = "org.apache.kafka.tools.BrokerApiVersionsCommand"  # what the script runs
    java = ["java", asked[1], "-cp", f"{jars()}/*", program, "--bootstrap-server"]
    for brokers, healthy in ((running.brokers, True), ("127.0.0.1:9", False)):
        ran = subprocess.run(
            [*java, brokers], capture_output=True, text=True, timeout=120, check=False
        )
        assert (ran.returncode == 0) is healthy, ran.stderr


async def test_the_worker_is_a_static_member_of_its_group(running: Running) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=running.brokers)
    await admin.start()
    try:
        [answer] = await admin.describe_consumer_groups(["flashfeed"])
    finally:
        await admin.close()
    assert f"'{MEMBER}-" in str(answer)  # Kafka makes a static member's id of its name
