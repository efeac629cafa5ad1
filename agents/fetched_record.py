"""A fetched record, as light as it can be.

aiokafka (0.14) makes a dataclass of eleven fields of each record, through a generator inside
an iterator: half of what a record costs on its way to an agent. Here it is eight fields in a
struct that the garbage collector need not look at, and the generator alone. What is skipped
(aborted transactions, control batches, repeats of a compressed batch) stays aiokafka's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from aiokafka.consumer import fetcher


class FetchedRecord(msgspec.Struct, gc=False):
    """A record of a topic: what aiokafka's ConsumerRecord has, less its sizes and checksum."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class LightRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """A partition's fetched records, unpacked as FetchedRecord."""

    def __iter__(self) -> Iterator[Any]:
        return self._records_iterator or iter(())

    def _consumer_record(self, tp: Any, record: Any) -> Any:
        if self._key_deserializer or self._value_deserializer:
            return super()._consumer_record(tp, record)
        return FetchedRecord(
            tp.topic,
            tp.partition,
            record.offset,
            record.timestamp,
            record.timestamp_type,
            record.key,
            record.value,
            tuple(record.headers),
        )


def unpack_lightly() -> None:
    """Have aiokafka's consumers in this process unpack so. Idempotent."""
    assert hasattr(fetcher.PartitionRecords, "_consumer_record"), "aiokafka renamed its method"
    assert "_records_iterator" in fetcher.PartitionRecords.__init__.__code__.co_names
    fetcher.PartitionRecords = LightRecords
