"""A worker in a process of its own, as an operator would run it: for the demo, the
benchmarks and the fault tests."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from flashfeed.models.errors import Unavailable

from .embedded_broker import die_with_parent

READY_TIMEOUT_S = 60.0


def start_worker(config: Path, log: Path, trace: Path | None = None) -> subprocess.Popen[bytes]:
    """Start `flashfeed worker`; it ends when this process does."""
    command = [sys.executable, "-m", "flashfeed.cli.main", "worker", "-c", str(config)]
    if trace is not None:
        command += ["--trace-passes", str(trace)]
    with log.open("ab") as sink:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            preexec_fn=die_with_parent,  # noqa: PLW1509 (nothing else ties it to us)
        )


def stop_worker(process: subprocess.Popen[bytes]) -> int:
    """Ask the worker to stop, and wait for it; its exit code."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@contextlib.contextmanager
def worker_process(
    config: Path, log: Path, trace: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker for the time of the block."""
    process = start_worker(config, log, trace)
    try:
        yield process
    finally:
        stop_worker(process)


def wait_until_ready(port: int, worker: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the worker's /health; raises Unavailable with the end of its log."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if worker.poll() is not None:
            break
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-3000:] if log.exists() else ""
    raise Unavailable(f"the worker did not get ready; the end of its log:\n{tail}")


def scrape(port: int, series: str) -> float:
    """The sum of a series at the worker's /metrics: `name`, or `name{label="value"}` with some
    of its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    name, _, labels = series.rstrip("}").partition("{")
    pairs = labels.split(",") if labels else []
    values = [
        line.rsplit(" ", 1)[1]
        for line in lines
        if line.startswith(name) and all(pair in line for pair in pairs)
    ]
    return sum(float(value) for value in values)
