"""/livez and /readyz of real workers: what they say when the broker is away, and of a
worker that has nothing to do."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from flashfeed.cli.embedded_broker import free_port, start_broker, stop_broker
from flashfeed.cli.worker_process import worker_process

from cluster import group_of

pytestmark = [pytest.mark.broker, pytest.mark.model]

CHECKS = ["worker", "engine", "broker", "assigned", "recovered", "progress"]
TOML = """
[kafka]
brokers = "127.0.0.1:{broker}"
group = "g"

[bridge]
port = {port}

[engine]
context_tokens = 1024
sessions_max = 4
"""


def asked(port: int, path: str) -> tuple[int, dict[str, str]]:
    """The status, and the reasons of the checks that fail; no status where nobody listens."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5)
    except httpx.TransportError:
        return 0, {}
    said: dict[str, Any] = answer.json()
    assert said["status"] == ("ok" if answer.status_code == 200 else "unavailable")
    return answer.status_code, {
        one["name"]: one["reason"] for one in said["checks"] if not one["ok"]
    }


def reasons(port: int) -> dict[str, str]:
    checks = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).json()["checks"]
    return {one["name"]: one["reason"] for one in checks}


def until(condition: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)


def test_a_worker_is_ready_when_all_is_there_and_not_while_its_broker_is_away(
    tmp_path: Path,
) -> None:
    broker_port, port = free_port(), free_port()
    config, log = tmp_path / "worker.toml", tmp_path / "worker.log"
    config.write_text(TOML.format(broker=broker_port, port=port))
    broker = start_broker(broker_port)
    try:
        with worker_process(config, log) as process:
            until(lambda: asked(port, "/readyz")[0] == 200, log)
            assert list(reasons(port)) == CHECKS
            assert reasons(port)["assigned"] == "owns partitions 0, 1, 2, 3"
            assert asked(port, "/livez") == (200, {})
            assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200

            broker.send_signal(signal.SIGSTOP)
            until(lambda: "broker" in asked(port, "/readyz")[1], log)
            status, failing = asked(port, "/readyz")
            assert (status, failing["broker"][:22]) == (503, "no broker answered for")
            assert asked(port, "/livez") == (200, {})  # a restart would not bring it back

            broker.send_signal(signal.SIGCONT)
            until(lambda: asked(port, "/readyz")[0] == 200, log)
            assert process.poll() is None
    finally:
        broker.send_signal(signal.SIGCONT)
        stop_broker(broker)


def test_a_worker_without_partitions_is_ready_where_others_serve_them_and_takes_over(
    broker: str, tmp_path: Path
) -> None:
    with group_of(broker, tmp_path, partitions=1) as group:
        for one in group.members:
            until(lambda: asked(one.port, "/readyz")[0] == 200, one.log)  # noqa: B023
        said = {one.port: reasons(one.port)["assigned"] for one in group.members}
        assert sorted(said.values()) == [
            "owns none; the group's other workers serve them all",
            "owns partitions 0",
        ]
        [owner] = [one for one in group.members if said[one.port] == "owns partitions 0"]
        [other] = [one for one in group.members if one is not owner]
        owner.kill()
        until(lambda: reasons(other.port)["assigned"] == "owns partitions 0", other.log)
        until(lambda: asked(other.port, "/readyz")[0] == 200, other.log)
        assert reasons(other.port)["recovered"] == "serves 1 partitions"
