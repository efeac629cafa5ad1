"""Looks after the partitions that are read (stalls.py says which stand still): one that is
silent is resumed and sought to where it stands, which makes the client fetch it anew."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TP
from prometheus_client import CollectorRegistry, Counter, Gauge

from flashfeed.models.config import KafkaConfig

from .connection import client_settings, stop_consumer
from .stalls import Seen, StallDetector
from .transport import BatchConsumer

log = logging.getLogger(__name__)

LOOKS: Final = 4
"""Looks within the time after which a partition counts as standing still."""
REBALANCE: Final = "every partition (a rebalance does not end)"


class StallWatch:
    """Watches the partitions of a group's member; `run` it as a task."""

    def __init__(
        self, consumer: BatchConsumer, kafka: KafkaConfig, registry: CollectorRegistry
    ) -> None:
        self._consumer = consumer
        self._after_s = kafka.stalled_s
        self._settings = client_settings(kafka)
        self._detector: StallDetector[TP] = StallDetector(kafka.stalled_s)
        self._stopped_s: float | None = None
        self._rebalance = False
        self._healed = Counter(
            "flashfeed_silent_partitions",
            "Times a partition with records was not fetched, and was sought and resumed.",
            ["topic"],
            registry=registry,
        )
        still = Gauge(
            "flashfeed_still_partitions",
            "Partitions that stand still: silent ones are not fetched, of held ones the worker "
            "has records that are not done.",
            ["why"],
            registry=registry,
        )
        still.labels("silent").set_function(lambda: len(self._detector.silent))
        still.labels("held").set_function(lambda: len(self._detector.held))

    def stalled(self) -> list[str]:
        """What is not read though it has records, as a person says it."""
        return [REBALANCE] if self._rebalance else sorted(map(_name, self._detector.silent))

    async def run(self) -> None:
        """Look and heal for as long as it runs."""
        # Asked by a connection of its own: the group's may be what stands still, and what a
        # fetch says of the end is as old as the fetch.
        ends: Any = None
        try:
            while True:
                await asyncio.sleep(self._after_s / LOOKS)
                try:
                    if ends is None:
                        ends = await self._connected()
                    await self.look(time.monotonic(), ends)
                except (KafkaError, TimeoutError) as error:  # readiness says who is away
                    log.info("cannot look after the partitions: %s", error)
                except Exception:  # a watch that ended would never take back what it said
                    log.exception("cannot look after the partitions")
        finally:
            if ends is not None:
                await stop_consumer(ends)

    async def _connected(self) -> AIOKafkaConsumer:
        ends = AIOKafkaConsumer(isolation_level="read_committed", **self._settings)
        try:
            await ends.start()
        except BaseException:
            await stop_consumer(ends)
            raise
        return ends

    async def look(self, now_s: float, ends: AIOKafkaConsumer) -> None:
        """One look, and what follows from it."""
        if not self._consumer.flow_active:  # everything stands still, and begins anew
            self._detector.look(now_s, {})
            self._stopped_s = self._stopped_s if self._stopped_s is not None else now_s
            late = now_s - self._stopped_s >= self._after_s
            if late and not self._rebalance:
                log.error("a rebalance has not ended for %.0f s", now_s - self._stopped_s)
            self._rebalance = late
            return
        self._stopped_s, self._rebalance = None, False
        seen = await self._seen(ends)
        for topic in {tp.topic for tp in seen}:
            self._healed.labels(topic)  # there before it moves: a rate does not see a first value
        silent, held = self._detector.look(now_s, seen)
        for tp in held:
            log.warning(
                "%s: what begins at offset %s is not done for %.0f s: the engine is behind, or "
                "it waits for what its feed needs", _name(tp), seen[tp].undone, self._after_s,
                extra=_where(tp, seen[tp].undone),
            )  # fmt: skip
        for tp in silent:
            log.error(
                "%s: nothing comes from offset %s on for %.0f s, and it ends at %d: it is sought "
                "there and resumed", _name(tp), seen[tp].position, self._after_s, seen[tp].end,
                extra=_where(tp, seen[tp].position),
            )  # fmt: skip
            self._healed.labels(tp.topic).inc()
            await self._heal(tp, seen[tp].position)

    async def _seen(self, ends: AIOKafkaConsumer) -> dict[TP, Seen]:
        places: Collection[TP] = self._consumer.assignment()
        if not places:
            return {}
        found = await ends.end_offsets([TopicPartition(*tp) for tp in places])
        # Read behind the wait: what was fetched meanwhile is no stall.
        return {
            tp: Seen(self._consumer.position_now(tp), found[tp], self._consumer.undone(tp))
            for tp in places
            if tp in found and tp in self._consumer.assignment()
        }

    async def _heal(self, tp: TP, position: int | None) -> None:
        async with asyncio.timeout(self._after_s):
            await self._consumer.fetch_anew(tp, position)


def _where(tp: TP, offset: int | None) -> dict[str, Any]:
    return {"topic": tp.topic, "partition": tp.partition, "offset": offset}


def _name(tp: TP) -> str:
    return f"{tp.topic}[{tp.partition}]"
