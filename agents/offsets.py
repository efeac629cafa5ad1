"""Which offset of a partition may be committed (invariant 1).

Pure. A partition's batches are noted in the order they were fetched; each is done or
not; the committable offset is the one after the longest run of done batches from the
head. Nothing else may ever be committed: a batch in flight holds back everything
behind it, however many of those are done. Offsets inside a batch need not be
contiguous (compaction and transaction markers leave holes), so batches are counted,
never offsets.

`epoch` grows whenever a partition is assigned anew: what was fetched before is
forgotten and its late acknowledgements count for nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Fetched:
    first: int
    last: int
    oldest_ms: int = 0
    done: bool = False


@dataclass(slots=True)
class PartitionOffsets:
    """The batches of one partition that are fetched and not yet committable."""

    epoch: int = 0
    in_flight: deque[_Fetched] = field(default_factory=deque)
    committable: int | None = None
    newest_ms: int = 0

    @property
    def oldest_ms(self) -> int:
        """The time of the oldest batch that is not done; 0 where there is none."""
        return self.in_flight[0].oldest_ms if self.in_flight else 0

    def fetched(self, first: int, last: int, oldest_ms: int = 0, newest_ms: int = 0) -> None:
        """Note a batch as handed out, of records of those times. Raises ValueError where it
        does not follow the last."""
        if last < first:
            raise ValueError(f"expected first <= last, got {first}..{last}")
        if self.in_flight and first <= self.in_flight[-1].last:
            raise ValueError(
                f"expected a batch behind offset {self.in_flight[-1].last}, got {first}..{last}"
            )
        self.in_flight.append(_Fetched(first, last, oldest_ms))
        self.newest_ms = max(self.newest_ms, newest_ms)

    def done(self, first: int, epoch: int) -> bool:
        """Note the batch that begins at `first` as done; False where it is not ours (any more)."""
        if epoch != self.epoch:
            return False
        for batch in self.in_flight:
            if batch.first == first:
                batch.done = True
                break
        else:
            return False
        while self.in_flight and self.in_flight[0].done:
            self.committable = self.in_flight.popleft().last + 1
        return True

    def restart(self) -> None:
        """Forget everything: the partition was revoked, or is read again from its commit."""
        self.epoch += 1
        self.in_flight.clear()
        self.committable = None
