"""Dead letters become session messages again, by the feeds as they are configured now.

A feed's letter holds the original message, which is decoded and mapped anew; of its parts
those are taken that were at fault. A session's letter holds the record as it was mapped. Each
part is a message of its own, which keeps the original's origin; what fails again is a dead
letter again, which counts its replays. What is read here is fixed before the first write, so
a replay never meets its own letters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from flashfeed.models.messages import PackedRecord, Records

from .dead_letters import DeadLetter
from .feeds import Feed
from .letter_history import Position
from .letters import Letter, Place
from .past_feed import read_supplied
from .supplies import Supplies
from .transport import Batch

BATCH_LETTERS_MAX: Final = 500

PUSHED: Final = "pushed over HTTP, or written to control: it has no origin; send it again"
NO_FEED: Final = "no feed of this configuration reads its topic"
CUT: Final = "cut to fit Kafka, and its origin does not hold the same any more"
SKIPPED: Final = "the feed skips it now, by rule"
OF_CHANGELOG: Final = "an entry of the changelog: its session is set aside; delete it to begin anew"
NO_MESSAGE: Final = "not a message of a session, and no feed made it"


class Ready(NamedTuple):
    """A record that can go to its session again."""

    position: Position
    message: Records


@dataclass(slots=True)
class Rebuilt:
    """What letters gave: records, those that fail again, and why others cannot be replayed."""

    ready: list[Ready] = field(default_factory=list)
    failed: list[DeadLetter] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


class _Raw(NamedTuple):
    """A letter's original, as its feed would fetch it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class _Asked(NamedTuple):
    """What is wanted of one source message: these parts (None: all), as which replay."""

    parts: frozenset[int] | None
    replays: int


def obstacle(letter: Letter, feed: Feed | None) -> str:
    """Why the letter cannot be replayed; "" where it can."""
    if not letter.topic or letter.where == "control":
        return PUSHED
    if letter.from_session:  # of what was mapped, its origin says nothing
        return CUT if letter.cut else ""
    if letter.where == "changelog":
        return OF_CHANGELOG
    if letter.where.startswith("session"):
        return NO_MESSAGE
    if feed is None:
        return NO_FEED
    return CUT if letter.cut else ""


async def rebuild(
    letters: Iterable[Letter], feed_of: Callable[[Letter], Feed | None], supplies: Supplies
) -> Rebuilt:
    """Decode, map and validate letters again. Raises Unavailable where what a codec needs
    cannot be had."""
    result = Rebuilt()
    by_feed: dict[tuple[str, str, int], tuple[Feed, list[Letter]]] = {}
    for letter in letters:
        feed = feed_of(letter)
        why = obstacle(letter, feed)
        if why:
            result.skipped[why] += 1
        elif letter.from_session:
            result.ready.append(_from_session(letter, feed))
        else:
            assert feed is not None
            where = (feed.name, letter.topic, letter.partition)
            by_feed.setdefault(where, (feed, []))[1].append(letter)
    for feed, its in by_feed.values():
        asked = _asked(its)
        originals = {one.place: _raw(one) for one in sorted(its, key=lambda one: one.offset)}
        raws = [*originals.values()]
        for at in range(0, len(raws), BATCH_LETTERS_MAX):
            some = raws[at : at + BATCH_LETTERS_MAX]
            await _reread(feed, some, asked, supplies, result)
    # A part can have a letter of its feed and a newer one of its session: it goes out once.
    newest = {one.position: one for one in sorted(result.ready, key=_by_replays)}
    result.ready = sorted(newest.values(), key=lambda one: one.position)
    return result


def _by_replays(one: Ready) -> int:
    return one.message.replays


def _from_session(letter: Letter, feed: Feed | None) -> Ready:
    assert letter.part is not None
    session = (letter.key or b"").decode()
    replays = letter.replays + 1
    record = PackedRecord(
        letter.offset, letter.part, letter.timestamp_ms, orjson.loads(letter.value or b"{}")
    )
    message = Records(
        type=letter.type,  # type: ignore[arg-type]  # a session refused it under that type
        records=(record,),
        topic=letter.topic,
        partition=letter.partition,
        template=feed.template if feed is not None else letter.template,
        feed=letter.feed,
    )
    position = Position(session, *letter.place, letter.part)
    return Ready(position, _again(message, record, position, replays))


def _again(message: Records, record: PackedRecord, at: Position, replays: int) -> Records:
    """The message with that one record, as a replay that is known again when it is repeated."""
    key = f"letter:{at.topic}/{at.partition}/{at.offset}/{at.part}#{replays}"
    return msgspec.structs.replace(message, records=(record,), idempotency_key=key, replays=replays)


def _asked(letters: Sequence[Letter]) -> Mapping[Place, _Asked]:
    asked: dict[Place, _Asked] = {}
    for one in letters:
        parts = None if one.part is None else frozenset({one.part})
        before = asked.get(one.place)
        if before is not None:
            whole = before.parts is None or parts is None
            parts = None if whole else (before.parts or frozenset()) | (parts or frozenset())
        replays = max(one.replays + 1, before.replays if before is not None else 0)
        asked[one.place] = _Asked(parts, replays)
    return asked


def _raw(letter: Letter) -> _Raw:
    return _Raw(
        *letter.place,
        letter.timestamp_ms or letter.written_ms,
        letter.key,
        letter.value,
        letter.headers,
    )


async def _reread(
    feed: Feed,
    raws: Sequence[_Raw],
    asked: Mapping[Place, _Asked],
    supplies: Supplies,
    result: Rebuilt,
) -> None:
    records: list[Any] = list(raws)
    batch = Batch(raws[0].topic, raws[0].partition, 0, records)
    read = await read_supplied(batch, feed, supplies)
    found: dict[Place, set[int | None]] = {}
    for letter in read.dead_letters:
        place = (letter.topic, letter.partition, letter.offset)
        found.setdefault(place, set()).add(letter.part)
        wanted_here = asked[place]
        if letter.part is None or wanted_here.parts is None or letter.part in wanted_here.parts:
            result.failed.append(letter._replace(replays=wanted_here.replays))
    for session, message in read.messages:
        for record in message.records:
            place = (message.topic, message.partition, record.offset)
            found.setdefault(place, set()).add(record.index)
            parts, replays = asked[place]
            if parts is None or record.index in parts:
                at = Position(session, *place, record.index)
                result.ready.append(Ready(at, _again(message, record, at, replays)))
    for raw in raws:
        place = (raw.topic, raw.partition, raw.offset)
        parts, there = asked[place].parts, found.get(place, set())
        # Without its part a letter of the message stands for all of it.
        gone = int(not there) if parts is None else len(parts - there) * (None not in there)
        if gone:
            result.skipped[SKIPPED] += gone
