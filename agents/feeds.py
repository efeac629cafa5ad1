"""A feed: somebody's topics in, packed messages for sessions out.

`read_batch` is pure: a fetched batch becomes session messages, dead letters and
counts. `FeedAgent.take` carries: it writes both and only then is the batch
acknowledged (invariant 1), and the next is written: behind a write that may be lost nothing
goes out. A feed keeps no state between batches; a partition whose
messages want a schema or a birth first is paused (paused.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from flashfeed.codecs.codec import Codec, Wanted
from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.plan import NEXT
from flashfeed.models.errors import DecodeFault
from flashfeed.models.feed import Fault
from flashfeed.models.messages import PackedRecord, Records, encode_message
from flashfeed.models.records import RecordType
from flashfeed.models.tenant import session_key

from .dead_letters import DeadLetter
from .kafka_writer import KafkaWriter, Write
from .metrics import Metrics
from .paused import Acknowledge, PausedPartitions, Place
from .supplies import Supplies
from .transport import Batch, source_of

if TYPE_CHECKING:
    from .tracing import Tracing

# A message is answered as one, so it must not take longer than a step may (step_size.py). Smaller
# ones hardly cost more: 4% of bytes against 64 in one, and about 1 us a record to read and write.
PACK_RECORDS_MAX = 16
SESSION_ID_MAX = 200


@dataclass(frozen=True, slots=True)
class Feed:
    """A feed, ready to read: its codec, compiled mapping and session names, and which of
    them it may feed. `tenant` is its template's: whose sessions it feeds."""

    name: str
    template: str
    type: RecordType
    codec: Codec
    mapping: Mapping
    session_id: Callable[[str], str]
    tenant: str = ""
    admits: Callable[[str], bool] = lambda _session: True


class FeedTopics(NamedTuple):
    """Where a feed writes."""

    records: str
    dead_letters: str


@dataclass(slots=True)
class ReadBatch:
    """What a batch gave: messages by session in order, dead letters, and counts."""

    messages: list[tuple[str, Records]] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    records: int = 0
    skipped: int = 0


def read_batch(batch: Batch, feed: Feed) -> ReadBatch:
    """Decode, map, validate and pack a batch. Never raises on what a record holds, but a
    Wanted where the codec first needs something: then the batch is to be read again."""
    result = ReadBatch()
    decode, parts = feed.codec, feed.mapping.parts
    letters = result.dead_letters
    packs = _Packs(feed)
    for raw in batch.records:
        source = source_of(raw)
        try:
            values = decode(raw.value, source)
        except DecodeFault as fault:
            letters.append(_letter(raw, feed, _fault(fault, None)))
            continue
        # Counts the parts of all values: a record's place in its message.
        place = 0
        for value in values:
            if isinstance(value, DecodeFault):
                letters.append(_letter(raw, feed, _fault(value, place)))
                place += 1
                continue
            first = place
            for outcome in parts(value, source):
                if isinstance(outcome, tuple):
                    key, fields = outcome
                    pack = packs[key]
                    if isinstance(pack, Fault):
                        letters.append(_letter(raw, feed, pack, place))
                    else:
                        pack.append(PackedRecord(raw.offset, place, raw.timestamp or 0, fields))
                elif outcome is None:
                    result.skipped += 1
                else:
                    letters.append(_letter(raw, feed, outcome, first))
                place += 1
        if not place:  # a tombstone, or nothing in it that is a measurement
            result.skipped += 1
    for session, records in packs.by_session.items():
        result.records += len(records)
        for at in range(0, len(records), PACK_RECORDS_MAX):
            message = Records(
                type=feed.type,
                records=tuple(records[at : at + PACK_RECORDS_MAX]),
                topic=batch.topic,
                partition=batch.partition,
                template=feed.template,
                feed=feed.name,
                may_change=feed.mapping.spec.final == NEXT,
            )
            result.messages.append((session_key(feed.tenant, session), message))
    return result


class _Packs(dict[str, list[PackedRecord] | Fault]):
    """A batch's records: `packs[key]` is the list of the key's session, or the reason why
    the feed may not feed it."""

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed
        self.by_session: dict[str, list[PackedRecord]] = {}

    def __missing__(self, key: str) -> list[PackedRecord] | Fault:
        session = self._feed.session_id(key)
        pack = self.by_session.get(session) or _refusal(session, self._feed)
        if pack is None:
            pack = self.by_session[session] = []
        self[key] = pack
        return pack


def _refusal(session: str, feed: Feed) -> Fault | None:
    """Why the feed may not feed a session of that id, as a part's fault; None where it may."""
    if not 0 < len(session) <= SESSION_ID_MAX or not session.isprintable():
        detail = (
            f"expected a session id of 1 to {SESSION_ID_MAX} printable characters, "
            f"got {session[:50]!r}"
        )
        return Fault("map", "$key", detail, 0)
    if not feed.admits(session):
        detail = f"feeds.{feed.name} has allow or deny, which leave session {session!r} out"
        return Fault("session_denied", "$key", detail, 0)
    return None


def _fault(fault: DecodeFault, index: int | None) -> Fault:
    return Fault(fault.reason, fault.path, str(fault), index)


def _letter(raw: Any, feed: Feed, fault: Fault, first: int = 0) -> DeadLetter:
    """The letter of a fault in one value of a message, whose parts count from `first`."""
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
        part=None if fault.index is None else first + fault.index,
        where=f"feed {feed.name}",
        timestamp_ms=raw.timestamp or 0,
        feed=feed.name,
    )


class FeedAgent:
    """Carries a feed's batches to `flashfeed.records` and the dead letters. `tracing`: None
    where nothing is followed."""

    def __init__(
        self,
        feed: Feed,
        writer: KafkaWriter,
        supplies: Supplies,
        topics: FeedTopics,
        metrics: Metrics,
        fatal: Callable[[BaseException], None],
        tracing: Tracing | None = None,
    ) -> None:
        self._feed = feed
        self._tracing = tracing
        self._writer = writer
        self._supplies = supplies
        self._topics = topics
        self._metrics = metrics
        self._paused = PausedPartitions(
            self._carry,
            supplies.bring,
            lambda batch: supplies.look_ahead(feed.codec, batch),
            fatal,
            metrics,
        )

    async def take(self, batch: Batch, acknowledge: Acknowledge) -> None:
        """Write a batch's messages and dead letters, then acknowledge it. Returns at once
        where the batch has to wait: it is acknowledged later, in its partition's order."""
        if self._paused.park(batch, acknowledge):
            return
        try:
            await self._carry(batch)
        except Wanted as wanted:
            self._paused.pause(batch, acknowledge, wanted)
            return
        acknowledge()

    async def revoke(self, places: Iterable[Place]) -> None:
        """These partitions are another worker's now."""
        await self._paused.revoke(places)

    async def stop(self) -> None:
        """Forget what waits; it is read again from its commit."""
        await self._paused.stop()

    async def _carry(self, batch: Batch) -> None:
        self._supplies.begin()
        trace = self._tracing.feed(self._feed.name, batch) if self._tracing is not None else None
        read = read_batch(batch, self._feed)
        if trace is not None:
            trace.carry(read)
        births = self._supplies.writes()
        writes = births + self._writes(read.messages, read.dead_letters)
        written = await self._writer.write(writes)
        if trace is not None:
            trace.written(read, written[len(writes) - len(read.messages) :])
        self._supplies.written(births)
        self._metrics.feed_batch(
            self._feed.name, len(batch.records), read.records, read.skipped, read.dead_letters
        )

    def _writes(
        self, messages: Sequence[tuple[str, Records]], letters: Sequence[DeadLetter]
    ) -> list[Write]:
        writes = [letter.write(self._topics.dead_letters) for letter in letters]
        writes += [
            Write(self._topics.records, session.encode(), encode_message(message))
            for session, message in messages
        ]
        return writes
