"""A replay's events as a topic of their own: CloudEvents, as a worker writes them.

No topic that a worker of this configuration reads or writes will do: a reader could not tell
what is live from what is not, and a feed would read answers as data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from flashfeed.models.config import Config
from flashfeed.models.errors import ConfigError
from flashfeed.models.events import cloud_event
from flashfeed.models.views import SessionEvent

from .kafka_writer import KafkaWriter, Write
from .own_topics import own_topics
from .topics import create_topic

SOURCE: Final = "/flashfeed/replay"


def check_out_topic(config: Config, feeds: Mapping[str, Sequence[str]], name: str) -> None:
    """Raises ConfigError where a topic is no place for a replay; `feeds` has the topics that
    each feed reads now."""
    own = {topic.name for topic in own_topics(config)} | {config.topics.births}
    if name in own:
        raise ConfigError(
            f"--out-topic {name}: expected a topic of its own, got one that workers of this "
            f"configuration use; take another name, such as {name}.replay"
        )
    for feed, topics in feeds.items():
        if name in topics:
            raise ConfigError(
                f"--out-topic {name}: feeds.{feed} reads it, and would take answers for its "
                f"records; take another name, such as {name}.replay"
            )


class TopicOut:
    """Writes a replay's events to a topic, both kinds to one, keyed by session."""

    def __init__(self, writer: KafkaWriter, topic: str) -> None:
        self._writer = writer
        self._topic = topic

    async def prepare(self, config: Config) -> None:
        """Create the topic where it is not there. Raises Unavailable."""
        await create_topic(config.kafka, self._topic)

    async def write(self, events: Sequence[SessionEvent]) -> None:
        """Write them; they are acknowledged when it returns. Raises Unavailable."""
        written = [cloud_event(event, SOURCE) for event in events]
        await self._writer.write(
            Write(self._topic, one.key, one.value, one.headers) for one in written
        )
