"""A histogram for the paths that every record takes: counting costs a third of a
prometheus_client observation, since one thread writes and a scrape reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from flashfeed.engine.stats import Buckets


class PlainHistogram(Collector):
    """A classic histogram by labels."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._documentation = name, documentation
        self._labels, self._bounds = tuple(labels), tuple(bounds)
        self._children: dict[tuple[str, ...], Buckets] = {}
        registry.register(self)
        if not labels:
            self.of()

    def of(self, *values: str) -> Buckets:
        """The histogram of those labels' values."""
        child = self._children.get(values)
        if child is None:
            assert len(values) == len(self._labels), values
            child = self._children[values] = Buckets(self._bounds)
        return child

    def describe(self) -> Iterable[Metric]:
        """Its name, so that no other has it."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """The family, for a scrape."""
        family = self._family()
        for values, child in list(self._children.items()):
            add_buckets(family, values, child)
        return [family]

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=self._labels)


def add_buckets(family: HistogramMetricFamily, values: Sequence[str], buckets: Buckets) -> None:
    """Add a histogram's values to its family."""
    family.add_metric(values, buckets.cumulative(), buckets.total)
