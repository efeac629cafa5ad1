"""`flashfeed probe` answers for the whole: it passes with a worker and fails without."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request

import httpx
import pytest
from conftest import RunningWorker
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from flashfeed.agents.key_partition import partition_of
from flashfeed.cli.embedded_broker import (
    die_with_parent,
    embedded_broker,
    free_port,
    start_broker,
    stop_broker,
)
from flashfeed.cli.probe import ProbeMetrics, prober, session_of
from flashfeed.models.config import Config, KafkaConfig

from prometheus_tools import promtool

pytestmark = [pytest.mark.broker, pytest.mark.model]
COMMAND = [sys.executable, "-m", "flashfeed.cli.main", "probe"]


@pytest.mark.parametrize("partitions", [1, 4, 7])
def test_every_partition_has_a_session_of_the_probes(partitions: int) -> None:
    for number in range(partitions):
        assert partition_of(session_of(number, partitions), partitions) == number


async def test_every_partition_answers_again_and_again(worker: RunningWorker) -> None:
    config = Config(kafka=KafkaConfig(brokers=worker.brokers))
    async with prober(config) as one:
        for _ in range(3):
            found = await one.round(timeout_s=60)
            assert sorted(found) == [0, 1, 2, 3]
            assert all(seconds is not None and seconds > 0 for seconds in found.values()), found


async def test_its_sessions_are_nobodys_and_count_as_nobodys(worker: RunningWorker) -> None:
    before = await live_sessions(worker)
    async with prober(Config(kafka=KafkaConfig(brokers=worker.brokers))) as one:
        await one.round(timeout_s=60)
    assert await live_sessions(worker) == before
    async with httpx.AsyncClient(base_url=worker.url) as http:
        refused = await http.post("/v1/sessions", json={"id": "flashfeed-probe-99"})
    assert refused.status_code == 400, refused.text
    assert "flashfeed probe" in refused.text


async def live_sessions(worker: RunningWorker) -> str:
    async with httpx.AsyncClient(base_url=worker.url) as http:
        lines = (await http.get("/metrics")).text.splitlines()
    return next(line for line in lines if line.startswith("flashfeed_sessions "))


def test_it_says_so_and_ends_with_0(worker: RunningWorker) -> None:
    ran = subprocess.run(
        [*COMMAND, "--brokers", worker.brokers, "--timeout", "60"],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 4


def test_without_a_worker_it_ends_with_1() -> None:
    with embedded_broker() as brokers:
        ran = subprocess.run(
            [*COMMAND, "--brokers", brokers, "--timeout", "1"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert ran.returncode == 1, ran.stderr
    assert "not answered within 1 s" in ran.stdout


async def test_a_broker_that_goes_away_is_a_lost_record_and_holds_nobody_up() -> None:
    port = free_port()
    broker = start_broker(port)
    # A producer that tries for as long as that never fails a write here.
    config = Config(kafka=KafkaConfig(brokers=f"127.0.0.1:{port}", request_timeout_s=3600))
    try:
        async with asyncio.timeout(60), prober(config) as one:
            unanswered = await one.round(timeout_s=0.5)
            assert set(unanswered.values()) == {None}  # there is no worker
            stop_broker(broker)
            for _ in range(2):
                assert await one.round(timeout_s=0.5) == unanswered
    finally:
        stop_broker(broker)


def test_without_a_broker_it_says_so() -> None:
    ran = subprocess.run(
        [*COMMAND, "--brokers", "127.0.0.1:9", "--timeout", "1"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "cannot reach the brokers" in ran.stderr


def test_it_serves_what_it_found(worker: RunningWorker) -> None:
    command = [*COMMAND, "--brokers", worker.brokers, "--every", "0.1", "--port", "0"]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 (nothing else ties it to us)
    ) as process:
        assert process.stderr is not None
        line = json.loads(process.stderr.readline())  # not a terminal: the structured log
        assert (line["level"], line["logger"]) == ("info", "flashfeed.cli.probe")
        url = line["message"].split()[-1]
        try:
            found: dict[str, float] = {}
            while not found.get("flashfeed_probe_seconds_count"):
                with urllib.request.urlopen(url, timeout=10) as answer:
                    text = answer.read().decode()
                found = {
                    one.name: one.value
                    for family in text_string_to_metric_families(text)
                    for one in family.samples
                }
            assert found["flashfeed_probe_success"] == 1
            assert text.count("flashfeed_probe_success{") == 4
            assert "_created" not in text
        finally:
            process.terminate()


def test_a_record_that_is_lost_is_seen() -> None:
    metrics = ProbeMetrics()
    metrics.found(2, 0.5)
    metrics.found(2, None)
    get = metrics.registry.get_sample_value
    assert get("flashfeed_probe_success", {"partition": "2"}) == 0
    assert get("flashfeed_probes_total", {"result": "lost"}) == 1
    assert get("flashfeed_probe_seconds_count") == 1


def test_promtool_finds_nothing_to_say() -> None:
    metrics = ProbeMetrics()
    metrics.found(2, 0.5)
    checked = promtool("check", "metrics", given=generate_latest(metrics.registry).decode())
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
