"""What steps move: each scope apart, there from the start, and the probe's nowhere but in costs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from flashfeed.agents.metric_names import MetricNames
from flashfeed.agents.metrics import Metrics
from flashfeed.agents.session_events import flash_events
from flashfeed.agents.session_step import Step
from flashfeed.engine import Update
from flashfeed.models.config import Config
from flashfeed.models.probe_session import PROBE_PREFIX
from flashfeed.models.session import Answer, FlashQuery, SessionSpec
from flashfeed.models.state import Head

CONFIG = msgspec.convert(
    {
        "feeds": {
            "candles": {"topics": ["a"], "preset": "cryptofeed", "template": "market"},
            "sensors": {"topics": ["b"], "template": "plain"},
        },
        "templates": {
            "market": {
                "type": "ohlcv",
                "flash": [
                    {"name": "trend", "query": "Up?", "choices": ["yes", "no"]},
                    {"name": "last", "query": "What is the last close?"},
                ],
            },
            "plain": {"type": "iot"},
        },
    },
    Config,
)
MARKET = {"tenant": "", "feed": "candles", "type": "ohlcv"}
FRESH = "flashfeed_update_latency_seconds"
NOW_MS = 1_000_000.0
QUERY = FlashQuery("Up?", name="trend", choices=("yes", "no"), id=1)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(MetricNames.of(CONFIG))


def step_of(session_id: str, feed: str, queries: tuple[FlashQuery, ...], *ages_s: float) -> Step:
    spec = SessionSpec(type="ohlcv", flash=queries)
    answers = tuple(Answer(one.id, "yes", 0.7, 1.0) for one in queries)
    head = Head(session_id=session_id, spec=spec, feed=feed, answers=answers)
    times = [int(NOW_MS - age * 1000) for age in ages_s]
    return Step(head, queries=queries, taken=len(times), received_ms=times)


def stepped(metrics: Metrics, step: Step) -> None:
    tokens = tuple(10 for _ in step.queries)
    update = Update((), 10, 30, sum(tokens), 1, 0.01, 0.01, 1, query_tokens=tokens)
    metrics.sessions.stepped(step, update, flash_events(step.head), NOW_MS)


def samples(registry: CollectorRegistry) -> dict[tuple[str, Any], float]:
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in registry.collect()
        for one in family.samples
        if one.name.startswith("flashfeed_")
    }


def test_what_the_configuration_names_has_its_series_from_the_start(metrics: Metrics) -> None:
    before = samples(metrics.registry)
    stepped(metrics, step_of("s", "candles", (QUERY,), 1.0))
    metrics.feed_batch("candles", 3, 2, 1, [])
    for result in ("read", "waited", "missing"):
        metrics.birth(result)
    for result in ("fetched", "unknown", "failed"):
        metrics.schema_request(result)
    after = samples(metrics.registry)
    assert after.keys() == before.keys()
    moved = {name for (name, _), value in after.items() if value} - {
        name for (name, _), value in before.items() if value
    }
    assert {
        f"{FRESH}_count", "flashfeed_answers_total", "flashfeed_answer_confidence_count",
        "flashfeed_cost_tokens_total", "flashfeed_records_total", "flashfeed_updates_total",
        "flashfeed_batch_records_count", "flashfeed_applied_records_total",
    } <= moved  # fmt: skip
    answers = "flashfeed_answers_total"
    for query, value in (("trend", "yes"), ("trend", "no"), ("last", "")):
        for changed in ("true", "false"):
            labels = MARKET | {"query": query, "value": value, "changed": changed}
            assert (answers, tuple(sorted(labels.items()))) in before


def test_each_feed_has_its_own_freshness(metrics: Metrics) -> None:
    stepped(metrics, step_of("s", "candles", (QUERY,), 1.0, 9.0))
    get = metrics.registry.get_sample_value
    assert get(f"{FRESH}_count", MARKET) == 2
    assert get(f"{FRESH}_bucket", {**MARKET, "le": "5.0"}) == 1
    assert get(f"{FRESH}_count", {"tenant": "", "feed": "sensors", "type": "iot"}) == 0


def test_a_session_that_is_asked_nothing_has_no_freshness(metrics: Metrics) -> None:
    stepped(metrics, step_of("s", "candles", (), 1.0))
    get = metrics.registry.get_sample_value
    assert get(f"{FRESH}_count", MARKET) == 0
    assert get("flashfeed_applied_records_total", {**MARKET, "result": "applied"}) == 1


def test_the_probes_sessions_count_in_costs_alone(metrics: Metrics) -> None:
    before = samples(metrics.registry)
    stepped(metrics, step_of(f"{PROBE_PREFIX}0", "", (QUERY,), 1.0))
    after = samples(metrics.registry)
    changed = {key for key, value in after.items() if before.get(key) != value}
    labels = (("feed", ""), ("query", "(probe)"), ("tenant", ""))
    assert changed == {
        ("flashfeed_cost_tokens_total", labels),
        ("flashfeed_cost_device_seconds_total", labels),
    }
    # A record cannot hide itself by the name that it gives its session.
    stepped(metrics, step_of(f"{PROBE_PREFIX}0", "candles", (QUERY,), 1.0))
    assert metrics.registry.get_sample_value(f"{FRESH}_count", MARKET) == 1
