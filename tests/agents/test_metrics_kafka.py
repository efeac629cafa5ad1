"""Lag, its age, and that a partition that leaves takes its series along."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from flashfeed.agents.metrics_kafka import KafkaCollector, KafkaState
from flashfeed.agents.transport import Behind

NOW_S = 1_000_000.0


def read(registry: CollectorRegistry, name: str, partition: str) -> float | None:
    return registry.get_sample_value(name, {"topic": "t", "partition": partition})


def test_lag_has_the_age_of_what_waits() -> None:
    behind = {
        ("t", 0): Behind(5, int(NOW_S * 1000) - 7000, int(NOW_S * 1000) - 1000),
        ("t", 1): Behind(0, 0, int(NOW_S * 1000) - 9000),
    }
    state = KafkaState(behind=lambda: behind)
    registry = CollectorRegistry()
    registry.register(KafkaCollector(state, lambda: NOW_S))
    assert read(registry, "flashfeed_consumer_lag_records", "0") == 5
    assert read(registry, "flashfeed_consumer_lag_seconds", "0") == 7
    assert read(registry, "flashfeed_consumer_lag_seconds", "1") == 0
    newest = "flashfeed_partition_last_record_timestamp_seconds"
    assert read(registry, newest, "1") == NOW_S - 9
    del behind["t", 0]
    assert read(registry, "flashfeed_consumer_lag_records", "0") is None
    assert read(registry, newest, "0") is None


def test_what_is_not_fetched_yet_ages_from_when_it_was_seen() -> None:
    clock = [NOW_S]
    behind = {("t", 0): Behind(3, 0, 0)}
    registry = CollectorRegistry()
    registry.register(KafkaCollector(KafkaState(behind=lambda: behind), lambda: clock[0]))
    assert read(registry, "flashfeed_consumer_lag_seconds", "0") == 0
    clock[0] += 12
    assert read(registry, "flashfeed_consumer_lag_seconds", "0") == 12
    behind["t", 0] = Behind(0, 0, 0)
    assert read(registry, "flashfeed_consumer_lag_seconds", "0") == 0
    behind["t", 0] = Behind(1, 0, 0)
    assert read(registry, "flashfeed_consumer_lag_seconds", "0") == 0


def test_failed_writes_are_seen() -> None:
    registry = CollectorRegistry()
    state = KafkaState(failures=lambda: {"too_large": 2}, partitions=lambda: {"live": 3})
    registry.register(KafkaCollector(state))
    assert registry.get_sample_value("flashfeed_partitions", {"state": "live"}) == 3
    failures = "flashfeed_publish_failures_total"
    assert registry.get_sample_value(failures, {"reason": "too_large"}) == 2
