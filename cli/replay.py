"""`flashfeed replay`: the standing questions over the past, into a file, a topic or a score.

Ends with 0; 1 where it cannot go on, or had no room for records; 2 where what was asked for is
wrong; 3 where --as-live found answers or inputs that are not the live ones, or versions it could
not replay; 130 interrupted (143 by SIGTERM): what was written can be read, and it says where to
go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from flashfeed.agents.as_live import LiveReplay
from flashfeed.agents.feeds import Feed
from flashfeed.agents.kafka_writer import KafkaWriter
from flashfeed.agents.live_history import read_history
from flashfeed.agents.own_topics import wants_births
from flashfeed.agents.past import Past
from flashfeed.agents.replay import BATCH_MAX, Replay
from flashfeed.agents.replay_sessions import Replayed, ReplayOut
from flashfeed.agents.replay_topic import TopicOut, check_out_topic
from flashfeed.agents.supplies import Supplies
from flashfeed.agents.supply_counts import Uncounted
from flashfeed.agents.topics import list_feed_topics
from flashfeed.engine import Engine
from flashfeed.models.config import Config
from flashfeed.models.errors import ConfigError, Overloaded, Unavailable

from .models import default_engine
from .replay_files import Nowhere, opened
from .replay_progress import summary, told
from .replay_range import Found, Range, find, offsets_line, parse_range
from .replay_score import Judge, compared, scorecard, wants_score
from .settings import load
from .worker import engine_for, engine_settings, feeds_of

NO_ROOM: Final = 1
SCORE_ANEW: Final = "; a score is of what comes from there alone, and nothing is learnt before it"
AS_LIVE_DIFFERS: Final = 3
SIGNALS: Final = {signal.SIGINT: 130, signal.SIGTERM: 143}


class ReplayOptions(NamedTuple):
    """What to replay, and where to."""

    config: Path
    since: str = ""
    until: str = ""
    from_offsets: tuple[str, ...] = ()
    to_offsets: tuple[str, ...] = ()
    feed: str = ""
    batch: int = 1
    as_live: bool = False
    out: Path | None = None
    out_topic: str = ""
    against: Path | None = None
    score: bool = False
    progress: bool = False

    @property
    def shows_events(self) -> bool:
        """Whether standard output is the events'."""
        return not (self.out or self.out_topic or self.against or self.score)


def replay(options: ReplayOptions) -> int:
    """Replay to the end of the range, or until it is interrupted; the exit code. Raises
    ConfigError, Unavailable."""
    config = load(options.config)
    against = load(options.against) if options.against else None
    if against is not None:  # the same records of the same brokers
        against = msgspec.structs.replace(against, kafka=config.kafka)
    _check(options, config, against)
    asked = parse_range(options.since, options.until, options.from_offsets, options.to_offsets)
    with contextlib.ExitStack() as open_:
        hidden = bool(options.out_topic) or not (options.out or options.shows_events)
        out: ReplayOut = Nowhere() if hidden else open_.enter_context(opened(options.out))
        run = _Run(options, asked, out)
        return asyncio.run(_until_interrupted(run, lambda: run.all(config, against)))


def _check(options: ReplayOptions, config: Config, against: Config | None) -> None:
    if not 1 <= options.batch <= BATCH_MAX:
        raise ConfigError(f"--batch: expected 1 to {BATCH_MAX}, got {options.batch}")
    for one in (config, against):
        if one is not None and options.feed and options.feed not in one.feeds:
            known = ", ".join(one.feeds) or "none"
            raise ConfigError(f"no feed {options.feed!r}; there are {known}")
    if options.as_live and (options.feed or options.batch > 1 or against is not None):
        raise ConfigError(
            "--as-live: expected no --feed, --batch or --against; the live events say what made "
            "a version"
        )
    if options.out and options.out_topic:
        raise ConfigError("expected --out or --out-topic, got both")
    for name, one in (("-c", config), ("--against", against)):
        if one is not None and (options.score or against is not None) and not wants_score(one):
            raise ConfigError(
                f"{name}: no template has outcomes; say what the true answers are in "
                "[templates.NAME.outcomes.QUESTION]"
            )


async def _until_interrupted(run: _Run, work: Callable[[], Awaitable[int]]) -> int:
    """Do it; where a signal ends it first, say where to go on."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work())
    ended: list[int] = []

    def end(code: int) -> None:
        ended.append(code)
        task.cancel()

    for name, code in SIGNALS.items():
        loop.add_signal_handler(name, end, code)
    try:
        return await task
    except asyncio.CancelledError:
        if not ended:
            raise
        print(run.stopped("interrupted"), file=sys.stderr)
        return ended[0]
    except Unavailable:
        print(run.stopped("it could not go on"), file=sys.stderr)
        raise
    finally:
        for name in SIGNALS:
            loop.remove_signal_handler(name)


class _Run:
    """What is under way, and what is said of it."""

    def __init__(self, options: ReplayOptions, asked: Range, out: ReplayOut) -> None:
        self._options = options
        self._asked = asked
        self._out = out
        self._replay: Replay | LiveReplay | None = None
        self._scores = False

    async def all(self, config: Config, against: Config | None) -> int:
        """One replay, or two over the same range; the exit code."""
        configs = [config] if against is None else [config, against]
        if self._options.as_live:
            return await self._as_live(config)
        topics: list[dict[str, list[str]]] = []
        for one in configs:
            listed = await list_feed_topics(one)
            if self._options.out_topic:
                check_out_topic(one, listed, self._options.out_topic)
            wanted = self._options.feed
            topics.append({name: of for name, of in listed.items() if wanted in ("", name)})
        read = sorted({topic for one in topics for of in one.values() for topic in of})
        async with Past(config.kafka) as past:
            found = await find(past, self._asked, read)
        _warn(found)
        judges: list[Judge | None] = []
        done: list[Replayed] = []
        for one, of in zip(configs, topics, strict=True):
            judges.append(self._judge(one))
            out = self._out if one is config else Nowhere()
            done.append(await self._feeds(one, of, found, judges[-1], out))
        self._tell(judges)
        return max(map(exit_code, done))

    async def _feeds(
        self,
        config: Config,
        topics: dict[str, list[str]],
        found: Found,
        judge: Judge | None,
        out: ReplayOut,
    ) -> Replayed:
        async with contextlib.AsyncExitStack() as open_:
            supplies = Supplies(config, Uncounted())
            open_.push_async_callback(supplies.stop)
            # Births that are read there are marked with a message of our own.
            writer = await _writer(open_, config, needed=wants_births(config))
            await supplies.start(writer, births_lost)
            by_topic: dict[str, list[Feed]] = {}
            for feed in feeds_of(config, supplies.outside):
                for topic in topics.get(feed.name, ()):
                    by_topic.setdefault(topic, []).append(feed)
            engine = await _engine(open_, config, judge)
            run = self._replay = Replay(
                config,
                engine,
                supplies,
                by_topic,
                await self._outputs(open_, config, out, judge),
                {place: at for place, at in found.stretches.items() if place.topic in by_topic},
                found.to_now,
                self._options.batch,
                judge.heard if judge is not None else None,
                judge.hidden if judge is not None else None,
            )
            return await self._told(run)

    async def _as_live(self, config: Config) -> int:
        if self._options.out_topic:
            listed = await list_feed_topics(config)
            check_out_topic(config, listed, self._options.out_topic)
        async with Past(config.kafka) as past:
            found = await find(past, self._asked, [config.topics.data_updated])
        _warn(found)
        history = await read_history(config, found.stretches, found.to_now)
        judge = self._judge(config)
        async with contextlib.AsyncExitStack() as open_:
            engine = await _engine(open_, config, judge)
            out = await self._outputs(open_, config, self._out, judge)
            heard, hidden = (judge.heard, judge.hidden) if judge is not None else (None, None)
            run = self._replay = LiveReplay(config, engine, history, out, heard, hidden)
            done = await self._told(run)
        print(run.compared.text(), file=sys.stderr)
        self._tell([judge])
        return exit_code(done) if run.compared.same else AS_LIVE_DIFFERS

    def _judge(self, config: Config) -> Judge | None:
        if not wants_score(config):
            return None
        self._scores = True
        return Judge(config)

    async def _outputs(
        self,
        open_: contextlib.AsyncExitStack,
        config: Config,
        out: ReplayOut,
        judge: Judge | None,
    ) -> ReplayOut:
        if self._options.out_topic and out is self._out:
            writer = await _writer(open_, config, needed=True)
            topic = out = TopicOut(writer, self._options.out_topic)
            await topic.prepare(config)
        return judge.beside(out) if judge is not None else out

    async def _told(self, run: Replay | LiveReplay) -> Replayed:
        async with told(run.done, always=self._options.progress):
            done = await run.run()
        print(summary(done, time.monotonic()), file=sys.stderr)
        return done

    def _tell(self, judges: Sequence[Judge | None]) -> None:
        """Print the scores: to where the events are not."""
        sink = sys.stderr if self._options.shows_events else sys.stdout
        kept = [one for one in judges if one is not None]
        if len(kept) == 1:
            print(scorecard(kept[0]), file=sink)
        elif kept:
            print(compared(kept[0], kept[1]), file=sink)

    def stopped(self, why: str) -> str:
        """What is said of a replay that ends before its range does."""
        if self._replay is None:
            return f"{why} before the first record; nothing was replayed"
        said = summary(self._replay.done, time.monotonic())
        if self._options.against:
            return f"{said}\n{why}; two that are compared begin again"
        where = offsets_line(self._replay.places.resume())
        return (
            f"{said}\n{why}; what was written is whole. Go on with {where}: "
            f"{self._replay.after_resume}" + SCORE_ANEW * self._scores
        )


def exit_code(done: Replayed) -> int:
    """0; another where records that could be used were left out: nobody is to take what
    there is for the whole range. Pure."""
    return NO_ROOM if done.refused[Overloaded.reason] else 0


def _warn(found: Found) -> None:
    for one in found.gone:
        print(one, file=sys.stderr)


async def _engine(open_: contextlib.AsyncExitStack, config: Config, judge: Judge | None) -> Engine:
    # Its records name the sessions of a whole group, more than one worker may have: they take
    # turns on as many seats as a worker's would.
    seats = engine_settings(default_engine(config), Path()).seats
    # A replay's session has the id of a live one, whose snapshot is not its own.
    engine = engine_for(
        config,
        snapshots=None,
        sessions_max=sys.maxsize,
        seats_max=seats,
        hidden_states=judge is not None and judge.hidden is not None,
    )
    engine.start()
    open_.push_async_callback(engine.stop)
    return engine


async def _writer(open_: contextlib.AsyncExitStack, config: Config, *, needed: bool) -> KafkaWriter:
    writer = KafkaWriter(config.kafka, lambda _: None)  # its writes raise it as well
    if needed:
        await writer.start()
        open_.push_async_callback(writer.stop)
    return writer


def births_lost(error: BaseException) -> None:
    """Say that Sparkplug births which come from now on are not known."""
    print(f"the births' topic cannot be read any more: {error}", file=sys.stderr, flush=True)
