"""The topics that flashfeed writes itself: names, partitions, settings. Pure."""

from __future__ import annotations

from aiokafka.admin import NewTopic

from flashfeed.codecs.presets import codec_of
from flashfeed.codecs.registry import needs_births
from flashfeed.models.config import Config

DAY_MS = 24 * 3600 * 1000
EVENTS = {"cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS)}
"""The settings of a topic of events."""


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
    compacted = {"cleanup.policy": "compact"}
    policies = {
        topics.records: EVENTS,
        topics.changelog: compacted,
        topics.dead_letters: {"cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS)},
        topics.flash_ready: EVENTS,
        topics.data_updated: EVENTS,
        topics.answers: compacted,
        topics.owners: compacted,
        topics.documents: compacted,
    }
    if wants_births(config):
        policies[topics.births] = compacted
    if config.learns:
        policies |= {
            topics.outcomes: EVENTS,
            topics.examples: EVENTS,
            topics.reservoirs: compacted,
            topics.heads: compacted,
            topics.scores: compacted,
        }
    if config.control.enabled:
        policies |= dict.fromkeys((topics.control, *reply_topics(config)), EVENTS)
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
