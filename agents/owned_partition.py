"""One partition of `flashfeed.records` as its owner holds it: its sessions and their batches.

A batch is acknowledged when each of its messages is settled: applied, in the changelog,
answered, published (invariant 1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flashfeed.models.errors import DecodeFault
from flashfeed.models.messages import decode_message

from .dead_letters import DeadLetter, letter_of
from .graves import Graves
from .session_owner import OwnerParts, SessionOwner
from .session_step import Waiting
from .transport import Batch

Acknowledge = Callable[[], Any]
Routed = tuple[str, Waiting]
"""A message, and the session that it is for."""


@dataclass(slots=True)
class _Unsettled:
    """A batch's messages that are not settled yet, and what to call when all are."""

    batch: Batch
    offsets: set[int]
    acknowledge: Acknowledge


@dataclass(slots=True)
class Partition:
    """One owned partition. `epoch` is that of this worker's claim, 0 before it; `parked` are
    batches that came before it was `live`."""

    number: int
    epoch: int = 0
    live: bool = False
    parked: list[tuple[Batch, Acknowledge]] = field(default_factory=list)
    sessions: dict[str, SessionOwner] = field(default_factory=dict)
    graves: Graves = field(default_factory=Graves)
    recovery: asyncio.Task[None] | None = None
    _batches: list[_Unsettled] = field(default_factory=list)
    _routed: int = 0
    _settled_to: int = 0

    def park(self, batch: Batch, acknowledge: Acknowledge) -> None:
        """Keep a batch for later; those that were handed out before a rebalance are read again."""
        parked = [one for one in self.parked if one[0].epoch >= batch.epoch]
        self.parked = [*parked, (batch, acknowledge)]

    def add(self, session_id: str, parts: OwnerParts) -> SessionOwner:
        """A new owner for a session."""
        owner = SessionOwner(session_id, self.number, parts, self.graves)
        self.sessions[session_id] = owner
        return owner

    def hand_out(
        self,
        batch: Batch,
        acknowledge: Acknowledge,
        routed: Sequence[Routed],
        parts: OwnerParts,
    ) -> None:
        """Put a batch's messages to their sessions; it is acknowledged when all are settled."""
        if not routed:
            acknowledge()
            return
        # What was handed out before a rebalance is read again, and acknowledged then.
        self._batches = [one for one in self._batches if one.batch.epoch >= batch.epoch]
        self._batches.append(_Unsettled(batch, {one.offset for _, one in routed}, acknowledge))
        self._forget_gone(len(routed))
        for session_id, one in routed:
            owner = self.sessions.get(session_id)
            if owner is None or owner.gone:
                owner = self.add(session_id, parts)
                owner.start()
            owner.put(one)

    def settled(self, offset: int) -> None:
        """A message is settled: acknowledge the batches of which it was the last."""
        for batch in self._batches:
            batch.offsets.discard(offset)
        for batch in [one for one in self._batches if not one.offsets]:
            self._batches.remove(batch)
            self._settled_to = max(self._settled_to, batch.batch.last + 1)
            batch.acknowledge()
        first = min((one.batch.first for one in self._batches), default=self._settled_to)
        self.graves.settled(min(first, self._settled_to))

    def unsettled(self) -> list[tuple[Batch, Acknowledge]]:
        """The batches of which a message is not settled."""
        return [(one.batch, one.acknowledge) for one in self._batches]

    def _forget_gone(self, routed: int) -> None:
        """Look through the sessions once in as many messages as there are sessions: a message
        costs the same however many rest (invariant 4)."""
        self._routed += routed
        if self._routed < len(self.sessions):
            return
        self._routed = 0
        gone = [key for key, owner in self.sessions.items() if owner.gone]
        for session_id in gone:
            del self.sessions[session_id]


def read_batch(batch: Batch) -> tuple[list[Routed], list[DeadLetter]]:
    """A batch's messages for their sessions, and what is none. Pure."""
    routed: list[Routed] = []
    letters: list[DeadLetter] = []
    for raw in batch.records:
        try:
            message = decode_message(raw.value)
            one = Waiting(int(raw.offset), message, len(raw.value or b""), raw.timestamp or 0)
            routed.append((_session_of(raw.key), one))
        except DecodeFault as fault:
            letters.append(letter_of(raw, fault, "session message"))
    return routed, letters


def _session_of(key: bytes | None) -> str:
    if not key:
        raise DecodeFault("expected a session id as the key, got none", "$key")
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise DecodeFault(f"expected a session id in UTF-8: {error}", "$key") from None
