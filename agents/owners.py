"""Who owns which partition, as this worker knows it from `flashfeed.owners`. No I/O.

Of two claims the higher epoch counts, of two with the same epoch the first: so every
worker that has read the same messages knows the same owners.
"""

from __future__ import annotations

import asyncio
import logging

from flashfeed.models.errors import DecodeFault
from flashfeed.models.ownership import Owner, decode_owner

log = logging.getLogger(__name__)


class Owners:
    """The owners of all partitions. `worker` is this worker's own name."""

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self._owners: dict[int, Owner] = {}
        self._changed = asyncio.Event()

    def take(self, key: bytes, value: bytes | None) -> None:
        """Note a message of the topic; one that is no owner's is logged and left out."""
        try:
            number = int(key)
            if value is None:
                self._owners.pop(number, None)
                return
            owner = decode_owner(value)
        except (ValueError, DecodeFault) as error:
            log.error("flashfeed.owners, %r: left out: %s", key, error)
            return
        known = self._owners.get(number)
        newer = known is None or owner.epoch > known.epoch
        if newer or (known and (owner.epoch, owner.worker) == (known.epoch, known.worker)):
            self._owners[number] = owner
            self._changed.set()
            self._changed = asyncio.Event()

    def of(self, number: int) -> Owner | None:
        """A partition's owner, who may not have rebuilt it yet; None where it has none."""
        return self._owners.get(number)

    def epoch(self, number: int) -> int:
        """The epoch of a partition's last claim, 0 before the first."""
        owner = self._owners.get(number)
        return owner.epoch if owner else 0

    def holds(self, number: int, epoch: int) -> bool:
        """Whether this worker's claim of that epoch is the partition's last one."""
        owner = self._owners.get(number)
        return owner is not None and (owner.worker, owner.epoch) == (self.worker, epoch)

    async def moved(self, number: int, epoch: int) -> None:
        """Returns when somebody has claimed the partition after that epoch."""
        while self.epoch(number) <= epoch:
            await self._changed.wait()

    def live(self) -> list[Owner]:
        """The owner of each partition whose sessions can be asked."""
        return [owner for owner in self._owners.values() if owner.live]
