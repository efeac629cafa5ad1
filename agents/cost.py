"""What a question costs: tokens, device seconds and money by tenant, feed and question.

`query` is the question's name, or one of these, which no question can have:

(data)        the new records themselves, which all questions of a session share
(asked)       questions that were asked once, of a session's data
(generate)    what was generated for somebody to read
(background)  prefixes, the next generations of windows, sessions that came back
(embed)       texts that somebody wanted the vectors of
(probe)       what `flashfeed probe` asked, of no tenant and no feed

(generate), (background) and (embed) are known by tenant alone. All of them together are what
the engine decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from flashfeed.engine import EngineStats, Update
from flashfeed.engine.stats import Spent
from flashfeed.models.config import PricesConfig
from flashfeed.models.session import FlashQuery

from .metric_names import MetricNames

DATA: Final = "(data)"
ASKED: Final = "(asked)"
PROBE: Final = "(probe)"
BY_TENANT: Final = {
    "generate": "(generate)",
    "background": "(background)",
    "embed": "(embed)",
}
HOUR_S: Final = 3600.0
MILLION: Final = 1_000_000.0


class Costs(Collector):
    """Counted where an update ends; the engine adds what it alone knows. What the configuration
    names is there from the start: an increase does not see a series' first value."""

    def __init__(self, names: MetricNames, prices: PricesConfig) -> None:
        self._names = names
        self._prices = prices
        self._spent: dict[tuple[str, str, str], Spent] = {}
        self.engine: Callable[[], EngineStats | None] = lambda: None
        for (tenant, feed, _), questions in names.scopes.items():
            for query in (DATA, ASKED, *questions):
                self._spent[tenant, feed, query] = Spent()

    def add(self, tenant: str, feed: str, queries: Iterable[FlashQuery], update: Update) -> None:
        """An update's tokens; its device seconds are shared by them."""
        total = update.ingest_tokens + sum(update.query_tokens)
        if not total:
            return
        share = update.decode_s / total
        self._add(tenant, feed, DATA, update.ingest_tokens, share)
        for query, tokens in zip(queries, update.query_tokens, strict=False):
            self._add(tenant, feed, self._names.query(query.label), tokens, share)

    def asked(self, tenant: str, feed: str, update: Update) -> None:
        """A question that is no session's own."""
        tokens = sum(update.query_tokens)
        self._add(tenant, feed, ASKED, tokens, update.decode_s / max(1, tokens))

    def probed(self, update: Update) -> None:
        """A session of the probe's had an update."""
        tokens = update.ingest_tokens + sum(update.query_tokens)
        self._add("", "", PROBE, tokens, update.decode_s / max(1, tokens))

    def _add(self, tenant: str, feed: str, query: str, tokens: int, share: float) -> None:
        spent = self._spent.get((tenant, feed, query))
        if spent is None:
            spent = self._spent[tenant, feed, query] = Spent()
        spent.tokens += tokens
        spent.seconds += tokens * share

    def describe(self) -> Iterable[Metric]:
        """The names, so that no other has them."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        """The families, for a scrape."""
        tokens, seconds, money = families = self._families()
        for labels, spent in self._all().items():
            tokens.add_metric(labels, spent.tokens)
            seconds.add_metric(labels, spent.seconds)
            money.add_metric((self._prices.currency, *labels), self._price(spent))
        return families if self._prices.given else families[:2]

    def _all(self) -> dict[tuple[str, str, str], Spent]:
        every = dict(self._spent)
        for tenant in self._names.tenants:
            every |= {(tenant, "", query): Spent() for query in BY_TENANT.values()}
        stats = self.engine()
        for (tenant, kind), spent in (stats.spent if stats is not None else {}).items():
            if query := BY_TENANT.get(kind):
                whole = every.setdefault((self._names.tenant(tenant), "", query), Spent())
                whole.tokens += spent.tokens
                whole.seconds += spent.seconds
        return every

    def _price(self, spent: Spent) -> float:
        prices = self._prices
        return (
            spent.seconds / HOUR_S * prices.device_hour
            + spent.tokens / MILLION * prices.million_tokens
        )

    @staticmethod
    def _families() -> tuple[CounterMetricFamily, CounterMetricFamily, CounterMetricFamily]:
        labels = ("tenant", "feed", "query")
        return (
            CounterMetricFamily(
                "flashfeed_cost_tokens", "Tokens decoded, by what they were for.", labels=labels
            ),
            CounterMetricFamily(
                "flashfeed_cost_device_seconds",
                "Seconds inside llama_decode, shared by tokens.", labels=labels,
            ),
            CounterMetricFamily(
                "flashfeed_cost_money",
                "Tokens and device seconds at the configuration's prices, in its currency.",
                labels=("currency", *labels),
            ),
        )  # fmt: skip
