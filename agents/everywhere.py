"""The sessions of all workers: what this one tells the others of its own, and asks them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from flashfeed.models.errors import Unavailable
from flashfeed.models.ownership import OwnedSessions, Owner
from flashfeed.models.views import SessionView

from .partitions import Partitions
from .placement import Placement
from .service import Peers
from .session_owner import SessionOwner


class Everywhere:
    """This worker among the others: the Ownership of the session service. `peers` None:
    there is no way to ask them."""

    def __init__(
        self,
        placement: Placement,
        partitions: Partitions,
        peers: Peers | None,
        view: Callable[[SessionOwner], SessionView],
    ) -> None:
        self._placement = placement
        self._partitions = partitions
        self._peers = peers
        self._view = view

    @property
    def worker(self) -> str:
        """This worker's name."""
        return self._placement.worker

    def accept(self, partition: int, epoch: int) -> None:
        """Whether this worker serves the partition in that epoch."""
        self._placement.accept(partition, epoch)

    async def moved(self, owner: Owner) -> None:
        """Returns when another worker takes the owner's partition."""
        await self._placement.moved(owner)

    def owned_sessions(self) -> OwnedSessions:
        """The sessions of the partitions that this worker serves."""
        served = self._placement.served()
        owners = [one for one in self._partitions.live() if one.partition in served]
        return OwnedSessions(tuple(served), tuple(self._view(owner) for owner in owners))

    async def all_sessions(self) -> list[SessionView]:
        """Every live session of every worker. Raises Unavailable unless each partition is
        told of by exactly one: one may have moved while it was asked."""
        answers = [self.owned_sessions()]
        others = self._placement.others()
        asked = (self._peers.sessions_of(owner) for owner in others) if self._peers else ()
        # One that fails must not leave the others running behind it.
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
            answers.append(answer)
        numbers = [number for answer in answers for number in answer.partitions]
        if self._placement.missing(set(numbers)) or len(set(numbers)) < len(numbers):
            raise Unavailable("a part of the sessions is being taken over by another worker")
        return [view for answer in answers for view in answer.sessions]
