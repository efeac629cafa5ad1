"""The changelog: what a new owner needs of a session, and how it reads it.

A compacted topic of our own, partitioned as `flashfeed.records`. One message for each
applied step, key `session/slot`; models/state.py says which slot, and why what a slot
overwrites is needed no more. Beside them the slots of answers that wait for their labels
(session_pending.py). A deleted session's slots become tombstones. Recovery reads
from the beginning to a barrier (barrier.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import FlashfeedError, Unavailable
from flashfeed.models.learning import Waits
from flashfeed.models.state import (
    HEAD_SLOT,
    Entry,
    Head,
    Item,
    decode_entry,
    encode_entry,
    entry_key,
    entry_slot,
    used_slots,
)

from .barrier import SILENCE_MAX_S, barrier_write, is_barrier
from .connection import client_settings, stop_consumer
from .kafka_writer import KafkaWriter, Write
from .session_pending import MARK, PendingAnswers, decode_slot
from .session_step import SessionState

log = logging.getLogger(__name__)


class Slot(NamedTuple):
    """What a slot holds. Its head is decoded when it turns out to be the newest: a
    session has many slots, and each says all of its head again."""

    life: int
    steps: int
    written: int
    items: tuple[Item, ...]
    value: bytes


@dataclass(slots=True)
class SlotsRead:
    """The newest value of every slot of a partition, as far as it was read. Pure."""

    slots: dict[str, dict[int, Slot]] = field(default_factory=dict)
    pending: dict[str, dict[str, Waits]] = field(default_factory=dict)
    corrupt: list[str] = field(default_factory=list)

    def take(self, key: bytes, value: bytes | None) -> None:
        """Note one changelog message; a corrupt one is quarantined by name."""
        session, _, slot = key.decode(errors="replace").rpartition("/")
        try:
            if slot.startswith(MARK):
                self._take_pending(session, slot, value)
            elif value is None:
                self.slots.get(session, {}).pop(int(slot), None)
            else:
                entry = decode_entry(value)
                head = entry.head
                self.slots.setdefault(session, {})[int(slot)] = Slot(
                    head.first_offset, head.steps, head.written, entry.items, value
                )
        except (ValueError, msgspec.DecodeError, msgspec.ValidationError) as error:
            self.corrupt.append(f"{key!r}: {error}")

    def _take_pending(self, session: str, slot: str, value: bytes | None) -> None:
        if value is None:
            self.pending.get(session, {}).pop(slot, None)
        else:
            self.pending.setdefault(session, {})[slot] = decode_slot(value)

    def states(self) -> list[SessionState]:
        """Every session that the slots give, whole. One with a hole in its window is left
        out and named in `corrupt`: its records cannot be trusted to be all there."""
        found: list[SessionState] = []
        for session, slots in self.slots.items():
            if not slots:
                continue
            newest = max(slots.values(), key=lambda slot: (slot.life, slot.steps))
            head = decode_entry(newest.value).head
            # A delete that a crash cut short leaves slots of an earlier life behind.
            items = window_items(
                head, [slot for slot in slots.values() if slot.life == newest.life]
            )
            if len(items) != head.items:
                missing = f"{head.items} items in the window, {len(items)} found without a gap"
                self.corrupt.append(f"{session}: {missing}")
                continue
            try:
                waits = self.pending.get(session, {}).values()
                pending = PendingAnswers.restored(head, waits)
                found.append(SessionState.restored(head, items, pending))
            except FlashfeedError as error:
                # Not the error's words: they may have a record's values in them.
                at = getattr(error, "path", "")
                what = f"a record of its window is no {head.spec.type} now"
                self.corrupt.append(f"{session}: {what}{at and f', at {at}'} ({error.reason})")
        return found


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


async def read_partition(
    kafka: KafkaConfig, topic: str, partition: int, writer: KafkaWriter
) -> SlotsRead:
    """Everything in a changelog partition up to now.

    Raises Unavailable where the broker stays silent before the barrier came back.
    """
    barrier = barrier_write(topic, partition)
    await writer.write([barrier])
    consumer = AIOKafkaConsumer(
        enable_auto_commit=False, isolation_level="read_committed", **client_settings(kafka)
    )
    read = SlotsRead()
    place = TopicPartition(topic, partition)
    try:
        await consumer.start()
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        while True:
            fetched = await consumer.getmany(place, timeout_ms=int(SILENCE_MAX_S * 1000))
            if not fetched:
                raise Unavailable(
                    f"{topic}[{partition}]: the barrier did not come back in {SILENCE_MAX_S} s"
                )
            for record in fetched[place]:
                if record.key == barrier.key:
                    return read
                if not is_barrier(record.key):
                    read.take(record.key, record.value)
    finally:
        await stop_consumer(consumer)
