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
from aiokafka.errors import KafkaError, NodeNotReadyError, for_code

from flashfeed.models.config import Config, KafkaConfig
from flashfeed.models.errors import ConfigError, Denied, Unavailable

from .connection import client_settings
from .kafka_writer import RECORD_BYTES_MAX
from .own_topics import EVENTS, own_topics, paired, single
from .rights import Right, acl_commands, denied, worker_rights
from .rights_check import TOPIC_DENIED, check_rights, user_of
from .unreachable import why_unreachable

log = logging.getLogger(__name__)

TOPIC_ALREADY_EXISTS = 36
POLICY, BYTES_MAX = "cleanup.policy", "max.message.bytes"
SETTINGS = {POLICY: "", BYTES_MAX: ""}
SHOWN_S = 15.0
NOT_READY_MAX_S, NOT_READY_WAIT_S = 30.0, 0.5


class Topics(NamedTuple):
    """What there is when a worker starts: each feed's topics, those that exist, and what a
    record of ours may have in bytes, by topic, where the broker tells."""

    feeds: dict[str, list[str]]
    existing: frozenset[str]
    bytes_max: dict[str, int]


async def prepare_topics(config: Config) -> Topics:
    """Create what is missing of our topics, and look at those that were there. Where the broker
    that is asked is away meanwhile, others are, for NOT_READY_MAX_S at most.

    Raises Unavailable where the brokers cannot be reached or refuse, Denied where a right is
    missing, ConfigError where the records and changelog topics differ in partitions, owners
    or documents have more than one, or a topic's settings would lose what is written to it.
    """
    deadline = time.monotonic() + NOT_READY_MAX_S
    while True:
        try:
            return await _prepare(config)
        except Unavailable as error:
            away = isinstance(error.__cause__, NodeNotReadyError)
            if not away or time.monotonic() > deadline:
                raise
            log.warning("%s; trying again", error)
            await asyncio.sleep(NOT_READY_WAIT_S)


async def _prepare(config: Config) -> Topics:
    async with _admin(config.kafka) as admin:
        existing = await admin.list_topics()
        refused = await _create(admin, config, existing)
        feeds = match_feeds(config, existing)
        try:
            await check_rights(admin._client, config.kafka, worker_rights(config, feeds))
        except Denied as error:
            raise Denied(f"{error}{_may_be_missing(refused)}") from None
        if refused:
            rights = [Right("Topic", name, "Create") for name in refused]
            commands = "; ".join(acl_commands(rights, user_of(config.kafka)))
            raise Denied(f"there is no topic {', '.join(refused)}, and user "
                         f"{user_of(config.kafka)!r} may not create it: make it (docs/KAFKA.md "
                         f"has partitions and settings), or grant Create: {commands}")  # fmt: skip
        counts = await partition_counts(
            admin, [*(name for pair in paired(config) for name in pair), *single(config)]
        )
        settings = await _settings(admin, [topic.name for topic in own_topics(config)])
    check_partitions(config, counts)
    for topic in own_topics(config):
        check_settings(topic, settings.get(topic.name, {}))
    bytes_max = {name: int(have[BYTES_MAX]) for name, have in settings.items() if BYTES_MAX in have}
    return Topics(feeds, frozenset(existing), bytes_max)


async def _create(admin: Any, config: Config, existing: Sequence[str]) -> list[str]:
    """Create what is missing of our topics; returns those that we may not create, which may be
    there and be hidden from us. Raises Unavailable where one cannot be created."""
    absent = [topic for topic in own_topics(config) if topic.name not in existing]
    response = await admin.create_topics(absent) if absent else None
    refused: list[str] = []
    for name, code, *reason in response.topic_errors if response else ():
        if code == 0:
            log.info("created topic %s", name, extra={"topic": name})
        elif code == TOPIC_DENIED:
            refused.append(name)
        elif code != TOPIC_ALREADY_EXISTS:  # another worker was faster
            why = reason[0] if reason and reason[0] else for_code(code).__name__
            raise Unavailable(
                f"cannot create topic {name} (kafka.partitions, kafka.replication): {why}"
            )
    return refused


def _may_be_missing(names: Sequence[str]) -> str:
    if not names:
        return ""
    return (
        f". Perhaps {', '.join(sorted(names))} are not there at all: then make them first "
        "(docs/KAFKA.md has partitions and settings), or grant Create on them too"
    )


def check_partitions(config: Config, counts: dict[str, int]) -> None:
    """Raises ConfigError where our topics' partitions do not fit together."""
    for one, other in paired(config):
        if counts[one] != counts[other]:
            raise ConfigError(
                f"topics {one} and {other} must have the same number of partitions, have "
                f"{counts[one]} and {counts[other]}: partition p of one holds the state of "
                "partition p of the other. Where one was given more by mistake, stop the workers, "
                "and make both anew (docs/KAFKA.md, Topics)"
            )
    for name in single(config):
        if counts[name] != 1:
            raise ConfigError(
                f"topic {name} must have one partition, has {counts[name]}: every worker reads it "
                "in one order; delete it and start a worker, which makes it"
            )
    topics = config.topics
    records = counts[topics.records]
    if records != config.kafka.partitions:
        log.info(
            "topic %s has %d partitions, and keeps them; kafka.partitions = %d is for topics that "
            "are created", topics.records, records, config.kafka.partitions,
        )  # fmt: skip


async def create_topic(kafka: KafkaConfig, name: str) -> None:
    """Create a topic for events, where it is not there yet. Raises Unavailable."""
    async with _admin(kafka) as admin:
        if name in await admin.list_topics():
            return
        topic = NewTopic(name, kafka.partitions, kafka.replication, topic_configs=EVENTS)
        response = await admin.create_topics([topic])
        for _, code, *reason in response.topic_errors:
            if code not in (0, TOPIC_ALREADY_EXISTS):
                why = reason[0] if reason and reason[0] else for_code(code).__name__
                raise Unavailable(f"cannot create topic {name}: {why}")
        await partition_counts(admin, [name])


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
    one has created it: they are waited for, and Unavailable names what does not come. Denied
    names what we may not see."""
    deadline = time.monotonic() + SHOWN_S
    while True:
        described = await admin.describe_topics(names)
        hidden = [topic["topic"] for topic in described if topic["error_code"] == TOPIC_DENIED]
        if hidden:
            raise Denied(f"grant Read or Describe on Topic {', '.join(hidden)}")
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
    settings = client_settings(kafka)
    admin = AIOKafkaAdminClient(**settings)
    try:
        await admin.start()
    except Exception as error:
        why = await why_unreachable(settings, error)
        raise Unavailable(f"cannot reach the brokers {kafka.brokers}: {why}") from error
    try:
        yield admin
    except KafkaError as error:
        raise Unavailable(denied(error) or f"the brokers refuse: {error}") from error
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
