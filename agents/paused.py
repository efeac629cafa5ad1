"""Feed partitions that wait for something outside, each in its own line (invariant 6).

A partition whose batch cannot be read yet is paused: that batch and those behind it wait
here in order, and the other partitions go on. Nothing waiting is acknowledged, so nothing is
lost, and the transport stops fetching a partition that has its bound of batches in flight
(invariant 7).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

from flashfeed.codecs.codec import Wanted

from .metrics import Metrics
from .transport import Batch

log = logging.getLogger(__name__)

Place = tuple[str, int]
Acknowledge = Callable[[], Any]


class _Parked(NamedTuple):
    batch: Batch
    acknowledge: Acknowledge


class PausedPartitions:
    """The lines of waiting batches.

    `work` reads and writes one batch and raises Wanted where it cannot; `bring` gets what
    is wanted; `look_ahead` is shown each batch that waits, which may hold it; `fatal` takes
    what else goes wrong.
    """

    def __init__(
        self,
        work: Callable[[Batch], Awaitable[None]],
        bring: Callable[[Wanted, str, Mapping[str, object]], Awaitable[None]],
        look_ahead: Callable[[Batch], None],
        fatal: Callable[[BaseException], None],
        metrics: Metrics,
    ) -> None:
        self._work = work
        self._bring = bring
        self._look_ahead = look_ahead
        self._fatal = fatal
        self._metrics = metrics
        self._lines: dict[Place, deque[_Parked]] = {}
        self._tasks: dict[Place, asyncio.Task[None]] = {}

    def park(self, batch: Batch, acknowledge: Acknowledge) -> bool:
        """Put a batch behind those that its partition holds back; False where it is not
        paused. What waits from an earlier assignment is fetched again: it is dropped."""
        line = self._lines.get((batch.topic, batch.partition))
        if line is None:
            return False
        while line and line[0].batch.epoch < batch.epoch:
            line.popleft()
        if not line or line[0].batch.epoch == batch.epoch:
            line.append(_Parked(batch, acknowledge))
            self._look_ahead(batch)
        return True

    def pause(self, batch: Batch, acknowledge: Acknowledge, wanted: Wanted) -> None:
        """Hold a partition back until what its batch wants is there."""
        place = (batch.topic, batch.partition)
        self._lines[place] = deque([_Parked(batch, acknowledge)])
        self._look_ahead(batch)
        self._metrics.paused(1)
        self._tasks[place] = asyncio.create_task(
            self._resume(place, wanted), name=f"paused {batch.topic}[{batch.partition}]"
        )

    async def revoke(self, places: Iterable[Place]) -> None:
        """Forget what waits of these partitions: their next owner reads it again."""
        for place in list(places):
            task = self._tasks.get(place)
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                self._forget(place, task)

    async def stop(self) -> None:
        """Forget all that waits."""
        await self.revoke(list(self._tasks))

    async def _resume(self, place: Place, wanted: Wanted) -> None:
        line, name = self._lines[place], f"{place[0]}[{place[1]}]"
        where = {"topic": place[0], "partition": place[1]}
        try:
            await self._bring(wanted, name, where)
            while line:
                parked = line[0]
                try:
                    await self._work(parked.batch)
                except Wanted as more:
                    await self._bring(more, name, where)
                    continue
                # A new assignment may have dropped it meanwhile.
                if line and line[0] is parked:
                    line.popleft()
                parked.acknowledge()
            log.info("%s goes on", name, extra=where)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fatal(error)
        finally:
            self._forget(place, asyncio.current_task())

    def _forget(self, place: Place, task: asyncio.Task[None] | None) -> None:
        # A task that was cancelled before it began never came here, and one that was may
        # find its place paused again by another.
        if self._tasks.get(place) is task:
            del self._lines[place], self._tasks[place]
            self._metrics.paused(-1)
