"""One at a time, across threads and processes that share a folder."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alone(target: Path) -> Iterator[None]:
    """Only one makes a file; the others wait, and look then whether it is there. The lock is a
    file beside it, which stays; it ends with its holder's process."""
    with target.with_name(target.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
