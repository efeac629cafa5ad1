"""A scrape as text: what prometheus_client writes, and not too much of it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Metric,
    Summary,
    disable_created_metrics,
    generate_latest,
)

from flashfeed.agents.metrics_text import text_of
from flashfeed.agents.plain_histogram import PlainHistogram

from many_sessions import TENANTS, busy_metrics

SESSIONS = 10_000
BYTES_MAX = 2_000_000

LABEL = st.text(max_size=20)
VALUE = st.floats(allow_nan=True, allow_infinity=True)


@given(st.dictionaries(st.tuples(LABEL, LABEL), VALUE, max_size=5), LABEL)
def test_it_is_what_prometheus_client_writes(
    values: dict[tuple[str, str], float], doc: str
) -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]  # as Metrics does
    registry = CollectorRegistry()
    gauge = Gauge("a", doc, ["zone", "area"], registry=registry)
    counter = Counter("b", doc, ["x"], registry=registry)
    histogram = PlainHistogram("c", doc, ("y",), (0.1, 5e9), registry)
    Gauge("d", doc, registry=registry).set(1e21)
    for (first, second), value in values.items():
        gauge.labels(first, second).set(value)
        counter.labels(first).inc(0 if math.isnan(value) else abs(value))
        histogram.of(second).add(value)
    assert text_of(registry.collect()) == generate_latest(registry)


class Collected(CollectorRegistry):
    """Families that were collected before."""

    def __init__(self, families: list[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def test_a_type_that_it_does_not_know_is_an_error() -> None:
    registry = CollectorRegistry()
    Summary("s", "of something", registry=registry)
    with pytest.raises(ValueError, match="s: expected no summary"):
        text_of(registry.collect())


def test_ten_thousand_sessions_are_no_larger_than_their_scopes() -> None:
    families = busy_metrics(SESSIONS).collect()
    text = text_of(families)
    assert text == generate_latest(Collected(families))
    assert text.count(b"flashfeed_updates_total{") == TENANTS * 5
    lines = [line for line in text.splitlines() if line.startswith(b"flashfeed_updates_total{")]
    assert sum(float(line.rpartition(b" ")[2]) for line in lines) == SESSIONS
    assert b"session-" not in text
    assert len(text) < BYTES_MAX
