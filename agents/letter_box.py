"""The dead-letter topic as somebody on call uses it: look at letters, replay them."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiokafka import TopicPartition

from flashfeed.models.config import Config
from flashfeed.models.errors import RequestError
from flashfeed.models.messages import encode_message

from .feeds import Feed
from .kafka_writer import KafkaWriter, Write
from .key_partition import partition_of
from .letter_history import Taken
from .letter_replay import Ready, Rebuilt, rebuild
from .letters import Chosen, Letter, newest_of_each, read_letter
from .past import Past, Stretch
from .supplies import Supplies

MARGIN_MS: Final = 60_000
"""So much earlier than the oldest letter the history is read: clocks differ."""
WRITES_AT_ONCE: Final = 100
TOO_LARGE: Final = "larger than Kafka takes: its feed's mapping should leave something out"
TOO_OLD: Final = "the history does not reach back to it: it may have been applied (--unsure)"


@dataclass(slots=True)
class Report:
    """What a replay did, or would do: counts, and why what was left out was."""

    chosen: int = 0
    replayed: int = 0
    applied_before: int = 0
    failed_again: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


async def read_letters(config: Config, whole: Chosen | None) -> list[Letter]:
    """Every letter on the topic, oldest first. Those that `whole` does not mean (None: all) are
    bare: a month of letters is more than the memory holds."""
    letters: list[Letter] = []
    async with Past(config.kafka) as past:
        places = await past.partitions(config.topics.dead_letters)
        stretches = await past.stretches(places)
        async for records in past.read(stretches, to_now=True):
            for raw in records:
                if (one := read_letter(raw)) is not None:
                    letters.append(one if whole is not None and one in whole else one.bare)
    return sorted(letters, key=lambda one: one.order)


def chosen_letters(letters: Sequence[Letter], chosen: Chosen) -> list[Letter]:
    """The letters that are meant: those named, else of each record's part the newest."""
    return [one for one in (letters if chosen.ids else newest_of_each(letters)) if one in chosen]


def feed_finder(config: Config, feeds: Sequence[Feed]) -> Callable[[Letter], Feed | None]:
    """Which feed a letter is for: the one that it names, else one that reads its topic."""
    named = {feed.name: feed for feed in feeds}

    def find(letter: Letter) -> Feed | None:
        if letter.feed in named:
            return named[letter.feed]
        for name, form in config.feeds.items():
            if any(fnmatch.fnmatchcase(letter.topic, pattern) for pattern in form.topics):
                return named[name]
        return None

    return find


class LetterBox:
    """Replays letters of one configuration. `writer` None: a dry run."""

    def __init__(
        self,
        config: Config,
        feeds: Sequence[Feed],
        supplies: Supplies,
        writer: KafkaWriter | None,
        *,
        unsure: bool = False,
    ) -> None:
        self._config = config
        self._find = feed_finder(config, feeds)
        self._supplies = supplies
        self._writer = writer
        self._unsure = unsure

    async def replay(
        self, letters: Sequence[Letter], every: Sequence[Letter], told: Callable[[str], None]
    ) -> Report:
        """Replay `letters`, of `every` that there is; `told` gets a line about each record.
        Raises Unavailable, WriteUncertain: repeated then, it goes on where it was."""
        report = Report(chosen=len(letters))
        letters = [await self._whole(one) if one.cut else one for one in letters]
        rebuilt = await rebuild(letters, self._find, self._supplies)
        report.skipped = rebuilt.skipped
        ready = await self._not_applied(rebuilt, letters, every, report, told)
        for one in ready:
            at = one.position
            told(f"{at.topic}[{at.partition}] offset {at.offset} part {at.part}: "
                 f"to session {at.session}")  # fmt: skip
        for letter in rebuilt.failed:
            told(f"{letter.topic}[{letter.partition}] offset {letter.offset}: "
                 f"fails again: {letter.detail}")  # fmt: skip
        report.replayed, report.failed_again = len(ready), len(rebuilt.failed)
        if self._writer is not None:
            refused = await self._write(self._writer, ready, rebuilt)
            if refused:
                report.replayed -= refused
                report.skipped[TOO_LARGE] += refused
        return report

    async def _whole(self, letter: Letter) -> Letter:
        """The letter with the whole value, where its origin still has it. A topic that was
        made anew has another record at its place."""
        begins = letter.value or b""
        place = TopicPartition(letter.topic, letter.partition)
        async with Past(self._config.kafka) as past:
            if letter.topic not in await past.topics():
                return letter
            [held] = (await past.stretches([place])).values()
            if not held.first <= letter.offset < held.end:
                return letter
            only = {place: Stretch(letter.offset, letter.offset + 1)}
            async for records in past.read(only):
                for one in records:
                    if (one.value or b"").startswith(begins):
                        return letter._replace(
                            key=one.key, value=one.value, headers=tuple(one.headers), cut=False
                        )
        return letter

    async def _not_applied(
        self,
        rebuilt: Rebuilt,
        letters: Sequence[Letter],
        every: Sequence[Letter],
        report: Report,
        told: Callable[[str], None],
    ) -> list[Ready]:
        """What is ready without what its session has."""
        if not rebuilt.ready:
            return []
        wanted = [one.position for one in rebuilt.ready]
        taken = Taken(wanted)
        topic = self._config.topics.records
        chosen = {one.place for one in letters}
        oldest_ms = min(one.written_ms for one in every if one.place in chosen)
        since_ms = max(0, oldest_ms - MARGIN_MS)
        async with Past(self._config.kafka) as past:
            places = await past.partitions(topic)
            numbers = {partition_of(one.session, len(places)) for one in wanted}
            needed = [place for place in places if place.partition in numbers]
            everything = await past.stretches(needed)
            stretches = await past.stretches(needed, since_ms)
            async for records in past.read(stretches, to_now=True):
                for raw in records:
                    taken.take(raw.key, raw.value, int(raw.offset))
        # Where nothing that is older is left, something that was may be gone.
        torn = {
            place.partition
            for place, at in stretches.items()
            if at.first == everything[place].first > 0
        }
        applied = taken.applied(every)
        ready = []
        for one in rebuilt.ready:
            if one.position in applied:
                report.applied_before += 1
            elif partition_of(one.position.session, len(places)) in torn and not self._unsure:
                report.skipped[TOO_OLD] += 1
            else:
                ready.append(one)
        return ready

    async def _write(self, writer: KafkaWriter, ready: Sequence[Ready], rebuilt: Rebuilt) -> int:
        """Write it; of how many that was ready Kafka takes none so large."""
        topics = self._config.topics
        letters = [letter.write(topics.dead_letters) for letter in rebuilt.failed]
        records = [
            Write(topics.records, one.position.session.encode(), encode_message(one.message))
            for one in ready
        ]
        for at in range(0, len(letters), WRITES_AT_ONCE):
            await writer.write(letters[at : at + WRITES_AT_ONCE])
        refused = 0
        for at in range(0, len(records), WRITES_AT_ONCE):
            refused += await _write_each(writer, records[at : at + WRITES_AT_ONCE])
        return refused


async def _write_each(writer: KafkaWriter, writes: Sequence[Write]) -> int:
    """Write all of them that are not too large; how many are. One of them refuses all that it
    is written with, and a session knows what it gets twice."""
    try:
        await writer.write(writes)
    except RequestError:
        if len(writes) == 1:
            return 1
        return sum([await _write_each(writer, [one]) for one in writes])
    return 0
