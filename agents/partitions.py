"""The partitions of `flashfeed.records` that this worker owns, and their sessions.

RECOVERING -> LIVE   the engine knows every session in the changelog, decoded or not
any        -> gone   another worker owns it; what is not in the changelog is its to do

RECOVERING   claimed (claims.py), being read; batches are parked, no session applies anything
LIVE         batches go to their sessions
Between a revocation and the next assignment no session begins a step (`may_step`).

A partition that is assigned again may have been another worker's meanwhile (this one was
silent for too long, and never heard of it): where somebody has claimed it since, what is
held of it is stale, and it is recovered anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable

from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import ChangelogCorrupt, FlashfeedError

from .changelog import SlotsRead, read_partition
from .claims import Claims
from .graves import Graves
from .kafka_writer import KafkaWriter
from .owned_partition import Acknowledge, Partition, read_batch
from .session_owner import OwnerParts, SessionOwner
from .session_step import SessionState
from .step_writer import KafkaStepWriter
from .transport import Batch

log = logging.getLogger(__name__)

STATES_AT_ONCE = 64
"""Restoring so many takes some milliseconds."""

Settled = Callable[[int, int, FlashfeedError | None], None]
Revoked = Callable[[int], None]


class Partitions:
    """Owns sessions by partition, from assignment to revocation."""

    def __init__(
        self,
        kafka: KafkaConfig,
        changelog: str,
        dead_letters: str,
        writer: KafkaWriter,
        claims: Claims,
        steps: KafkaStepWriter,
        make_parts: Callable[[Settled, asyncio.Event], OwnerParts],
    ) -> None:
        self._kafka = kafka
        self._changelog = changelog
        self._dead_letters = dead_letters
        self._writer = writer
        self._claims = claims
        self._steps = steps
        self._may_step = asyncio.Event()
        self._parts = make_parts(self._settled, self._may_step)
        self._owned: dict[int, Partition] = {}
        self._on_settled: list[Settled] = []
        self._on_revoked: list[Revoked] = []
        self._anew: set[asyncio.Task[None]] = set()
        self._leaving: dict[int, asyncio.Task[None]] = {}
        self._assigned: asyncio.Task[None] | None = None
        self._round = 0
        self._ends = False
        steps.on_broken(self._broken)

    # -- assignment ---------------------------------------------------------------

    async def assign(self, numbers: Iterable[int]) -> None:
        """Own these partitions and no others. All that takes time goes on in the background:
        until this returns the member sends no heartbeat, and the group would put it out.

        What is new is registered before anything is awaited: its batches may come at once.
        """
        if self._ends:
            return
        wanted = set(numbers)
        kept = [one for one in self._owned.values() if one.number in wanted and one.epoch]
        for number in set(self._owned) - wanted:
            self._leave(self._owned.pop(number))
        for number in sorted(wanted - set(self._owned)):
            self._begin(Partition(number))
        for partition in kept:
            partition.live = False
        self._round += 1
        self._assigned = asyncio.create_task(
            self._take_up(self._assigned, self._round, kept), name="take partitions up"
        )

    async def _take_up(
        self, before: asyncio.Task[None] | None, number: int, kept: list[Partition]
    ) -> None:
        """Let sessions step again, once what was lost is let go of and what is kept is checked;
        where another rebalance began meanwhile, that one does it."""
        try:
            if before is not None:
                await before
            await asyncio.gather(*self._leaving.values())
            await self._check_kept(number, kept)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._parts.fatal(error)
            return
        if number == self._round:
            self._may_step.set()

    def _begin(self, partition: Partition) -> None:
        """Own a partition, and recover it in the background."""
        self._owned[partition.number] = partition
        leaving = self._leaving.get(partition.number)
        partition.recovery = asyncio.create_task(
            self._recover(partition, leaving), name=f"recover {partition.number}"
        )

    async def _check_kept(self, number: int, kept: list[Partition]) -> None:
        """Go on with what is still this worker's, and begin anew with what was not."""
        if not kept:
            return
        await self._claims.sync()
        for partition in kept:
            if number != self._round or self._owned.get(partition.number) is not partition:
                continue
            if self._holds(partition):
                if partition.recovery is not None and partition.recovery.done():
                    await self._open(partition)
            else:
                where = {"partition": partition.number}
                log.warning(
                    "partition %d was another worker's meanwhile", partition.number, extra=where
                )
                self._leave(partition)
                self._begin(Partition(partition.number, parked=partition.parked))

    def _holds(self, partition: Partition) -> bool:
        """Whether nobody has claimed the partition since, nor writes in its place."""
        claimed = self._claims.holds(partition.number, partition.epoch)
        return claimed and not self._steps.broken(partition.number)

    def _broken(self, number: int) -> None:
        partition = self._owned.get(number)
        if partition is not None and partition.live:
            task = asyncio.create_task(self._begin_anew(partition), name=f"anew {number}")
            self._anew.add(task)
            task.add_done_callback(self._anew.discard)

    async def _begin_anew(self, partition: Partition) -> None:
        """Recover a partition that the group leaves here and that nothing more can be written
        for. What was not settled is routed again: its sessions know what they applied."""
        number = partition.number
        try:
            await self._claims.sync()
        except FlashfeedError as error:
            self._parts.fatal(error)
            return
        ours = self._owned.get(number) is partition and partition.live
        if not (ours and self._claims.holds(number, partition.epoch)):
            return  # another worker claimed it, or a rebalance is under way: the group says
        where = {"partition": number}
        log.warning("partition %d is begun anew: its writes broke off", number, extra=where)
        self._leave(partition)
        self._begin(Partition(number, parked=partition.unsettled()))

    def pause(self) -> None:
        """A rebalance began: finish the steps under way, and begin no other."""
        self._round += 1
        self._may_step.clear()

    async def drain(self, most_s: float) -> None:
        """Pause, and wait for the steps under way, so long at most. One that takes longer goes
        on where its partition stays here; else it is abandoned, and the next owner's to do."""
        self.pause()
        await asyncio.gather(*(owner.rest(most_s) for owner in self.owners() if owner.busy))

    async def stop(self) -> None:
        """Let go of everything, for good; returns when snapshots are saved and nothing is
        written any more."""
        self._ends = True
        self.pause()
        for number in list(self._owned):
            self._leave(self._owned.pop(number))
        if self._leaving:  # not `gather`: who waits no longer does not cut them off
            await asyncio.wait(self._leaving.values())

    def _leave(self, partition: Partition) -> None:
        """Let go of a partition: it applies nothing more. The engine saves the sessions and
        forgets them in the background; the partition's next recovery waits for that."""
        for owner in partition.sessions.values():
            owner.cancel()
        number = partition.number
        before = self._leaving.get(number)
        self._leaving[number] = asyncio.create_task(
            self._let_go(partition, before), name=f"let {number} go"
        )

    async def _let_go(self, partition: Partition, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        if partition.recovery is not None:
            partition.recovery.cancel()
            await asyncio.gather(partition.recovery, return_exceptions=True)
        closing = [owner.stop() for owner in partition.sessions.values()]
        closing.append(self._steps.close(partition.number))
        for error in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(error, Exception):  # the engine has stopped, or the brokers are away
                where = {"partition": partition.number}
                log.warning("partition %d: %s", partition.number, error, extra=where)
        for listener in self._on_revoked:
            listener(partition.number)

    async def _recover(self, partition: Partition, leaving: asyncio.Task[None] | None) -> None:
        began = time.monotonic()
        try:
            if leaving is not None:
                await asyncio.shield(leaving)
            partition.epoch = await self._claims.claim(partition.number)
            await self._steps.open(partition.number)  # nobody else writes from here on
            read = await read_partition(
                self._kafka, self._changelog, partition.number, self._writer
            )
            # The engine decodes a window at its first use, and the rest in this order:
            # who had traffic last comes first.
            states = [state async for state in _at_leisure(read.each_state())]
            partition.graves = Graves(read.graves.values())
            read.slots.clear()
            states.sort(key=lambda state: -state.head.evaluated_ms)
            await self._set_aside(partition.number, read, states)
            # Registered before anything is awaited, so that a revocation stops them.
            owners = [partition.add(state.head.session_id, self._parts) for state in states]
            for owner, state in zip(owners, states, strict=True):
                await owner.rebuild(state)
            where = {"partition": partition.number}
            for owner in owners:
                owner.start()
            await self._open(partition)
            await self._claims.open(partition.number, partition.epoch)
            self._parts.metrics.took_over(time.monotonic() - began)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._parts.fatal(error)
            return
        log.info(
            "partition %d is live with %d sessions", partition.number, len(partition.sessions),
            extra=where,
        )  # fmt: skip

    async def _set_aside(self, number: int, read: SlotsRead, states: list[SessionState]) -> None:
        """What of the changelog cannot be used is told, and kept as dead letters; what it was of
        is failed for good. Where a crash comes between, the next owner does it again."""
        letters = read.letters(self._changelog, number)
        repairs = read.repairs(self._changelog, number, states)
        for session, why in read.quarantined.items():
            log.error(
                "session %s is set aside, its changelog cannot be used: %s. Nothing of it is "
                "applied until it is deleted", session, why,
                extra={"partition": number, "session": session},
            )  # fmt: skip
            self._parts.metrics.session_failed(ChangelogCorrupt.reason)
        for letter in letters:
            log.error("not a changelog entry, kept as a dead letter: %s, key %r: %s",
                      self._changelog, letter.key, letter.detail,
                      extra={"partition": number, "offset": letter.offset})  # fmt: skip
        if letters or repairs:
            kept = [letter.write(self._dead_letters) for letter in letters]
            await self._steps.publish(number, kept, repairs, [])
            self._parts.metrics.dead_letters(letters)

    async def _open(self, partition: Partition) -> None:
        """Let batches through: first those that were parked, in their order."""
        while partition.parked:
            batch, acknowledge = partition.parked.pop(0)
            await self._route(partition, batch, acknowledge)
        partition.live = True

    # -- batches ------------------------------------------------------------------

    async def take(self, batch: Batch, acknowledge: Acknowledge) -> None:
        """Hand a batch's messages to their sessions; returns before they are applied."""
        partition = self._owned.get(batch.partition)
        if partition is None:
            return  # revoked while it was on its way: the next owner reads it again
        if partition.live:
            await self._route(partition, batch, acknowledge)
        else:  # others do not wait for it; the transport bounds how many there are
            partition.park(batch, acknowledge)

    async def _route(self, partition: Partition, batch: Batch, acknowledge: Acknowledge) -> None:
        routed, letters = read_batch(batch)
        if letters:
            await self._writer.write([letter.write(self._dead_letters) for letter in letters])
            self._parts.metrics.dead_letters(letters)
            if self._owned.get(partition.number) is not partition:  # begun anew meanwhile
                await self.take(batch, acknowledge)
                return
        partition.hand_out(batch, acknowledge, routed, self._parts)

    def on_settled(self, listener: Settled) -> None:
        """Call `listener(partition, offset, error)` when a message is settled."""
        self._on_settled.append(listener)

    def on_revoked(self, listener: Revoked) -> None:
        """Call `listener(partition)` when a partition is another worker's."""
        self._on_revoked.append(listener)

    def _settled(self, number: int, offset: int, error: FlashfeedError | None) -> None:
        partition = self._owned.get(number)
        if partition is not None:
            partition.settled(offset)
        for listener in self._on_settled:
            listener(number, offset, error)

    # -- looking ------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether partitions are owned and all of them are live."""
        return bool(self._owned) and all(one.live for one in self._owned.values())

    @property
    def numbers(self) -> list[int]:
        """The owned partitions."""
        return sorted(self._owned)

    def states(self) -> dict[str, int]:
        """How many owned partitions are live, and how many recovering."""
        live = sum(one.live for one in self._owned.values())
        return {"live": live, "recovering": len(self._owned) - live}

    def live(self) -> list[SessionOwner]:
        """Every live session's owner."""
        return [
            owner
            for partition in self._owned.values()
            for owner in partition.sessions.values()
            if owner.state is not None
        ]

    def owners(self) -> list[SessionOwner]:
        """Every session's owner, of those too that are being made."""
        return [one for partition in self._owned.values() for one in partition.sessions.values()]

    @property
    def sessions(self) -> int:
        """How many sessions there are at most: those too that are being made or are gone."""
        return sum(len(one.sessions) for one in self._owned.values())

    def find(self, number: int, session_id: str) -> SessionOwner | None:
        """The owner of a live session; None where there is none."""
        partition = self._owned.get(number)
        owner = partition.sessions.get(session_id) if partition else None
        return owner if owner is not None and owner.state is not None else None

    def serves(self, number: int, epoch: int) -> bool:
        """Whether the partition is owned and live, by the claim of that epoch."""
        partition = self._owned.get(number)
        return partition is not None and partition.live and partition.epoch == epoch


async def _at_leisure(states: Iterable[SessionState]) -> AsyncIterator[SessionState]:
    """The states; whoever else wants the loop gets it now and then."""
    for number, state in enumerate(states):
        if number % STATES_AT_ONCE == 0:
            await asyncio.sleep(0)
        yield state
