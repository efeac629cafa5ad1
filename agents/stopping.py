"""A stop in parts, each for a bounded time: what hangs is left as it is.

Nothing is lost by that. What is not flushed is not committed either, and is done again by the
partition's next owner.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from typing import Any

log = logging.getLogger(__name__)

STOP_MAX_S = 8.5
"""What ends a process gives it some ten seconds."""


class Stopping:
    """Runs the parts of a stop one after another, all within `within_s` seconds."""

    def __init__(self, within_s: float) -> None:
        self._ends_s = time.monotonic() + within_s

    async def part(self, name: str, what: Awaitable[Any], most_s: float) -> None:
        """Run one part, for `most_s` seconds and what is left of the whole at most. What it
        raises is logged: the next part is not kept from its turn."""
        left_s = max(0.0, min(most_s, self._ends_s - time.monotonic()))
        task = asyncio.ensure_future(what)
        # Not asyncio.timeout: what does not heed its cancellation would be waited for.
        done, _ = await asyncio.wait({task}, timeout=left_s)
        if not done:
            task.cancel()
            log.warning("%s did not stop within %.1f s, and is left", name, left_s)
        elif not task.cancelled() and (error := task.exception()) is not None:
            log.warning("%s did not stop well: %r", name, error)
