"""A session's answers that wait for their labels, and those that have one.

Each question keeps its newest PENDING_MAX answers, in as many slots of the changelog: slot
`p<question>.<data version modulo PENDING_MAX>`. A slot with a label stays, without what was
learnt from, so that a label is applied once (invariant 2). Slots are written in their step's
transaction; without transactions before its entry, and those beyond the entry's version are
not there (session_learning.py has why nothing is lost so).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from flashfeed.models.events import event_id
from flashfeed.models.learning import Waits
from flashfeed.models.state import Head

from .kafka_writer import Write

PENDING_MAX: Final = 1024
MARK: Final = "p"
UNLABELLED: Final = -1
UNKNOWN: Final = -2


@dataclass(slots=True)
class PendingAnswers:
    """The answers of one session's questions, by question and data version, oldest first."""

    waiting: dict[int, dict[int, Waits]] = field(default_factory=dict)
    labelled: dict[int, dict[int, Waits]] = field(default_factory=dict)

    @classmethod
    def restored(cls, head: Head, slots: Iterable[Waits]) -> PendingAnswers:
        """Those of the session's life up to the head's version."""
        one = cls()
        for waits in sorted(slots, key=lambda waits: waits.version):
            if waits.life == head.first_offset and waits.version <= head.version:
                one.put(waits)
        return one

    def put(self, waits: Waits) -> None:
        """An answer that waits, or one that has its label now."""
        query, version = waits.query_id, waits.version
        waiting = self.waiting.setdefault(query, {})
        labelled = self.labelled.setdefault(query, {})
        if waits.label == UNLABELLED:
            waiting[version] = waits
            for kept in (waiting, labelled):  # whose slot it is now
                kept.pop(version - PENDING_MAX, None)
        else:
            waiting.pop(version, None)
            labelled.pop(version - PENDING_MAX, None)
            labelled[version] = waits

    def open_to(self, query_id: int, version: int) -> Waits | None:
        """The answer, where a label that is sent can still be learnt from: it waits, or its rule
        could not know."""
        waits = self.waiting.get(query_id, {}).get(version)
        known = self.labelled.get(query_id, {}).get(version)
        if waits is None and known is not None and known.label == UNKNOWN and known.features:
            return known
        return waits

    def drop(self, query_id: int) -> None:
        """The question is gone."""
        self.waiting.pop(query_id, None)
        self.labelled.pop(query_id, None)

    def version_of(self, session_id: str, query_id: int, event: str) -> int:
        """The data version of the answer with that event id; 0 where it is not kept."""
        for kept in (self.waiting, self.labelled):
            for one in kept.get(query_id, {}).values():
                if event_id(session_id, one.version, query_id, one.offset) == event:
                    return one.version
        return 0

    def slots(self, query_id: int | None = None) -> list[str]:
        """The slots that are in use, of one question or of all."""
        return [
            slot_of(one)
            for kept in (self.waiting, self.labelled)
            for query, answers in kept.items()
            if query_id in (None, query)
            for one in answers.values()
        ]


def slot_of(waits: Waits) -> str:
    """The changelog slot of an answer."""
    return f"{MARK}{waits.query_id}.{waits.version % PENDING_MAX}"


def slot_writes(
    topic: str, partition: int, session_id: str, changes: Iterable[Waits]
) -> list[Write]:
    """The changed slots as changelog messages."""
    return [
        Write(topic, _key(session_id, slot_of(one)), msgspec.json.encode(one), partition=partition)
        for one in changes
    ]


def slot_tombstones(
    topic: str, partition: int, session_id: str, slots: Sequence[str]
) -> list[Write]:
    """What erases slots."""
    return [Write(topic, _key(session_id, slot), None, partition=partition) for slot in slots]


def decode_slot(value: bytes) -> Waits:
    """The answer in a changelog value; raises msgspec.DecodeError."""
    return _decoder.decode(value)


_decoder = msgspec.json.Decoder(Waits)


def _key(session_id: str, slot: str) -> bytes:
    return f"{session_id}/{slot}".encode()
