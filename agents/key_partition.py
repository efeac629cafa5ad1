"""Which partition of `flashfeed.records` a session is in. Alone here, since programs without an
engine ask too."""

from __future__ import annotations

from aiokafka.partitioner import murmur2


def partition_of(session_id: str, partition_count: int) -> int:
    """The partition that a session's key hashes to (Kafka's default partitioner)."""
    return int((murmur2(session_id.encode()) & 0x7FFFFFFF) % partition_count)
