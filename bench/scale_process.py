"""A worker of bench/scale.py, from outside: its process, and what it says of itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flashfeed.cli.embedded_broker import die_with_parent

WAIT_S = 600.0


class Process:
    """A worker's process, and the last that it said of itself."""

    def __init__(self, config: Path) -> None:
        self.began = time.time()
        self.last: dict[str, Any] = {"ready": False, "decoded": 0, "partitions": 0, "exact": False}
        self._exact: dict[str, Any] | None = None
        script = Path(__file__).with_name("scale_worker.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 (nothing else ties it to us)
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if said["exact"]:
                self._exact = said
            self.last = said

    def exact(self) -> dict[str, Any]:
        """Ask for what takes a look at every session."""
        assert self._process.stdin is not None
        self._exact = None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        wait_for(lambda: self._exact is not None, self)
        assert self._exact is not None
        return self._exact

    @property
    def ended(self) -> bool:
        """Whether it is there no more."""
        return self._process.poll() is not None

    def stop(self) -> float:
        """SIGTERM; the seconds to its end."""
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(120)
        return time.monotonic() - began


def wait_for(done: Callable[[], bool], *processes: Process) -> None:
    """Look until it is so. Raises RuntimeError where a worker ended, or it takes too long."""
    deadline = time.monotonic() + WAIT_S
    while not done():
        if any(one.ended for one in processes):
            raise RuntimeError("a worker ended")
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {WAIT_S:.0f} s; {[one.last for one in processes]}")
        time.sleep(0.01)
