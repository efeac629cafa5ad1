"""`flashfeed feeds`: what a topic's messages are, and what a feed makes of them.

list    the presets there are
try     messages of a topic or a file through a feed: bytes, record, line, tokens, faults
guess   a preset or a mapping for JSON messages that nobody described

Topics are read without a group, and nothing is committed.
"""

from __future__ import annotations

import asyncio
import fnmatch
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from flashfeed.agents.feeds import Feed
from flashfeed.agents.sampling import sample_topics
from flashfeed.agents.supplies import Supplies
from flashfeed.agents.supply_counts import Uncounted
from flashfeed.codecs.codec import Outside, Wanted
from flashfeed.codecs.guess import fitting_presets, guess
from flashfeed.codecs.json import decode
from flashfeed.codecs.mapping import Source
from flashfeed.codecs.presets import codec_of, preset, preset_names
from flashfeed.codecs.registry import text_codec
from flashfeed.engine.packaged_model import find_packaged_model
from flashfeed.engine.token_count import TokenCount
from flashfeed.models.config import Config
from flashfeed.models.errors import ConfigError, DecodeFault, FlashfeedError, RecordError
from flashfeed.models.feed import Fault, MappedRecord
from flashfeed.models.records import Trade, record_fields

from .settings import load
from .worker import feeds_of

BYTES_SHOWN: Final = 100
PRESETS_SHOWN: Final = 3
LINEWISE: Final = ("json", "influx", "csv")
"""Codecs whose sample file has a message on each line; of the others it is one message."""


class Message(NamedTuple):
    """A message as it lies on a topic, and where."""

    value: bytes | None
    source: Source
    place: str


class FeedsOptions(NamedTuple):
    """Where messages come from, and how many are looked at."""

    config: Path | None = None
    brokers: str | None = None
    topic: str = ""
    sample: Path | None = None
    feed: str = ""
    limit: int = 20


def list_presets() -> int:
    """Print every preset with what it reads and how that was checked."""
    for name in preset_names():
        one = preset(name)
        print(f"{name}\n  {one.about}\n  {one.codec} to {one.mapping['model']}; checked against "
              f"{one.checked}")  # fmt: skip
    return 0


def try_feeds(options: FeedsOptions) -> int:
    """Print what the feeds make of messages; 1 where one of them has a fault or nothing came."""
    if options.config is None:
        raise ConfigError("flashfeed feeds try: expected a configuration (-c FILE)")
    return asyncio.run(_try(load(options.config), options))


def guess_feed(options: FeedsOptions) -> int:
    """Print presets and a mapping that fit a topic's JSON messages; 1 where none does."""
    config = load(options.config) if options.config else Config()
    samples = []
    for message in asyncio.run(_messages(config, options, [options.topic or "*"], "json")):
        try:
            samples.append((decode(message.value), message.source))
        except DecodeFault as fault:
            print(f"{message.place}: no JSON: {fault}")
    if not samples:
        print("no JSON message to look at")
        return 1
    print(f"{len(samples)} messages")
    fitting = fitting_presets("json", samples)
    for name, fit in fitting[:PRESETS_SHOWN]:
        print(f'preset = "{name}"    maps {fit.mapped} of them: {preset(name).about}')
    found = guess(samples)
    if found is not None:
        topic = options.topic or "TOPIC"
        print(
            f"\na feed of its own, which maps {found.fit.mapped} of them:\n\n"
            f"[feeds.{re.sub('[^A-Za-z0-9_-]', '-', topic)}]\n"
            f'topics = ["{topic}"]\n'
            f'template = "TEMPLATE"        # one of yours, under [templates]\n{found.toml}'
        )
    if not fitting and found is None:
        print("no preset fits, and no fields that flashfeed knows by name are in them")
        return 1
    return 0


async def _try(config: Config, options: FeedsOptions) -> int:
    supplies = Supplies(config, Uncounted())
    feeds = _chosen(config, options, supplies.outside)
    count_tokens = _token_count(config)
    faults = seen = 0
    try:
        for feed in feeds:
            form = config.feeds[feed.name]
            patterns = [options.topic] if options.topic else list(form.topics)
            codec, _ = codec_of(form.preset, form.codec, form.codec_options)
            messages = await _messages(config, options, patterns, codec)
            print(f"feed {feed.name}: codec {codec}, {len(messages)} messages")
            memories: dict[str, Any] = {}
            undecided = []
            for message in messages:
                seen += 1
                print(f"\n{message.place}\n  bytes   {_shown(message.value)}")
                good = await _show(config, feed, message, supplies, memories, count_tokens)
                if not good:
                    faults += 1
                    undecided.append(message)
            _suggest(codec, undecided)
    finally:
        await supplies.stop()
    if not seen:
        print("no messages to look at")
    return int(bool(faults) or not seen)


def _chosen(config: Config, options: FeedsOptions, outside: Outside) -> list[Feed]:
    feeds = feeds_of(config, outside)
    if options.feed:
        chosen = [feed for feed in feeds if feed.name == options.feed]
        if not chosen:
            raise ConfigError(f"no feed {options.feed!r}; there are {', '.join(config.feeds)}")
        return chosen
    if options.topic:
        matching = [
            feed
            for feed in feeds
            if any(
                fnmatch.fnmatchcase(options.topic, one) for one in config.feeds[feed.name].topics
            )
        ]
        # A topic that no feed names yet is tried with each of them.
        return matching or feeds
    return feeds


async def _messages(
    config: Config, options: FeedsOptions, patterns: Sequence[str], codec: str
) -> list[Message]:
    if options.sample is not None:
        topic = options.topic or patterns[0].replace("*", "sample")
        return file_messages(options.sample, topic, codec)[: options.limit]
    records = await sample_topics(config.kafka, patterns, options.limit, options.brokers)
    return [
        Message(
            one.value,
            Source(one.key, one.topic, one.timestamp, one.headers),
            f"{one.topic}[{one.partition}] offset {one.offset}",
        )
        for one in records
    ]


def file_messages(path: Path, topic: str, codec: str) -> list[Message]:
    """The messages in a file: one a line where the codec is one of lines, else the whole of
    it. Raises ConfigError for a file that cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    parts = [data]
    if codec in LINEWISE and not _is_one_json(codec, data):
        parts = [line for line in data.splitlines() if line.strip()]
    many = len(parts) > 1
    return [
        Message(part, Source(None, topic, None), f"{path}{f':{place}' * many}")
        for place, part in enumerate(parts, start=1)
    ]


def _is_one_json(codec: str, data: bytes) -> bool:
    try:
        return codec == "json" and decode(data) is not None
    except DecodeFault:
        return False


async def _show(
    config: Config,
    feed: Feed,
    message: Message,
    supplies: Supplies,
    memories: dict[str, Any],
    count_tokens: Callable[[str], int] | None,
) -> bool:
    """Print what a message gives; False where something of it is at fault."""
    try:
        values = await decoded(feed, message, supplies)
    except FlashfeedError as error:
        reason = getattr(error, "reason", "decode")
        print(f"  fault   {reason}: {error}")
        return False
    faults: list[Fault] = []
    skipped = 0
    for value in values:
        if isinstance(value, DecodeFault):
            faults.append(Fault(value.reason, value.path, str(value)))
            continue
        mapped = feed.mapping(value, message.source)
        faults += mapped.faults
        skipped += mapped.skipped
        for record in mapped.records:
            _show_record(config, feed, record, memories, count_tokens)
    for fault in faults:
        print(f"  fault   {fault.reason}: {fault.detail}")
    if skipped:
        print(f"  skipped {skipped} by rule")
    return not faults


async def decoded(feed: Feed, message: Message, supplies: Supplies) -> Sequence[object]:
    """The values in a message; what the codec wants for it is brought. Raises RecordError."""
    try:
        return feed.codec(message.value, message.source)
    except Wanted as wanted:
        await supplies.bring(wanted, f"feed {feed.name}", {"feed": feed.name})
        return feed.codec(message.value, message.source)


def _show_record(
    config: Config,
    feed: Feed,
    mapped: MappedRecord,
    memories: dict[str, Any],
    count_tokens: Callable[[str], int] | None,
) -> None:
    session = feed.session_id(mapped.key)
    fields = ", ".join(f"{name} {value}" for name, value in record_fields(mapped.record).items())
    print(f"  record  {feed.type} of session {session}: {fields}")
    if isinstance(mapped.record, Trade):
        print("  line    (a trade is part of a bar)")
        return
    template = config.templates[feed.template]
    codec = text_codec(template.text, template.type)
    try:
        line = codec.render(mapped.record, memories.get(session)).removesuffix("\n")
    except RecordError as error:
        print(f"  line    none: {error}")
        return
    memories[session] = codec.remember(memories.get(session), mapped.record)
    tokens = f"    {count_tokens(line + chr(10))} tokens" if count_tokens else ""
    print(f"  line    {line}{tokens}")


def _suggest(codec: str, messages: Sequence[Message]) -> None:
    """Presets that take what the feed could not."""
    if codec != "json" or not messages:
        return
    samples = []
    for message in messages:
        try:
            samples.append((decode(message.value), message.source))
        except DecodeFault:
            return
    for name, fit in fitting_presets(codec, samples)[:PRESETS_SHOWN]:
        print(f'\npreset = "{name}" maps {fit.mapped} of those {len(samples)}')


def _shown(value: bytes | None) -> str:
    if value is None:
        return "none (a tombstone)"
    text = value[:BYTES_SHOWN].decode("utf-8", "backslashreplace")
    more = f" ... ({len(value)} bytes)" if len(value) > BYTES_SHOWN else ""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text) + more


def _token_count(config: Config) -> Callable[[str], int] | None:
    """The tokens by the configuration's own model where its file is here, else the packaged
    one's; None without either."""
    named = config.model.get(config.engine.model)
    path = Path(named.source if named is not None else config.engine.model).expanduser()
    try:
        return TokenCount(path if path.is_file() else find_packaged_model())
    except ConfigError:
        return None
