"""Fetched records are what aiokafka would have made of them, all of them and no others."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.agents.fetched_record import FetchedRecord, LightRecords

PLACE = TopicPartition("t", 3)
STOCK = (
    fetcher.PartitionRecords.__mro__[-2]
    if fetcher.PartitionRecords is LightRecords
    else (fetcher.PartitionRecords)
)
Bytes = st.none() | st.binary(max_size=8)
Headers = st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=3)), max_size=2)
Written = st.tuples(Bytes, Bytes, Headers)


def batch(records: list[Any], base: int, codec: int, producer: int) -> bytes:
    """A record batch as it stands on the broker, from that offset on."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=int(producer >= 0),
        producer_id=producer, producer_epoch=0, base_sequence=0, batch_size=1 << 20,
    )  # fmt: skip
    for place, (key, value, headers) in enumerate(records):
        builder.append(place, 1000 + place, key, value, headers)
    built = bytes(builder.build())
    return base.to_bytes(8, "big") + built[8:]  # the checksum does not cover it


def unpacked(records: type, data: bytes, aborted: list[tuple[int, int]], start: int) -> Any:
    """All that comes of a fetch, and the offset that is fetched next."""
    made = records(PLACE, MemoryRecords(data), aborted, start, None, None, True, 1)
    return list(made), made.next_fetch_offset


@given(
    batches=st.lists(st.tuples(st.lists(Written, min_size=1, max_size=4), st.sampled_from([0, 1]),
                               st.integers(-1, 1)), min_size=1, max_size=5),
    aborts=st.booleans(),
    start=st.integers(0, 6),
)  # fmt: skip
def test_they_are_aiokafkas(batches: list[Any], aborts: bool, start: int) -> None:
    data, at = b"", 0
    for records, codec, producer in batches:
        data += batch(records, at, codec, producer)
        at += len(records)
    aborted = [(1, 0)] if aborts else []
    theirs, after = unpacked(STOCK, data, aborted, start)
    ours, then = unpacked(LightRecords, data, aborted, start)
    assert then == after
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert isinstance(one, FetchedRecord)
        for name in FetchedRecord.__struct_fields__:
            assert getattr(one, name) == getattr(other, name)


def test_a_broken_batch_is_refused() -> None:
    data = bytearray(batch([(None, b"value", [])], 0, 0, -1))
    data[-1] ^= 1
    with pytest.raises(Exception, match="Invalid CRC"):
        unpacked(LightRecords, bytes(data), [], 0)


def test_one_at_a_time_they_come_too() -> None:
    data = batch([(None, b"a", []), (None, b"b", [])], 0, 0, -1)
    made = LightRecords(PLACE, MemoryRecords(data), [], 0, None, None, True, 1)
    assert [next(made).value, made.next_fetch_offset, next(made).value] == [b"a", 1, b"b"]
    assert next(made, None) is None
    assert list(made) == []
