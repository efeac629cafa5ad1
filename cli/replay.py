"""`flashfeed replay`: the standing questions over the past, as JSON Lines."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from flashfeed.agents.feeds import Feed
from flashfeed.agents.kafka_writer import KafkaWriter
from flashfeed.agents.own_topics import wants_births
from flashfeed.agents.past import Past
from flashfeed.agents.replay import BATCH_MAX, Replay, Replayed
from flashfeed.agents.supplies import Supplies
from flashfeed.agents.supply_counts import Uncounted
from flashfeed.agents.topics import list_feed_topics
from flashfeed.models.config import Config
from flashfeed.models.errors import ConfigError
from flashfeed.models.events import event_identity, event_type
from flashfeed.models.views import SessionEvent

from .settings import load
from .times import parse_time
from .worker import engine_for, feeds_of

PROGRESS_S: Final = 5.0


class ReplayOptions(NamedTuple):
    """What to replay, and where to."""

    config: Path
    since: str
    until: str = ""
    feed: str = ""
    batch: int = 1
    out: Path | None = None


def replay(options: ReplayOptions) -> int:
    """Replay to the end of the range. Raises ConfigError, Unavailable."""
    config = load(options.config)
    if not 1 <= options.batch <= BATCH_MAX:
        raise ConfigError(f"--batch: expected 1 to {BATCH_MAX}, got {options.batch}")
    if options.feed and options.feed not in config.feeds:
        known = ", ".join(config.feeds) or "none"
        raise ConfigError(f"no feed {options.feed!r}; there are {known}")
    now_s = time.time()
    since_ms = parse_time(options.since, now_s)
    until_ms = parse_time(options.until, now_s) if options.until else None
    with _opened(options.out) as out:
        asyncio.run(_replay(config, options, (since_ms, until_ms), out))
    return 0


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdout.buffer
        return
    try:
        file = path.open("xb")
    except OSError as error:
        raise ConfigError(f"--out {path}: expected a file to make: {error.strerror}") from None
    with file:
        yield file


async def _replay(
    config: Config, options: ReplayOptions, times: tuple[int, int | None], out: BinaryIO
) -> None:
    def take(event: SessionEvent) -> None:
        out.write(line(event))

    async with contextlib.AsyncExitStack() as open_:
        supplies = Supplies(config, Uncounted())
        open_.push_async_callback(supplies.stop)
        writer = KafkaWriter(config.kafka, lambda _: None)  # its writes raise it as well
        if wants_births(config):  # what it reads there it marks with a message of its own
            await writer.start()
            open_.push_async_callback(writer.stop)
        await supplies.start(writer, births_lost)
        feeds = [
            feed for feed in feeds_of(config, supplies.outside) if options.feed in ("", feed.name)
        ]
        topics = await list_feed_topics(config)
        by_topic: dict[str, list[Feed]] = {}
        for feed in feeds:
            for topic in topics[feed.name]:
                by_topic.setdefault(topic, []).append(feed)
        async with Past(config.kafka) as past:
            places = [place for topic in by_topic for place in await past.partitions(topic)]
            stretches = await past.stretches(places, *times)
        # A replay's session has the id of a live one, whose snapshot is not its own.
        engine = engine_for(config, snapshots=None)
        engine.start()
        open_.push_async_callback(engine.stop)
        run = Replay(config, engine, supplies, by_topic, options.batch, take)
        telling = asyncio.create_task(_tell(run.done))
        try:
            done = await run.run(stretches, to_now=times[1] is None)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        print(summary(done, time.monotonic()), file=sys.stderr)


def births_lost(error: BaseException) -> None:
    """Say that Sparkplug births which come from now on are not known."""
    print(f"the births' topic cannot be read any more: {error}", file=sys.stderr, flush=True)


async def _tell(done: Replayed) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        print(progress(done, time.monotonic()), file=sys.stderr, flush=True)


def line(event: SessionEvent) -> bytes:
    """An event as a line: its CloudEvents type and id, and its value."""
    whole = {"event": event_type(event), "id": event_identity(event), "data": event}
    return msgspec.json.encode(whole) + b"\n"


def progress(done: Replayed, now_s: float) -> str:
    """How far it is, and how long it will take. Pure."""
    left = done.left_s(now_s)
    then = "" if left is None else f", about {left:.0f} s left"
    return f"{done.read} of {done.total} records, {done.versions} versions{then}"


def summary(done: Replayed, now_s: float) -> str:
    """What was replayed. Pure."""
    lines = [
        f"{done.read} records, {done.versions} versions, {done.answers} answers "
        f"in {now_s - done.began_s:.1f} s"
    ]
    return "\n".join([*lines, *(f"  {n} refused: {why}" for why, n in done.refused.items())])
