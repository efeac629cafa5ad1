"""A feed: somebody's topics in, packed messages for sessions out.

`read_batch` is pure: a fetched batch becomes session messages, dead letters and
counts. `FeedAgent.take` carries: it writes both and only then is the batch
acknowledged (invariant 1). A feed keeps no state between batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flashfeed.codecs.mapping import Mapping, Source
from flashfeed.codecs.plan import NEXT
from flashfeed.models.errors import DecodeFault
from flashfeed.models.feed import Fault
from flashfeed.models.messages import PackedRecord, Records, encode_message
from flashfeed.models.records import RecordType, record_fields
from flashfeed.models.tenant import session_key

from .dead_letters import DeadLetter
from .kafka_writer import KafkaWriter, Write
from .metrics import Metrics
from .transport import Batch

# One message is one update at the earliest, so this bounds an update's tokens too.
PACK_RECORDS_MAX = 64
SESSION_ID_MAX = 200


@dataclass(frozen=True, slots=True)
class Feed:
    """A feed, ready to read: its decoder, compiled mapping and session names. `tenant` is
    its template's: whose sessions it feeds."""

    name: str
    template: str
    type: RecordType
    decode: Callable[[bytes | None], Any]
    mapping: Mapping
    session_id: Callable[[str], str]
    tenant: str = ""


@dataclass(slots=True)
class ReadBatch:
    """What a batch gave: messages by session in order, dead letters, and counts."""

    messages: list[tuple[str, Records]] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    records: int = 0
    skipped: int = 0


def read_batch(batch: Batch, feed: Feed) -> ReadBatch:
    """Decode, map, validate and pack a batch. Never raises on what a record holds."""
    result = ReadBatch()
    by_session: dict[str, list[PackedRecord]] = {}
    for raw in batch.records:
        source = Source(
            key=raw.key,
            topic=raw.topic,
            timestamp_ms=raw.timestamp,
            headers=raw.headers,
        )
        try:
            value = feed.decode(raw.value)
        except DecodeFault as fault:
            result.dead_letters.append(
                _letter(raw, feed, Fault(fault.reason, fault.path, str(fault)))
            )
            continue
        if value is None:  # a tombstone
            result.skipped += 1
            continue
        mapped = feed.mapping(value, source)
        result.skipped += mapped.skipped
        result.dead_letters += [_letter(raw, feed, fault) for fault in mapped.faults]
        for one in mapped.records:
            session = feed.session_id(one.key)
            if not 0 < len(session) <= SESSION_ID_MAX or not session.isprintable():
                detail = (
                    f"expected a session id of 1 to {SESSION_ID_MAX} printable characters, "
                    f"got {session[:50]!r}"
                )
                result.dead_letters.append(
                    _letter(raw, feed, Fault("map", "$key", detail, one.index))
                )
                continue
            result.records += 1
            by_session.setdefault(session, []).append(
                PackedRecord(
                    int(raw.offset), one.index, raw.timestamp or 0, record_fields(one.record)
                )
            )
    for session, records in by_session.items():
        for at in range(0, len(records), PACK_RECORDS_MAX):
            message = Records(
                type=feed.type,
                records=tuple(records[at : at + PACK_RECORDS_MAX]),
                topic=batch.topic,
                partition=batch.partition,
                template=feed.template,
                may_change=feed.mapping.spec.final == NEXT,
            )
            result.messages.append((session_key(feed.tenant, session), message))
    return result


def _letter(raw: Any, feed: Feed, fault: Fault) -> DeadLetter:
    return DeadLetter(
        topic=raw.topic,
        partition=raw.partition,
        offset=int(raw.offset),
        reason=fault.reason,
        path=fault.path,
        detail=f"{fault.detail} ({raw.topic}[{raw.partition}] offset {raw.offset})",
        key=raw.key,
        value=raw.value,
        headers=raw.headers,
        part=fault.index,
        where=f"feed {feed.name}",
    )


class FeedAgent:
    """Carries a feed's batches to `flashfeed.records` and the dead letters."""

    def __init__(
        self,
        feed: Feed,
        writer: KafkaWriter,
        records_topic: str,
        dead_letter_topic: str,
        metrics: Metrics,
    ) -> None:
        self._feed = feed
        self._writer = writer
        self._records_topic = records_topic
        self._dead_letter_topic = dead_letter_topic
        self._metrics = metrics

    async def take(self, batch: Batch) -> None:
        """Write a batch's messages and dead letters; returns when Kafka has them all."""
        read = read_batch(batch, self._feed)
        await self._writer.write(self._writes(read.messages, read.dead_letters))
        self._metrics.feed_batch(
            self._feed.name, len(batch.records), read.records, read.skipped, read.dead_letters
        )

    def _writes(
        self, messages: Sequence[tuple[str, Records]], letters: Sequence[DeadLetter]
    ) -> list[Write]:
        writes = [letter.write(self._dead_letter_topic) for letter in letters]
        writes += [
            Write(self._records_topic, session.encode(), encode_message(message))
            for session, message in messages
        ]
        return writes
