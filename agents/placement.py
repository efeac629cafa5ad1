"""Where a session is: here, at another worker, or on its way between two."""

from __future__ import annotations

import uuid

from flashfeed.models.errors import FlashfeedError, SessionElsewhere, Unavailable
from flashfeed.models.ownership import Owner

from .key_partition import partition_of
from .owners import Owners
from .partitions import Partitions
from .service import NOTED


class Placement:
    """Finds the partition of a session, and who serves it. `passes_on`: whether this worker
    can pass a request on to another one, which a refusal speaks of."""

    def __init__(
        self, owners: Owners, partitions: Partitions, partition_count: int, *, passes_on: bool
    ) -> None:
        self._owners = owners
        self._partitions = partitions
        self._count = partition_count
        self._passes_on = passes_on

    @property
    def worker(self) -> str:
        """This worker's name."""
        return self._owners.worker

    @property
    def ready(self) -> bool:
        """Whether this worker serves every partition that it owns. One that owns none is
        ready where others serve them all, and it passes requests on."""
        numbers = self._partitions.numbers
        if numbers:
            return self.served() == numbers
        everywhere = {owner.partition for owner in self._owners.live()}
        return self._passes_on and not self.missing(everywhere)

    def here(self, session_id: str) -> int:
        """The session's partition, which this worker serves. Raises SessionElsewhere where
        another does, Unavailable where none does now."""
        number = partition_of(session_id, self._count)
        owner = self._owners.of(number)
        if owner is None or not owner.live:
            raise Unavailable(f"session {session_id} is being taken over by another worker")
        self._check(owner, f"session {session_id}")
        return number

    def accept(self, partition: int, epoch: int) -> None:
        """Hold a request that another worker passes on against what this one serves.
        Raises Unavailable where the partition is not this worker's in that epoch."""
        owner = self._owners.of(partition)
        holds = self._owners.holds(partition, epoch) and owner is not None and owner.live
        if not holds or not self._partitions.serves(partition, epoch):
            raise Unavailable("the session is moving between workers")

    async def moved(self, owner: Owner) -> None:
        """Returns when another worker takes the owner's partition."""
        await self._owners.moved(owner.partition, owner.epoch)

    def new_id(self, scope: str = "") -> str:
        """A session id that is free: the scope, and an id after it. Where this worker
        serves any partition it is in one of them."""
        mine = set(self.served())
        if not mine:
            self._refuse_without_partition()
        while True:
            session_id = scope + uuid.uuid4().hex
            if partition_of(session_id, self._count) in mine:
                return session_id

    def served(self) -> list[int]:
        """The partitions that this worker serves."""
        return sorted(owner.partition for owner in self._owners.live() if self._serves(owner))

    def others(self) -> list[Owner]:
        """Every other worker that serves a partition, each by one of them. Raises
        Unavailable where it has no bridge, or no requests are passed on."""
        others = {
            owner.worker: owner for owner in self._owners.live() if owner.worker != self.worker
        }
        for owner in others.values():
            self._check_reachable(owner, "a part of the sessions")
        return list(others.values())

    def missing(self, served: set[int]) -> list[int]:
        """The partitions that are not among those served."""
        return [number for number in range(self._count) if number not in served]

    # -- inside -------------------------------------------------------------------

    def _check(self, owner: Owner, what: str) -> None:
        if owner.worker == self.worker:
            if not self._serves(owner):
                raise Unavailable(f"{what} is being moved or rebuilt")
            return
        self._check_reachable(owner, what)
        raise _noted(SessionElsewhere(f"{what} is moving between workers", owner))

    def _check_reachable(self, owner: Owner, what: str) -> None:
        if not self._passes_on:
            raise Unavailable(
                f"{what} is another worker's, and this one passes no requests on: give all of "
                "them one secret, [cluster] secret_env or secret_file"
            )
        if not owner.url:
            raise Unavailable(f"{what} is a worker's that has no bridge")

    def _refuse_without_partition(self) -> None:
        """There are more workers than partitions: another one makes the session."""
        for owner in self._owners.live():
            if owner.worker != self.worker:
                self._check(owner, "a new session's place")
        raise Unavailable("no worker serves a partition yet")

    def _serves(self, owner: Owner) -> bool:
        mine = owner.worker == self.worker
        return mine and self._partitions.serves(owner.partition, owner.epoch)


def _noted(error: SessionElsewhere) -> FlashfeedError:
    noted = NOTED.get()
    if noted is not None:
        noted.elsewhere = error
    return error
