"""Reading a topic up to now: a message of our own is written, and read until it comes back.

The broker's own answer to where a partition ends is not to be trusted (DESIGN.md): on
the embedded broker it is too low after batches, elsewhere it counts transactions' marks.
"""

from __future__ import annotations

import uuid

from .kafka_writer import Write

BARRIER = b"\x00barrier/"
SILENCE_MAX_S = 30.0


def barrier_write(topic: str, partition: int) -> Write:
    """A barrier: a key that is nobody else's, and no value, so that compaction removes it."""
    return Write(topic, BARRIER + uuid.uuid4().hex.encode(), None, partition=partition)


def is_barrier(key: bytes | None) -> bool:
    """Whether a key is a barrier's, ours or another's."""
    return key is not None and key.startswith(BARRIER)
