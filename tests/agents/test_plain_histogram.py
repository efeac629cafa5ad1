"""Counting at once is counting one by one, and Prometheus' own histogram counts the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pytest import approx

from flashfeed.agents.plain_histogram import PlainHistogram
from flashfeed.engine.stats import Buckets

BOUNDS = (0.1, 1.0, 5.0)
VALUES = st.lists(st.sampled_from((0.0, 0.05, 0.1, 0.2, 1.0, 4.9, 5.0, 5.1, 1e9)))


@given(VALUES)
def test_counting_at_once_is_counting_one_by_one(values: list[float]) -> None:
    at_once, one_by_one = Buckets(BOUNDS), Buckets(BOUNDS)
    at_once.add_all(values)
    for value in values:
        one_by_one.add(value)
    assert at_once.counts == one_by_one.counts
    assert at_once.total == approx(one_by_one.total)
    assert at_once.count == len(values)


def samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (one.name, str(sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
        if not one.name.endswith("_created")
    }


@given(VALUES)
def test_prometheus_own_histogram_counts_the_same(values: list[float]) -> None:
    mine, theirs = CollectorRegistry(), CollectorRegistry()
    plain = PlainHistogram("x_seconds", "X.", ("kind",), BOUNDS, mine)
    own = Histogram("x_seconds", "X.", ["kind"], buckets=BOUNDS, registry=theirs)
    plain.of("a").add_all(values)
    for value in values:
        own.labels("a").observe(value)
    own.labels("a")
    assert samples(mine) == approx(samples(theirs))
