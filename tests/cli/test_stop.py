"""A worker on Apache Kafka that is asked to stop ends by itself, well, and soon: with a step
under way, while it writes a text, and when its brokers are away. Nothing is lost by it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from flashfeed.cli.embedded_broker import free_port
from flashfeed.cli.worker_process import (
    scrape,
    start_worker,
    stop_worker,
    wait_until_ready,
)

from apache_kafka import available, kafka_node

pytestmark = [
    pytest.mark.broker,
    pytest.mark.model,
    pytest.mark.skipif(not available(), reason="needs java, mvn and openssl"),
]
TOML = """
[kafka]
brokers = "{brokers}"
group = "g"

[bridge]
port = {port}

[engine]
context_tokens = 8192
sessions_max = 4
"""
LAST = "199 is a number."
LONG = " ".join(f"{number} is a number." for number in range(200))
"""More tokens than a pass takes."""


class Worker:
    """The worker, and clients that ask it in the background."""

    def __init__(self, brokers: str, home: Path) -> None:
        self.port = free_port()
        self.config, self.log = home / "worker.toml", home / "worker.log"
        self.config.write_text(TOML.format(brokers=brokers, port=self.port))
        self._clients = ThreadPoolExecutor(4)

    def start(self) -> None:
        self.process = start_worker(self.config, self.log)
        wait_until_ready(self.port, self.process, self.log)

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.request(method, url, json=body, timeout=60)

    def ask_beside(self, path: str, body: Any) -> Future[httpx.Response]:
        return self._clients.submit(self.ask, "POST", path, body)

    def jobs(self, kind: str) -> float:
        return scrape(self.port, f'flashfeed_engine_jobs{{kind="{kind}"}}')

    def stop(self) -> None:
        """Asked by a signal it ends by itself, before it would be killed."""
        assert stop_worker(self.process) == 0, self.log.read_text()[-3000:]

    def end(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._clients.shutdown(wait=False, cancel_futures=True)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 150
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def failing(self) -> list[str]:
        """The checks of readiness that fail."""
        checks = self.ask("GET", "/readyz").json()["checks"]
        return [one["name"] for one in checks if not one["ok"]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "kafka").mkdir()
    return tmp_path


def test_a_worker_stops_by_itself_whatever_is_under_way(home: Path) -> None:
    with contextlib.ExitStack() as stack:
        with kafka_node(home / "kafka") as node:
            worker = Worker(node.plain, home)
            stack.callback(worker.end)
            worker.start()
            made = worker.ask("POST", "/v1/sessions", {"id": "s"})
            assert made.status_code == 200, made.text
            appended = worker.ask_beside("/v1/sessions/s/append", {"text": LONG})
            worker.until(lambda: worker.jobs("ingest") > 0)
            worker.stop()  # in the middle of a step: it is finished soon, or left to the next
            appended.exception()  # either way it is told something: it does not wait on

            worker.start()
            state = "/v1/sessions/s/state"
            worker.until(lambda: LAST in worker.ask("GET", state).text)
            assert worker.ask("GET", state).json()["context_text"].count(LONG) == 1
            body = {"prompt": "Go on.", "max_tokens": 500, "stream": True}
            generated = worker.ask_beside("/v1/sessions/s/generate", body)
            worker.until(lambda: worker.jobs("generate") > 0)
            worker.stop()
            # A text that had begun ends early; one that had not is refused.
            assert generated.result().status_code in {200, 503}, generated.result().text

            worker.start()
            assert worker.failing() == []
        worker.ask_beside("/v1/sessions/s/append", {"text": "lost"})  # the brokers are away
        worker.until(lambda: worker.failing() == ["broker"])
        assert worker.ask("GET", "/livez").status_code == 200
        worker.stop()
