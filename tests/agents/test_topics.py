"""Our topics' settings are looked at when a worker starts: what would lose records is refused."""

from __future__ import annotations

import pytest
from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaError, NodeNotReadyError

from flashfeed.agents import topics
from flashfeed.agents.kafka_writer import RECORD_BYTES_MAX
from flashfeed.agents.topics import Topics, check_partitions, check_settings, prepare_topics
from flashfeed.models.config import Config, TopicsConfig
from flashfeed.models.errors import ConfigError, Unavailable

COMPACTED = NewTopic("changelog", 4, 1, topic_configs={"cleanup.policy": "compact"})
KEPT = NewTopic("records", 4, 1, topic_configs={"cleanup.policy": "delete"})


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_a_changelog_that_forgets_is_refused(policy: str) -> None:
    with pytest.raises(
        Exception, match=f"changelog must have cleanup.policy=compact, has {policy}"
    ):
        check_settings(COMPACTED, {"cleanup.policy": policy})
    check_settings(COMPACTED, {"cleanup.policy": "compact"})


def test_a_history_that_keeps_the_last_of_a_key_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must have cleanup[.]policy=delete, has compact"):
        check_settings(KEPT, {"cleanup.policy": "compact"})


def test_a_topic_that_takes_small_records_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"max[.]message[.]bytes of 1000000 at least, has 65536"):
        check_settings(KEPT, {"max.message.bytes": "65536"})
    check_settings(KEPT, {"max.message.bytes": str(RECORD_BYTES_MAX)})


def test_a_broker_that_tells_nothing_is_believed() -> None:
    check_settings(KEPT, {})


TOPICS = TopicsConfig(records="r", changelog="c", owners="o", documents="d")


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"r": 8, "c": 8, "o": 1, "d": 1}, ""),
        ({"r": 4, "c": 8, "o": 1, "d": 1}, "topics r and c must have the same.*have 4 and 8"),
        ({"r": 8, "c": 4, "o": 1, "d": 1}, "topics r and c must have the same.*have 8 and 4"),
        ({"r": 4, "c": 4, "o": 2, "d": 1}, "topic o must have one partition, has 2"),
        ({"r": 4, "c": 4, "o": 1, "d": 3}, "topic d must have one partition, has 3"),
    ],
)
def test_partitions_that_do_not_fit_together_are_refused(counts: dict[str, int], said: str) -> None:
    config = Config(topics=TOPICS)
    if not said:
        check_partitions(config, counts)
        return
    with pytest.raises(ConfigError, match=said):
        check_partitions(config, counts)


@pytest.mark.parametrize(("error", "tries"), [(NodeNotReadyError("3"), 3), (KafkaError("no"), 1)])
async def test_where_the_asked_broker_is_away_another_is_asked(
    error: KafkaError, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Topics({}, frozenset(), {})
    asked: list[Config] = []

    async def prepare(config: Config) -> Topics:
        asked.append(config)
        if len(asked) < 3:
            raise Unavailable(f"the brokers refuse: {error}") from error
        return found

    monkeypatch.setattr(topics, "_prepare", prepare)
    monkeypatch.setattr(topics, "NOT_READY_WAIT_S", 0.0)
    if tries == 3:
        assert await prepare_topics(Config()) is found
    else:
        with pytest.raises(Unavailable):
            await prepare_topics(Config())
    assert len(asked) == tries
