"""This worker's own word on `flashfeed.owners`: what it takes, serves and gives back.

CLAIMED   written before the changelog is read. Whoever owned the partition before, and
          does not know yet that it does so no more, learns it here
LIVE      the sessions are rebuilt: requests may come
GONE      given back by a worker that stops; after a crash the next claim says it
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from flashfeed.models.ownership import Owner, encode_owner

from .followed_topic import FollowedTopic
from .owners import Owners

log = logging.getLogger(__name__)


class Claims:
    """Writes the claims of one worker. Every method raises what FollowedTopic.put does.

    `retry_s`: of two workers that both take themselves for a partition's owner one is
    wrong, and learns it within the group's session timeout; so long the one that came
    second waits before it claims again.
    """

    def __init__(self, owners: Owners, topic: FollowedTopic, retry_s: float) -> None:
        self._owners = owners
        self._topic = topic
        self._retry_s = retry_s
        self._url: asyncio.Future[str] | None = None

    def announce(self, url: str) -> None:
        """Where this worker's bridge is reached, "" where it has none. Nothing is claimed
        before that is said."""
        if not self._where().done():
            self._where().set_result(url)

    async def claim(self, number: int) -> int:
        """Make a partition this worker's; returns the claim's epoch."""
        while True:
            epoch = self._owners.epoch(number) + 1
            await self._put(number, epoch, live=False)
            if self._owners.holds(number, epoch):
                return epoch
            where = {"partition": number}
            log.warning("partition %d: another worker claimed it first", number, extra=where)
            await asyncio.sleep(self._retry_s)

    async def open(self, number: int, epoch: int) -> None:
        """The partition's sessions can be asked."""
        await self._put(number, epoch, live=True)

    async def give_back(self, numbers: Iterable[int]) -> None:
        """These partitions' sessions can be asked here no more."""
        for number in numbers:
            epoch = self._owners.epoch(number)
            if self._owners.holds(number, epoch):
                await self._put(number, epoch, live=False)

    async def sync(self) -> None:
        """Read every claim that was written before now."""
        await self._topic.sync()

    def holds(self, number: int, epoch: int) -> bool:
        """Whether nobody has claimed the partition since."""
        return self._owners.holds(number, epoch)

    async def _put(self, number: int, epoch: int, *, live: bool) -> None:
        url = await asyncio.shield(self._where())
        owner = Owner(number, epoch, self._owners.worker, url, live)
        await self._topic.put((str(number).encode(), encode_owner(owner)))

    def _where(self) -> asyncio.Future[str]:
        if self._url is None:
            self._url = asyncio.get_running_loop().create_future()
        return self._url
