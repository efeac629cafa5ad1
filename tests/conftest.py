"""What tests share: an embedded broker, and a worker over it, both real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings

from flashfeed.cli.embedded_broker import embedded_broker, free_port
from flashfeed.cli.worker_process import wait_until_ready, worker_process

from client_table import ClientTable

WORKER_TOML = """
[kafka]
brokers = "{brokers}"
group = "flashfeed-test"

[bridge]
port = {port}

[models]
dirs = ["{home}"]

[engine]
context_tokens = 2048
sessions_max = 16
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-clients", action="store_true", help="write docs/CLIENTS.md")
    parser.addoption("--write-examples", action="store_true", help="write bridge/examples.json")
    parser.addoption("--write-metrics", action="store_true", help="write docs/METRICS.md")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(ClientTable(config), "client table")


# Tests assert behaviour, not time: on a busy machine any one example may take long. (What a
# codec may take is codecs/test_fuzz.py's business, in processor time.)
settings.register_profile("any time", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any time")


class RunningWorker(NamedTuple):
    """A worker that is ready: where its broker and its bridge are. Requests may name the
    models in its log's folder."""

    brokers: str
    url: str
    log: Path
    pid: int


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """`host:port` of an embedded broker that lives as long as the tests."""
    with embedded_broker() as address:
        yield address


@pytest.fixture(scope="session")
def worker(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    """A ready worker without feeds; its bridge is all there is to it."""
    home = tmp_path_factory.mktemp("worker")
    port = free_port()
    config, log = home / "worker.toml", home / "worker.log"
    config.write_text(WORKER_TOML.format(brokers=broker, port=port, home=home))
    with worker_process(config, log) as process:
        wait_until_ready(port, process, log)
        yield RunningWorker(broker, f"http://127.0.0.1:{port}", log, process.pid)
