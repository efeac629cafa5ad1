"""The history of feeds' topics, in the one order that is the same whoever reads it: by
Kafka's times, and of one partition by offset."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from aiokafka import TopicPartition

from flashfeed.codecs.codec import Wanted
from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import Unavailable

from .feeds import Feed, ReadBatch, read_batch
from .past import Past, Stretch
from .supplies import Supplies
from .transport import Batch

WANTED_WAIT_S: Final = 30.0


async def read_supplied(batch: Batch, feed: Feed, supplies: Supplies) -> ReadBatch:
    """Read a batch by its feed, and first get what its codec wants. Raises Unavailable where
    that cannot be had."""
    while True:
        supplies.begin()
        try:
            return read_batch(batch, feed)
        except Wanted as wanted:
            try:
                async with asyncio.timeout(WANTED_WAIT_S):
                    await supplies.bring(wanted, f"feed {feed.name}", {"feed": feed.name})
            except TimeoutError:
                raise Unavailable(
                    f"feed {feed.name}: {wanted.what} could not be had in {WANTED_WAIT_S:.0f} s"
                ) from None


async def in_order(
    kafka: KafkaConfig,
    stretches: Mapping[TopicPartition, Stretch],
    to_now: Collection[TopicPartition] = (),
) -> AsyncGenerator[Any]:
    """The records of all stretches, the oldest first; of the partitions `to_now` those as well
    that came behind their ends until now. Each partition is read by itself, so that none runs
    ahead and fills the memory. Raises Unavailable."""
    async with AsyncExitStack() as open_:
        heads: list[tuple[tuple[int, str, int, int], Any, AsyncIterator[Any]]] = []
        for place, at in stretches.items():
            past = await open_.enter_async_context(Past(kafka))
            records = _one_by_one(past, place, at, place in to_now)
            await _push(heads, records)
        while heads:
            _, record, records = heapq.heappop(heads)
            yield record
            await _push(heads, records)


async def _one_by_one(
    past: Past, place: TopicPartition, at: Stretch, to_now: bool
) -> AsyncIterator[Any]:
    async for records in past.read({place: at}, to_now=to_now):
        for one in records:
            yield one


async def _push(heads: list[Any], records: AsyncIterator[Any]) -> None:
    record = await anext(records, None)
    if record is not None:
        order = (record.timestamp or 0, record.topic, record.partition, int(record.offset))
        heapq.heappush(heads, (order, record, records))
