"""The changelog: what a new owner needs of a session, and how it reads it.

A compacted topic of our own, partitioned as `flashfeed.records`. One message for each
applied step, key `session/slot`; models/state.py says which slot, and why what a slot
overwrites is needed no more. A deleted session's slots become tombstones. Recovery reads
from the beginning to a barrier (barrier.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import FlashfeedError, Unavailable
from flashfeed.models.session import SessionSpec
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
from .session_step import SessionState

log = logging.getLogger(__name__)


class Slot(NamedTuple):
    """What a slot holds. `head` is its entry, encoded, where it is the session's newest: a
    session has many slots, each says all of its head again, and one is needed."""

    life: int
    steps: int
    written: int
    items: tuple[Item, ...]
    head: bytes


@dataclass(slots=True)
class SlotsRead:
    """The newest value of every slot of a partition, as far as it was read. Pure."""

    slots: dict[str, dict[int, Slot]] = field(default_factory=dict)
    corrupt: list[str] = field(default_factory=list)
    _newest: dict[str, int] = field(default_factory=dict)
    _specs: dict[bytes, SessionSpec] = field(default_factory=dict)

    def take(self, key: bytes, value: bytes | None) -> None:
        """Note one changelog message; a corrupt one is quarantined by name."""
        session, _, slot = key.decode(errors="replace").rpartition("/")
        try:
            if value is None:
                self._erase(session, int(slot))
            else:
                self._put(session, int(slot), decode_entry(value), value)
        except (ValueError, msgspec.DecodeError, msgspec.ValidationError) as error:
            self.corrupt.append(f"{key!r}: {error}")

    def _put(self, session: str, number: int, entry: Entry, value: bytes) -> None:
        head, slots = entry.head, self.slots.setdefault(session, {})
        before = slots.get(self._newest.get(session, number))
        if before is None or (head.first_offset, head.steps) >= before[:2]:
            if before is not None:
                slots[self._newest[session]] = before._replace(head=b"")
            self._newest[session] = number
        else:  # never written in this order: each entry is newer than the one before it
            value = b""
        slots[number] = Slot(head.first_offset, head.steps, head.written, entry.items, value)

    def _erase(self, session: str, number: int) -> None:
        slots = self.slots.get(session, {})
        slots.pop(number, None)
        if not slots:
            self.slots.pop(session, None)
            self._newest.pop(session, None)

    def states(self) -> list[SessionState]:
        """Every session that the slots give, whole."""
        return list(self.each_state())

    def each_state(self) -> Iterator[SessionState]:
        """Every session that the slots give, whole. One with a hole in its window is left
        out and named in `corrupt`: its records cannot be trusted to be all there. Sessions
        with equal specs share one, as they did when a template made them."""
        for session, slots in self.slots.items():
            newest = max(slots.values(), key=lambda slot: (slot.life, slot.steps))
            if not newest.head:
                self.corrupt.append(f"{session}: it was being deleted, and is not deleted whole")
                continue
            head = self._shared(decode_entry(newest.head).head)
            # A delete that a crash cut short leaves slots of an earlier life behind.
            items = window_items(
                head, [slot for slot in slots.values() if slot.life == newest.life]
            )
            if len(items) != head.items:
                missing = f"{head.items} items in the window, {len(items)} found without a gap"
                self.corrupt.append(f"{session}: {missing}")
                continue
            try:
                state = SessionState.restored(head, items)
            except FlashfeedError as error:
                # Not the error's words: they may have a record's values in them.
                at = getattr(error, "path", "")
                what = f"a record of its window is no {head.spec.type} now"
                self.corrupt.append(f"{session}: {what}{at and f', at {at}'} ({error.reason})")
            else:
                yield state

    def _shared(self, head: Head) -> Head:
        spec = self._specs.setdefault(msgspec.json.encode(head.spec), head.spec)
        return msgspec.structs.replace(head, spec=spec)


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
