"""Asks the brokers for their metadata every few seconds, so that readiness knows whether
one answers: a consumer or producer that has nothing to do would not notice."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from flashfeed.models.config import KafkaConfig
from flashfeed.models.health import Check

from .connection import client_settings
from .unreachable import why_unreachable

PAUSE_S: Final = 2.0
TIMEOUT_S: Final = 5.0
OLD_S: Final = 10.0
"""Without an answer for so long the brokers count as away."""


def broker_check(answered_s: float | None, now_s: float, trouble: str) -> Check:
    """Whether a broker answered lately; `answered_s` is when one last did, None never."""
    why = trouble and f": {trouble}"
    if answered_s is None:
        return Check("broker", False, f"no broker has answered yet{why}")
    age_s = now_s - answered_s
    if age_s > OLD_S:
        return Check("broker", False, f"no broker answered for {age_s:.0f} s{why}")
    return Check("broker", True, f"a broker answered {age_s:.0f} s ago")


class BrokerProbe:
    """Knows when a broker last answered."""

    def __init__(self, kafka: KafkaConfig) -> None:
        self._kafka = kafka
        self._settings: dict[str, Any] = {}
        self._client: Any = None
        self._task: asyncio.Task[None] | None = None
        self._answered_s: float | None = None
        self._trouble = ""

    async def start(self) -> None:
        """Begin to ask. Raises ConfigError where a secret cannot be read."""
        self._settings = client_settings(self._kafka)
        self._task = asyncio.create_task(self._run(), name="probe the brokers")

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._close()

    def check(self) -> Check:
        """Whether a broker answered lately."""
        return broker_check(self._answered_s, time.monotonic(), self._trouble)

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._ask()
                self._answered_s, self._trouble = time.monotonic(), ""
            except (KafkaError, OSError, TimeoutError) as error:
                said = f"{type(error).__name__}: {error}".rstrip(": ")
                self._trouble = await why_unreachable(self._settings, said)
                await self._close()  # the next round connects anew, by every address it knows
            await asyncio.sleep(PAUSE_S)

    async def _ask(self) -> None:
        if self._client is None:
            self._client = AIOKafkaClient(**self._settings)
            await self._client.bootstrap()
        elif not await self._client.force_metadata_update():
            raise KafkaError("the brokers do not answer a metadata request")

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()
