"""flashfeed's own topics, and the names behind a feed's patterns."""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from flashfeed.codecs.presets import codec_of
from flashfeed.codecs.registry import needs_births
from flashfeed.models.config import Config, KafkaConfig
from flashfeed.models.errors import ConfigError, Unavailable

from .connection import client_settings
from .kafka_writer import RECORD_BYTES_MAX

log = logging.getLogger(__name__)

TOPIC_ALREADY_EXISTS = 36
POLICY, BYTES_MAX = "cleanup.policy", "max.message.bytes"
SETTINGS = {POLICY: "", BYTES_MAX: ""}
SHOWN_S = 15.0
DAY_MS = 24 * 3600 * 1000


class Topics(NamedTuple):
    """What there is when a worker starts: each feed's topics, those that exist, and what a
    record of ours may have in bytes, by topic, where the broker tells."""

    feeds: dict[str, list[str]]
    existing: frozenset[str]
    bytes_max: dict[str, int]


def wants_births(config: Config) -> bool:
    """Whether any feed keeps Sparkplug births."""
    return any(
        needs_births(*codec_of(feed.preset, feed.codec, feed.codec_options))
        for feed in config.feeds.values()
    )


def own_topics(config: Config) -> list[NewTopic]:
    """The topics that flashfeed writes, as they are created where they are missing.

    The changelog has as many partitions as the records topic: partition p of one
    holds the state of the sessions in partition p of the other, and so have the reservoirs as
    many as the examples. Owners, documents, births and heads have one: every worker reads
    them in the same order.
    """
    kafka, topics = config.kafka, config.topics
    kept = {"cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS)}
    compacted = {"cleanup.policy": "compact"}
    policies = {
        topics.records: kept,
        topics.changelog: compacted,
        topics.dead_letters: {"cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS)},
        topics.flash_ready: kept,
        topics.data_updated: kept,
        topics.answers: compacted,
        topics.owners: compacted,
        topics.documents: compacted,
    }
    if wants_births(config):
        policies[topics.births] = compacted
    if config.learns:
        policies |= {
            topics.outcomes: kept,
            topics.examples: kept,
            topics.reservoirs: compacted,
            topics.heads: compacted,
            topics.scores: compacted,
        }
    if config.control.enabled:
        policies |= dict.fromkeys((topics.control, *reply_topics(config)), kept)
    return [
        NewTopic(
            name,
            1 if name in single(config) else kafka.partitions,
            kafka.replication,
            topic_configs=policy,
        )
        for name, policy in policies.items()
    ]


def reply_topics(config: Config) -> tuple[str, ...]:
    """Where replies to control messages may go."""
    return (config.topics.replies, *config.control.reply_topics)


def paired(config: Config) -> list[tuple[str, str]]:
    """Our topics of which one keeps the state of the other, partition by partition."""
    topics = config.topics
    learning = [(topics.examples, topics.reservoirs)] if config.learns else []
    return [(topics.records, topics.changelog), *learning]


def single(config: Config) -> tuple[str, ...]:
    """Our topics of one partition."""
    topics = config.topics
    births = (topics.births,) if wants_births(config) else ()
    heads = (topics.heads,) if config.learns else ()
    return topics.owners, topics.documents, *births, *heads


async def prepare_topics(config: Config) -> Topics:
    """Create what is missing of our topics, and look at those that were there.

    Raises Unavailable where the brokers cannot be reached or refuse, ConfigError where
    the records and changelog topics differ in partitions, owners or documents have
    more than one, or a topic's settings would lose what is written to it.
    """
    async with _admin(config.kafka) as admin:
        existing = await admin.list_topics()
        missing = [topic for topic in own_topics(config) if topic.name not in existing]
        response = await admin.create_topics(missing) if missing else None
        for name, code, *reason in response.topic_errors if response else ():
            if code == 0:
                log.info("created topic %s", name, extra={"topic": name})
            elif code != TOPIC_ALREADY_EXISTS:  # another worker was faster
                why = reason[0] if reason and reason[0] else for_code(code).__name__
                raise Unavailable(f"cannot create topic {name}: {why}")
        counts = await partition_counts(
            admin, [*(name for pair in paired(config) for name in pair), *single(config)]
        )
        settings = await _settings(admin, [topic.name for topic in own_topics(config)])
    for one, other in paired(config):
        if counts[one] != counts[other]:
            raise ConfigError(
                f"topics {one} and {other} must have the same number of partitions, have {counts}"
            )
    for name in single(config):
        if counts[name] != 1:
            raise ConfigError(f"topic {name} must have one partition, has {counts[name]}")
    for topic in own_topics(config):
        check_settings(topic, settings.get(topic.name, {}))
    bytes_max = {name: int(have[BYTES_MAX]) for name, have in settings.items() if BYTES_MAX in have}
    return Topics(match_feeds(config, existing), frozenset(existing), bytes_max)


async def _settings(admin: Any, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """The settings of these topics that matter, by topic; without those that the broker does
    not tell us (it may not know of such questions, or we may not ask)."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, name, dict(SETTINGS)) for name in names]
    try:
        answers = await admin.describe_configs(asked)
    except KafkaError as error:
        log.info("the broker does not tell the settings of our topics: %r", error)
        return {}
    return {
        name: {setting[0]: setting[1] for setting in entries if setting[1] is not None}
        for answer in answers
        for code, _, _, name, entries in answer.resources
        if code == 0
    }


def check_settings(topic: NewTopic, have: dict[str, str]) -> None:
    """Raises ConfigError where a topic of ours has settings that would lose what is written
    to it: its `cleanup.policy`, and the size of its records."""
    wanted = topic.topic_configs[POLICY]
    policy = have.get(POLICY, wanted)
    if policy != wanted:
        raise ConfigError(
            f"topic {topic.name} must have {POLICY}={wanted}, has {policy}: "
            f"kafka-configs --alter --topic {topic.name} --add-config {POLICY}={wanted}"
        )
    if int(have.get(BYTES_MAX, RECORD_BYTES_MAX)) < RECORD_BYTES_MAX:
        raise ConfigError(
            f"topic {topic.name} must have {BYTES_MAX} of {RECORD_BYTES_MAX} at least, has "
            f"{have[BYTES_MAX]}: kafka-configs --alter --topic {topic.name} "
            f"--add-config {BYTES_MAX}=1048588"
        )


async def partition_counts(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    """How many partitions each topic has. A broker may hear of a topic a moment after another
    one has created it: they are waited for, and Unavailable names what does not come."""
    deadline = time.monotonic() + SHOWN_S
    while True:
        described = await admin.describe_topics(names)
        counts = {topic["topic"]: len(topic["partitions"]) for topic in described}
        unknown = [name for name in names if not counts.get(name)]
        if not unknown:
            return counts
        if time.monotonic() > deadline:
            raise Unavailable(f"the brokers do not know these topics yet: {', '.join(unknown)}")
        await asyncio.sleep(0.1)


async def count_partitions(kafka: KafkaConfig, names: list[str]) -> dict[str, int]:
    """How many partitions each of these topics has. A consumer does not know of any that it
    does not read. Raises Unavailable where the brokers do not tell."""
    async with _admin(kafka) as admin:
        return await partition_counts(admin, names)


async def list_feed_topics(config: Config) -> dict[str, list[str]]:
    """Each feed's topics as they are now. Raises Unavailable where no broker answers."""
    async with _admin(config.kafka) as admin:
        return match_feeds(config, await admin.list_topics())


@asynccontextmanager
async def _admin(kafka: KafkaConfig) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**client_settings(kafka))
    try:
        await admin.start()
    except Exception as error:
        raise Unavailable(f"cannot reach the brokers {kafka.brokers}: {error}") from error
    try:
        yield admin
    finally:
        await admin.close()


def match_feeds(config: Config, existing: list[str]) -> dict[str, list[str]]:
    """Each feed's topics among those that exist, by feed name."""
    own = {topic.name for topic in own_topics(config)}
    return {name: match_topics(feed.topics, existing, own) for name, feed in config.feeds.items()}


def match_topics(patterns: tuple[str, ...], existing: list[str], own: set[str]) -> list[str]:
    """The topics that a feed's names and patterns stand for, sorted.

    A plain name stands for itself whether or not it exists yet; a pattern for what
    exists now, flashfeed's own topics and internal ones (`__...`) excepted.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        if not any(sign in pattern for sign in "*?["):
            chosen.add(pattern)
            continue
        chosen.update(
            name
            for name in existing
            if fnmatch.fnmatchcase(name, pattern) and name not in own and not name.startswith("__")
        )
    return sorted(chosen)
