"""The metrics of the Kafka side that are states: read at each scrape, gone with what they are
about. A partition that leaves this worker leaves its series too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .transport import Behind

Place = tuple[str, int]


def _nothing() -> Mapping[str, int]:
    return {}


@dataclass(slots=True)
class KafkaState:
    """Where a scrape reads: the assigned partitions, the owned ones by state, the writes
    that failed by kind, and how many records wait at the sessions' owners."""

    behind: Callable[[], Mapping[Place, Behind]] = dict
    partitions: Callable[[], Mapping[str, int]] = _nothing
    failures: Callable[[], Mapping[str, int]] = _nothing
    queued: Callable[[], int] = int


class KafkaCollector(Collector):
    """Lag, its age, the newest record, partitions owned and held back, what waits, failed
    writes."""

    def __init__(self, state: KafkaState, now: Callable[[], float] = time.time) -> None:
        self._state = state
        self._now = now
        self._since: dict[Place, float] = {}

    def collect(self) -> Iterable[Metric]:
        """The families, for a scrape."""
        labels = ("topic", "partition")
        lag = GaugeMetricFamily(
            "flashfeed_consumer_lag_records",
            "Records behind the end of an assigned partition.", labels=labels,
        )  # fmt: skip
        age = GaugeMetricFamily(
            "flashfeed_consumer_lag_seconds",
            "Age of the oldest record that is not done; 0 where there is none.", labels=labels,
        )  # fmt: skip
        newest = GaugeMetricFamily(
            "flashfeed_partition_last_record_timestamp_seconds",
            "Kafka's time of the newest record read from an assigned partition.", labels=labels,
        )  # fmt: skip
        now, behind = self._now(), self._state.behind()
        self._since = {
            place: self._since.get(place, now) for place, one in behind.items() if one.records
        }
        for place, one in behind.items():
            values = (place[0], str(place[1]))
            lag.add_metric(values, one.records)
            since = one.oldest_ms / 1000 if one.oldest_ms else self._since.get(place, now)
            age.add_metric(values, max(0.0, now - since) if one.records else 0)
            if one.newest_ms:
                newest.add_metric(values, one.newest_ms / 1000)
        partitions = GaugeMetricFamily(
            "flashfeed_partitions", "Partitions of flashfeed.records owned, by state.",
            labels=("state",),
        )  # fmt: skip
        for state, count in self._state.partitions().items():
            partitions.add_metric((state,), count)
        failures = CounterMetricFamily(
            "flashfeed_publish_failures",
            "Writes to Kafka that failed: refused, too_large, not_acknowledged, fenced.",
            labels=("reason",),
        )  # fmt: skip
        for reason, count in self._state.failures().items():
            failures.add_metric((reason,), count)
        held_back = GaugeMetricFamily(
            "flashfeed_held_back_partitions",
            "Assigned partitions not fetched from, because what was fetched is not done.",
            sum(one.held_back for one in behind.values()),
        )
        queued = GaugeMetricFamily(
            "flashfeed_queued_records", "Records that wait at their sessions' owners.",
            self._state.queued(),
        )  # fmt: skip
        return lag, age, newest, partitions, failures, held_back, queued
