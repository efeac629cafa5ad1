"""How far a replay is, and what came of it, in words on stderr.

On a terminal one line that is written over; with `--progress` elsewhere a line each PROGRESS_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from typing import Final

from flashfeed.agents.replay_sessions import NAMED_MAX, Replayed

PROGRESS_S: Final = 5.0
TERMINAL_S: Final = 1.0


@contextlib.asynccontextmanager
async def told(done: Replayed, *, always: bool) -> AsyncIterator[None]:
    """Tell how far it is for as long as it runs: on a terminal, or `always`."""
    terminal = sys.stderr.isatty()
    if not terminal and not always:
        yield
        return
    telling = asyncio.create_task(_tell(done, terminal))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


async def _tell(done: Replayed, terminal: bool) -> None:
    while True:
        await asyncio.sleep(TERMINAL_S if terminal else PROGRESS_S)
        text = progress(done, time.monotonic())
        print(f"\r\x1b[K{text}" if terminal else text, end="" if terminal else "\n",
              file=sys.stderr, flush=True)  # fmt: skip


def progress(done: Replayed, now_s: float) -> str:
    """How far it is, how fast, and how long it will take. Pure."""
    left = done.left_s(now_s)
    passed = now_s - done.began_s
    pace = f", {done.read / passed:.1f} records/s" if done.read and passed > 0 else ""
    then = "" if left is None else f", about {duration(left)} left"
    return f"{done.read} of {done.total} records, {done.versions} versions{pace}{then}"


def duration(seconds: float) -> str:
    """A time as a person reads it: seconds, minutes or hours. Pure."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def summary(done: Replayed, now_s: float) -> str:
    """What was replayed. Pure."""
    lines = [
        f"{done.read} records, {done.versions} versions, {done.answers} answers "
        f"in {now_s - done.began_s:.1f} s"
    ]
    for why, count in done.refused.items():
        lines.append(f"  {count} refused: {why}")
        lines += [f"    {what}" for what in done.named.get(why, ())]
        if count > NAMED_MAX:
            lines.append(f"    and {count - NAMED_MAX} more")
    return "\n".join(lines)
