"""An engine whose decode is a fixed delay: the whole of bench/scale.py that is not the product.

A decode takes DECODE_S whatever is in it, one after the other, and is of all updates that
wait when it begins, UPDATES_MAX at most, as the engine's steps are of several sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bridge_stub import StubEngine

from flashfeed.engine import Update
from flashfeed.models.session import FlashQuery

DECODE_S = 0.002
UPDATES_MAX = 64


class DelayEngine(StubEngine):
    """The stub engine; an update waits for the decode that it is in. `decodes` counts
    them, `lines` what was decoded."""

    def __init__(self) -> None:
        self.decodes = self.lines = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._decoding: asyncio.Task[None] | None = None

    async def update(
        self,
        session_id: str,
        lines: Sequence[str] = (),
        queries: Sequence[FlashQuery] | None = None,
        rewind: int = 0,
    ) -> Update:
        """The stub's answers, when the decode is over."""
        decoded = asyncio.get_running_loop().create_future()
        self._waiting.append(decoded)
        if self._decoding is None or self._decoding.done():
            self._decoding = asyncio.create_task(self._decode())
        await decoded
        self.lines += len(lines)
        return await super().update(session_id, lines, queries, rewind)

    async def _decode(self) -> None:
        while self._waiting:
            batch = self._waiting[:UPDATES_MAX]
            del self._waiting[: len(batch)]
            self.decodes += 1
            await asyncio.sleep(DECODE_S)
            for one in batch:
                if not one.done():  # its session may have been stopped meanwhile
                    one.set_result(None)
