"""Which source records a session has seen (invariant 2, applied once).

For each source partition the highest (offset, index) applied. A record at or below it
is a repeat. At most ORIGINS_MAX source partitions feed one session; more are refused,
because a watermark that is forgotten would let its repeats in again.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from .errors import SessionFailed

ORIGINS_MAX = 256

Watermark: TypeAlias = tuple[int, int]

BEFORE_ALL: Final[Watermark] = (-1, -1)
"""The watermark of a source partition of which nothing was applied."""


class Origin(msgspec.Struct, frozen=True):
    """A stretch of one source partition: first and last offset."""

    topic: str
    partition: int
    first: int
    last: int


def origin_key(topic: str, partition: int) -> str:
    """The key of a source partition in a session's watermarks."""
    return f"{topic}/{partition}"


def check_origin(watermarks: dict[str, Watermark], key: str) -> None:
    """Whether there is place for a source partition. Raises SessionFailed for one too many."""
    if key not in watermarks and len(watermarks) >= ORIGINS_MAX:
        raise SessionFailed(
            f"a session takes records of at most {ORIGINS_MAX} source partitions, "
            f"{key} would be one more; give the session id fewer sources"
        )
