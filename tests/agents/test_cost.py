"""What a question costs, from updates and from what the engine alone knows."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client import CollectorRegistry
from pytest import approx

from flashfeed.agents.cost import Costs
from flashfeed.agents.metric_names import MetricNames
from flashfeed.engine import EngineStats, Update
from flashfeed.engine.stats import Spent
from flashfeed.models.config import PricesConfig
from flashfeed.models.session import FlashQuery

NAMES = MetricNames(("acme",), ("candles",), {"trend": ("up", "down"), "last": ()})
TREND = FlashQuery(id=1, query="Up?", name="trend")
MINE = FlashQuery(id=2, query="Who?", name="mine")
UPDATE = Update(
    answers=(),
    n_tokens=100,
    ingest_tokens=30,
    question_tokens=18,
    generated_tokens=2,
    decode_s=5.0,
    wall_s=6.0,
    decodes=2,
    query_tokens=(12, 8),
)


def costs(prices: PricesConfig) -> tuple[Costs, CollectorRegistry]:
    registry = CollectorRegistry()
    made = Costs(NAMES, prices)
    registry.register(made)
    return made, registry


def value(registry: CollectorRegistry, what: str, query: str, tenant: str = "acme") -> float:
    feed = "" if query in ("(generate)", "(background)", "(embed)") else "candles"
    labels = {"tenant": tenant, "feed": feed, "query": query}
    if what == "money":
        labels["currency"] = "EUR"
    found = registry.get_sample_value(f"flashfeed_cost_{what}_total", labels)
    return -1 if found is None else found


def test_an_updates_tokens_and_seconds_go_to_its_data_and_questions() -> None:
    made, registry = costs(PricesConfig())
    made.add("acme", "candles", (TREND, MINE), UPDATE)
    made.add("acme", "candles", (TREND, MINE), UPDATE)
    made.asked("acme", "candles", replace(UPDATE, ingest_tokens=0, query_tokens=(10,)))
    for query, tokens, seconds in (
        ("(data)", 60, 6.0), ("trend", 24, 2.4), ("other", 16, 1.6), ("(asked)", 10, 5.0),
    ):  # fmt: skip
        assert value(registry, "tokens", query) == tokens
        assert value(registry, "device_seconds", query) == approx(seconds)
        assert value(registry, "money", query) == -1


def test_what_was_read_to_somebody_is_known_by_tenant() -> None:
    made, registry = costs(PricesConfig())
    spent = {
        ("acme", "generate"): Spent(7, 0.7),
        ("acme", "background"): Spent(5, 0.5),
        ("acme", "embed"): Spent(6, 0.6),
        ("acme", "ingest"): Spent(1000, 9.0),  # counted by its updates
        ("eve", "generate"): Spent(3, 0.1),
        ("bob", "generate"): Spent(4, 0.1),
    }
    made.engine = lambda: EngineStats(spent=spent)
    assert value(registry, "tokens", "(generate)") == 7
    assert value(registry, "tokens", "(background)") == 5
    assert value(registry, "tokens", "(embed)") == 6
    assert value(registry, "tokens", "(generate)", "other") == 7
    assert value(registry, "tokens", "(data)") == -1
    assert spent["acme", "generate"].tokens == 7  # a scrape changes nothing


def test_prices_make_money_of_it() -> None:
    made, registry = costs(PricesConfig(currency="EUR", device_hour=3.6, million_tokens=100))
    made.add("acme", "candles", (TREND, MINE), UPDATE)
    assert value(registry, "money", "trend") == approx(1.2 / 3600 * 3.6 + 12 / 1e6 * 100)
