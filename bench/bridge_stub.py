"""A worker whose engine answers at once: Kafka, sessions and the bridge as they are.

For what is about transport. It answers every question with the time at which it did (ns
since 1970), so that who gets the event knows how long it was on the way.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flashfeed.agents.app import Worker
from flashfeed.bridge.app import create_app
from flashfeed.bridge.server import BridgeServer
from flashfeed.cli.settings import load
from flashfeed.engine import EngineStats, Update
from flashfeed.models.session import Answer, FlashQuery, SessionSpec


class StubEngine:
    """The engine's contract as far as records and standing questions need it."""

    model_name = "stub"
    failure = None

    async def open(
        self,
        session_id: str,
        spec: SessionSpec,
        lines: Sequence[str] = (),
        count: int | None = None,
        frozen: Sequence[str] = (),
    ) -> int:
        """A session of one token."""
        return 1

    async def close(self, session_id: str, *, forget: bool = False, save: bool = True) -> None:
        """Nothing is held."""

    async def update(
        self,
        session_id: str,
        lines: Sequence[str] = (),
        queries: Sequence[FlashQuery] | None = None,
        rewind: int = 0,
    ) -> Update:
        """Each question's answer: now."""
        now = str(time.time_ns())
        answers = tuple(Answer(query.id, now, 1.0, 1.0) for query in queries or ())
        return Update(answers, len(lines), 0, 0, 1, 0.0, 0.0, 1)

    def count_tokens(self, text: str, session_id: str = "") -> int:
        """Words."""
        return len(text.split())

    def kv_tokens(self, session_id: str) -> int:
        """As many as the session has."""
        return 1

    def stats(self) -> EngineStats:
        """Nothing."""
        return EngineStats()

    def model_hash_of(self, session_id: str) -> str:
        """The stub's."""
        return "stub"


async def serve(path: Path) -> None:
    config = load(path)
    engine: Any = StubEngine()
    worker = Worker(config, engine, lambda _: [])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    service = await worker.start()
    server = BridgeServer(create_app(service), config.bridge.host, config.bridge.port)
    await server.start()
    worker.claims.announce(f"http://127.0.0.1:{server.port}")
    failed = asyncio.ensure_future(worker.failed())
    await asyncio.wait({failed, asyncio.ensure_future(stop.wait())}, return_when="FIRST_COMPLETED")
    await server.stop()
    await worker.stop()
    if failed.done():
        failed.result()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
