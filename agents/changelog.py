"""The changelog: what a new owner needs of a session, and how it reads it.

A compacted topic of our own, partitioned as `flashfeed.records`. One message for each
applied step, key `session/slot`; models/state.py says which slot, and why what a slot
overwrites is needed no more. Beside them the slots of answers that wait for their labels
(session_pending.py). A deleted session's slots become tombstones; its grave stays a while
(graves.py). Recovery reads
from the beginning to a barrier (barrier.py).

What cannot be read costs its session alone: it is set aside (failed, and kept so in the
changelog), and the bytes become a dead letter. It is never begun anew by itself: its history
would begin in the middle. Who deletes it has it made anew.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from flashfeed.models.assembly import Assembly
from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import ChangelogCorrupt, FlashfeedError
from flashfeed.models.learning import Waits
from flashfeed.models.session import SessionSpec, WindowSpec
from flashfeed.models.state import (
    GRAVE_SLOT,
    HEAD_SLOT,
    QUARANTINED,
    Entry,
    Grave,
    Head,
    Item,
    decode_entry,
    decode_grave,
    encode_entry,
    entry_key,
    entry_slot,
    grave_key,
    used_slots,
)

from .barrier import read_back
from .dead_letters import DeadLetter
from .kafka_writer import KafkaWriter, Write
from .session_pending import MARK, PendingAnswers, decode_slot
from .session_step import SessionState

log = logging.getLogger(__name__)

# Of a session of which nothing can be read. It has no ring: nothing is said of slots.
_NOT_KNOWN = SessionSpec(type="event", window=WindowSpec(mode="grow"))


class Slot(NamedTuple):
    """What a slot holds, but its head: each says all of it again, and the newest counts."""

    life: int
    steps: int
    written: int
    items: tuple[Item, ...]


class Newest(NamedTuple):
    """The newest entry of a session that could be read, encoded."""

    life: int
    steps: int
    entry: bytes


class BadEntry(NamedTuple):
    """A changelog message that cannot be read: whose it is by its key ("": nobody's), and why
    it cannot."""

    session: str
    offset: int
    key: bytes | None
    value: bytes
    why: str


@dataclass(slots=True)
class SlotsRead:
    """The newest value of every slot of a partition, as far as it was read. Pure.

    `bad` are the newest values of keys that are no entries; `quarantined` says, by session,
    why it was set aside: its newest state cannot be known, and so it takes nothing more."""

    slots: dict[str, dict[int, Slot]] = field(default_factory=dict)
    pending: dict[str, dict[str, Waits]] = field(default_factory=dict)
    graves: dict[str, Grave] = field(default_factory=dict)
    bad: dict[bytes, BadEntry] = field(default_factory=dict)
    quarantined: dict[str, str] = field(default_factory=dict)
    _newest: dict[str, Newest] = field(default_factory=dict)
    _specs: dict[bytes, SessionSpec] = field(default_factory=dict)

    def take(self, key: bytes | None, value: bytes | None, offset: int = -1) -> None:
        """Note one changelog message. One that cannot be read is kept in `bad`, until its key
        is written again."""
        known = key or b""
        self.bad.pop(known, None)
        owner, _, name = known.decode(errors="replace").rpartition("/")
        if owner and name.startswith(MARK):
            self._take_pending(owner, name, known, value, offset)
            return
        if owner and name == GRAVE_SLOT:
            self._take_grave(owner, known, value, offset)
            return
        try:
            session, number = _slot_of(known)
        except ValueError as error:
            if value is not None:
                self.bad[known] = BadEntry("", offset, key, value, f"{error}")
            return
        slots = self.slots.setdefault(session, {})
        slots.pop(number, None)
        if value is None:
            if not slots:
                del self.slots[session]
                self._newest.pop(session, None)
            return
        try:
            entry = decode_entry(value)
            head = entry.head
            if (head.session_id, entry.slot) != (session, number):
                raise ValueError(f"it is of {head.session_id!r}, slot {entry.slot}")
        except (ValueError, msgspec.DecodeError, msgspec.ValidationError) as error:
            self.bad[known] = BadEntry(session, offset, key, value, f"{error}")
            return
        slots[number] = Slot(head.first_offset, head.steps, head.written, entry.items)
        newest = Newest(head.first_offset, head.steps, value)
        before = self._newest.get(session, newest)
        if newest[:2] >= before[:2]:
            self._newest[session] = newest

    def _take_pending(
        self, session: str, slot: str, key: bytes, value: bytes | None, offset: int
    ) -> None:
        """An answer that waits; one that cannot be read is nobody's, and costs no session."""
        answers = self.pending.setdefault(session, {})
        answers.pop(slot, None)
        try:
            if value is not None:
                answers[slot] = decode_slot(value)
        except msgspec.MsgspecError as error:
            assert value is not None
            self.bad[key] = BadEntry("", offset, key, value, f"{error}")
        if not answers:
            del self.pending[session]

    def _take_grave(self, session: str, key: bytes, value: bytes | None, offset: int) -> None:
        """What is left of a deleted session; one that cannot be read is nobody's."""
        self.graves.pop(session, None)
        try:
            if value is not None:
                self.graves[session] = decode_grave(value)
        except msgspec.MsgspecError as error:
            self.bad[key] = BadEntry("", offset, key, value or b"", f"{error}")

    def states(self) -> list[SessionState]:
        """Every session that the slots give, whole."""
        return list(self.each_state())

    def each_state(self) -> Iterator[SessionState]:
        """Every session that the slots give, whole. One whose entries cannot all be read, or
        with a hole in its window, is there as a failed one: what it held cannot be trusted,
        and to begin it anew in silence would lose that too. Sessions with equal specs share
        one, as they did when a template made them."""
        bad: dict[str, BadEntry] = {one.session: one for one in self.bad.values() if one.session}
        for session in {**self.slots, **bad}:
            slots = self.slots.get(session, {})
            if session in bad:
                one = bad[session]
                why = f"entry {one.key!r} at offset {one.offset} cannot be read: {one.why}"
                yield self._quarantine(session, why)
            elif slots:
                yield self._state(session, slots)

    def _state(self, session: str, slots: dict[int, Slot]) -> SessionState:
        newest = self._newest[session]
        head = self._shared(decode_entry(newest.entry).head)
        if head.quarantined:
            return SessionState(head, deque())
        # A delete that a crash cut short leaves slots of an earlier life behind.
        items = window_items(head, [slot for slot in slots.values() if slot.life == newest.life])
        if len(items) != head.items:
            missing = f"{head.items} items in the window, {len(items)} found without a gap"
            return self._quarantine(session, missing)
        try:
            waits = self.pending.get(session, {}).values()
            return SessionState.restored(head, items, PendingAnswers.restored(head, waits))
        except FlashfeedError as error:
            # Not the error's words: they may have a record's values in them.
            at = getattr(error, "path", "")
            what = f"a record of its window is no {head.spec.type} now"
            return self._quarantine(session, f"{what}{at and f', at {at}'} ({error.reason})")

    def _shared(self, head: Head) -> Head:
        spec = self._specs.setdefault(msgspec.json.encode(head.spec), head.spec)
        return msgspec.structs.replace(head, spec=spec)

    def _quarantine(self, session: str, why: str) -> SessionState:
        """The session as failed, with what its newest readable entry says of it."""
        self.quarantined[session] = why
        newest = self._newest.get(session)
        head = decode_entry(newest.entry).head if newest else Head(session, _NOT_KNOWN)
        head = msgspec.structs.replace(
            head,
            failed=f"{QUARANTINED}{why}",
            steps=head.steps + 1,
            answers=(),
            previous={},
            base=head.written,
            count=0,
            items=0,
            records=0,
            tokens=0,
            pending=0,
            assembly=Assembly(),
            ready=None,
        )
        return SessionState(head, deque())

    def repairs(self, topic: str, partition: int, states: Iterable[SessionState]) -> list[Write]:
        """What makes it last: the heads of the sessions that were set aside now, and tombstones
        for what cannot be read. To be written with `letters`, or after them."""
        heads = [one.head for one in states if one.head.session_id in self.quarantined]
        writes = [entry_write(topic, partition, head, ()) for head in heads]
        erased = [one.key for one in self.bad.values() if one.key]
        return writes + [Write(topic, key, None, partition=partition) for key in erased]

    def letters(self, topic: str, partition: int) -> list[DeadLetter]:
        """What cannot be read, as dead letters: its bytes are kept there."""
        return [
            DeadLetter(
                topic=topic,
                partition=partition,
                offset=one.offset,
                reason=ChangelogCorrupt.reason,
                path="$" if one.session else "$key",
                detail=f"{topic}[{partition}] offset {one.offset}: {one.why}",
                key=one.key,
                value=one.value,
                where="changelog",
            )
            for one in self.bad.values()
        ]


def _slot_of(key: bytes) -> tuple[str, int]:
    """The session and slot of a key; raises ValueError."""
    session, _, slot = key.decode().rpartition("/")
    if not session:
        raise ValueError("expected a key session/slot")
    return session, int(slot)


def window_items(head: Head, slots: Iterable[Slot]) -> list[Item]:
    """The head's window from its life's slots, oldest item first: fewer where one is
    missing.

    Walked from the newest slot back: a slot's items end at its `written`. The last one
    needed may reach back beyond the window; only its end is taken. What a later slot has
    written again is not taken from an earlier one."""
    newest_first: list[Item] = []
    expected = head.written
    for slot in sorted(slots, key=lambda slot: -slot.steps):
        missing = head.items - len(newest_first)
        if not missing:
            break
        if not slot.items:
            continue
        if slot.written < expected:
            break
        items = slot.items[: max(0, len(slot.items) - (slot.written - expected))]
        newest_first += reversed(items[-missing:])
        expected -= len(items)
    return newest_first[::-1]


def entry_write(topic: str, partition: int, head: Head, items: Sequence[Item]) -> Write:
    """A step's changelog message; of its items those that the window still holds."""
    slot = entry_slot(head) if items else HEAD_SLOT
    kept = tuple(items[max(0, len(items) - head.items) :])
    value = encode_entry(Entry(slot=slot, head=head, items=kept))
    return Write(topic, entry_key(head.session_id, slot), value, partition=partition)


def tombstones(topic: str, partition: int, head: Head) -> list[Write]:
    """What erases a session from the changelog: every slot that it ever wrote."""
    return [
        Write(topic, entry_key(head.session_id, slot), None, partition=partition)
        for slot in used_slots(head)
    ]


def grave_write(topic: str, partition: int, grave: Grave) -> Write:
    """A deleted session's changelog message."""
    key = grave_key(grave.session_id)
    return Write(topic, key, msgspec.json.encode(grave), partition=partition)


async def read_partition(
    kafka: KafkaConfig, topic: str, partition: int, writer: KafkaWriter
) -> SlotsRead:
    """Everything in a changelog partition up to now.

    Raises Unavailable where the broker stays silent before the barrier came back.
    """
    read = SlotsRead()
    async with aclosing(read_back(kafka, topic, partition, writer)) as records:
        async for record in records:
            read.take(record.key, record.value, record.offset)
    return read
