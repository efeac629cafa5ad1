"""Warm turns: a chat's prompt decoded before its turn is asked, one a session at a time.

The session's next turn, or a newer warm one, takes over: the one under way ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from flashfeed.models.generation import GeneratedPiece


class WarmTurns:
    """The warm turns under way."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[GeneratedPiece | None]] = {}

    def take_over(self, session_id: str) -> None:
        """End the session's warm turn, if it has one."""
        task = self._running.pop(session_id, None)
        if task is not None:
            task.cancel()

    async def run(
        self, session_id: str, pieces: AsyncGenerator[GeneratedPiece]
    ) -> GeneratedPiece | None:
        """The last piece of a generation of one token; None where a turn took over."""
        self.take_over(session_id)
        task = self._running[session_id] = asyncio.create_task(_last(pieces))
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()  # a caller that is gone wants it no more
            if self._running.get(session_id) is task:
                del self._running[session_id]
        return None if task.cancelled() else task.result()


async def _last(pieces: AsyncGenerator[GeneratedPiece]) -> GeneratedPiece | None:
    last = None
    async with aclosing(pieces):
        async for piece in pieces:
            last = piece
    return last
