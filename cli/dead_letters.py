"""`flashfeed dead-letters`: what could not be used, why, and what becomes of it now.

list     the letters, one for each record's part: where from, the reason, the sentence
show     one letter with its value and headers
replay   letters through the feeds as they are configured now, to their sessions
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import NamedTuple

import orjson

from flashfeed.agents.kafka_writer import KafkaWriter
from flashfeed.agents.letter_box import LetterBox, Report, chosen_letters, read_letters
from flashfeed.agents.letters import Chosen, Letter
from flashfeed.agents.supplies import Supplies
from flashfeed.agents.supply_counts import Uncounted
from flashfeed.models.config import Config
from flashfeed.models.errors import ConfigError, Unavailable, WriteUncertain

from .replay import births_lost
from .settings import load
from .times import parse_time, show_time
from .top_table import safe
from .worker import feeds_of

VALUE_CHARS_SHOWN = 4000


class LettersOptions(NamedTuple):
    """What to do, and with which letters."""

    config: Path
    what: str
    ids: tuple[str, ...] = ()
    feed: str = ""
    reason: str = ""
    topic: str = ""
    since: str = ""
    until: str = ""
    as_json: bool = False
    dry_run: bool = False
    unsure: bool = False


def dead_letters(options: LettersOptions) -> int:
    """List, show or replay; 1 where nothing is meant, or a replayed letter failed again."""
    config = load(options.config)
    if options.feed and options.feed not in config.feeds:
        raise ConfigError(
            f"no feed {options.feed!r}; there are {', '.join(config.feeds) or 'none'}"
        )
    run = {"list": _list, "show": _show, "replay": _replay}[options.what]
    return asyncio.run(run(config, options))


def _chosen(options: LettersOptions) -> Chosen:
    now_s = time.time()
    return Chosen(
        frozenset(options.ids),
        options.feed,
        options.reason,
        options.topic,
        since_ms=parse_time(options.since, now_s) if options.since else 0,
        until_ms=parse_time(options.until, now_s) if options.until else sys.maxsize,
    )


async def _list(config: Config, options: LettersOptions) -> int:
    letters = chosen_letters(await read_letters(config, None), _chosen(options))
    for one in letters:
        print(_json(one) if options.as_json else _line(one))
    if not options.as_json:
        print(f"{len(letters)} dead letters")
    return 0


def _line(one: Letter) -> str:
    part = "" if one.part is None else f" part {one.part}"
    origin = f"{one.topic}[{one.partition}] offset {one.offset}{part}" if one.topic else "pushed"
    again = f" (replayed {one.replays} times)" if one.replays else ""
    # Its headers, which anybody may have written, and what a tenant is called.
    first = (
        f"{one.id:<8} {show_time(one.written_ms)}  {one.reason:<14} {one.where}: {origin}{again}"
    )
    return f"{safe(first)}\n         {safe(f'{one.path}: {one.detail}')}"


def _json(one: Letter) -> str:
    names = ("id", "reason", "path", "detail", "where", "feed", "topic", "partition", "offset",
             "part", "replays", "written_ms")  # fmt: skip
    return orjson.dumps({name: getattr(one, name) for name in names}).decode()


async def _show(config: Config, options: LettersOptions) -> int:
    chosen = _chosen(options)
    found = chosen_letters(await read_letters(config, chosen), chosen)
    for one in found:
        print(_line(one))
        print(f"         key {_text(one.key)}")
        for name, value in one.headers:
            print(f"         header {safe(name)}: {_text(value)}")
        cut = " (cut to fit Kafka)" if one.cut else ""
        print(f"         value of {len(one.value or b'')} bytes{cut}:\n{_text(one.value)}")
    if not found:
        print("no such letter; flashfeed dead-letters list names those there are")
    return int(not found)


def _text(value: bytes | None) -> str:
    if value is None:
        return "none"
    text = value.decode("utf-8", "backslashreplace")
    more = "..." * (len(text) > VALUE_CHARS_SHOWN)
    # A terminal does what control characters say.
    kept = text[:VALUE_CHARS_SHOWN]
    return (
        "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in kept) + more
    )


async def _replay(config: Config, options: LettersOptions) -> int:
    chosen = _chosen(options)
    every = await read_letters(config, chosen)
    letters = chosen_letters(every, chosen)
    if not letters:
        print("no dead letter is meant")
        return 1
    supplies = Supplies(config, Uncounted())
    writer = KafkaWriter(config.kafka, lambda _: None)  # its writes raise it as well
    await writer.start()
    try:
        await supplies.start(writer, births_lost)
        box = LetterBox(
            config,
            feeds_of(config, supplies.outside),
            supplies,
            None if options.dry_run else writer,
            unsure=options.unsure,
        )
        try:
            report = await box.replay(letters, every, lambda line: print(safe(line)))
        except (Unavailable, WriteUncertain) as error:
            raise Unavailable(
                f"{error}; run it again: what was replayed is known by its origin"
            ) from error
    finally:
        await supplies.stop()
        await writer.stop()
    print(summary(report, dry_run=options.dry_run))
    return int(bool(report.failed_again))


def summary(report: Report, *, dry_run: bool) -> str:
    """What was done, with counts. Pure."""
    would = "would be " * dry_run
    lines = [
        f"{report.chosen} dead letters",
        f"  {report.replayed} records {would}sent to their sessions",
        f"  {report.applied_before} have been applied meanwhile, and are left out",
        f"  {report.failed_again} {'fail' if dry_run else 'failed'} again, and "
        f"{would or 'are '}dead letters again",
    ]
    return "\n".join(
        [*lines, *(f"  {count} left out: {why}" for why, count in report.skipped.items())]
    )
