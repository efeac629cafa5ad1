"""Sessions that feeds make by themselves: how many on this worker, and for how long.

A session counts from the moment its owner plans to make it, so that two that are made at
the same time do not take one place. An idle one is ended through its history, like every
change, and only where nothing came for it meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping

from flashfeed.models.assembly import duration_s
from flashfeed.models.config import FeedConfig
from flashfeed.models.errors import SessionsFull
from flashfeed.models.messages import Delete, encode_message

from .kafka_writer import KafkaWriter, Write
from .metrics import Metrics
from .session_owner import SessionOwner

log = logging.getLogger(__name__)

SWEEPS_PER_TTL = 4
SWEEP_MIN_S = 0.5
SWEEP_MAX_S = 60.0
COUNTED_FOR_S = 1.0
"""How long a count of sessions holds; those admitted since are counted with it."""


class AutoSessions:
    """The limits of each feed, held against the sessions that this worker owns."""

    def __init__(
        self,
        feeds: Mapping[str, FeedConfig],
        owners: Callable[[], Iterable[SessionOwner]],
        writer: KafkaWriter,
        records: str,
        metrics: Metrics,
    ) -> None:
        self._max = {name: feed.sessions_max for name, feed in feeds.items() if feed.sessions_max}
        self._ttl_ms = {
            name: 1000 * duration_s(feed.idle_ttl) for name, feed in feeds.items() if feed.idle_ttl
        }
        self._free: dict[str, tuple[int, float]] = {}
        self._owners = owners
        self._writer = writer
        self._records = records
        self._metrics = metrics

    def admit(self, feed: str, session_id: str) -> None:
        """Raises SessionsFull where the feed has all the sessions that it may make here. They
        are counted anew where the last count leaves no place, or is old: to make a session
        costs the same however many there are."""
        allowed = self._max.get(feed)
        if allowed is None:
            return
        free, until = self._free.get(feed, (0, 0.0))
        now = time.monotonic()
        if free > 0 and now < until:
            self._free[feed] = free - 1, until
            return
        have = sum(one.feed == feed and one.session_id != session_id for one in self._owners())
        if have >= allowed:
            raise SessionsFull(
                f"feed {feed} has {have} sessions on this worker, as many as it may make "
                f"(feeds.{feed}.sessions_max)"
            )
        self._free[feed] = allowed - have - 1, now + COUNTED_FOR_S

    def idle(self, now_ms: float) -> list[SessionOwner]:
        """The sessions that nothing reached for as long as their feed lets them live."""
        return [
            one
            for one in self._owners()
            if one.state is not None
            and not one.busy
            and one.feed in self._ttl_ms
            and now_ms - max(one.arrived_ms, one.last_used_ms) >= self._ttl_ms[one.feed]
        ]

    async def sweep(self) -> None:
        """End idle sessions for as long as it runs; at once done where none may be idle."""
        if not self._ttl_ms:
            return
        pause_s = min(self._ttl_ms.values()) / 1000 / SWEEPS_PER_TTL
        while True:
            await asyncio.sleep(min(max(pause_s, SWEEP_MIN_S), SWEEP_MAX_S))
            idle = self.idle(time.time() * 1000)
            if idle:
                log.info("%d sessions were idle for their feed's idle_ttl and end", len(idle))
                await self._writer.write([self._end(one) for one in idle])
                self._metrics.idle_ended(len(idle))

    def _end(self, owner: SessionOwner) -> Write:
        assert owner.state is not None
        message = Delete(idle_since=owner.state.head.records_offset)
        key = owner.session_id.encode()
        return Write(self._records, key, encode_message(message), partition=owner.partition)
