"""The worker's metrics, in one registry of its own; `/metrics` of the bridge renders them.

SI base units; labels bounded: never a session id, and only names that metric_names.py lets
through. docs/METRICS.md has every series.

metrics_sessions.py  records applied, updates, answers, freshness; cost.py: what they cost
metrics_engine.py    the engine's, read from its numbers at a scrape
metrics_kafka.py     partitions and failed writes, read at a scrape
metrics_learning.py  outcomes, examples, and the scores of heads
metrics_machine.py   build, process, GPUs
metrics_text.py      a scrape as text
here                 the rest: feeds, supplies, generations, rebalances
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Metric,
    ProcessCollector,
    disable_created_metrics,
)

from flashfeed.engine import Engine, EngineStats, Update
from flashfeed.models.config import PricesConfig
from flashfeed.models.errors import FlashfeedError, Unavailable
from flashfeed.models.session import SessionSpec

from .cost import Costs
from .dead_letters import DeadLetter
from .metric_names import MetricNames
from .metrics_engine import EngineCollector
from .metrics_kafka import KafkaCollector, KafkaState
from .metrics_learning import LearningMetrics
from .metrics_machine import BuildCollector, GpuCollector
from .metrics_sessions import SessionMetrics
from .plain_histogram import PlainHistogram

BATCH_BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
TAKEOVER_BOUNDS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
FIRST_TOKEN_BOUNDS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
NEXT_TOKEN_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


def reasons(of: type[FlashfeedError] = FlashfeedError) -> set[str]:
    """The reasons that errors have."""
    return {of.reason}.union(*map(reasons, of.__subclasses__()))


class Metrics:
    """Every series that a worker exports; the methods are the events that move them.
    `names` are the labels that there may be."""

    def __init__(
        self,
        names: MetricNames | None = None,
        prices: PricesConfig = PricesConfig(),  # noqa: B008 (frozen)
    ) -> None:
        # Of every counter the time when it began: twice the series for what nobody asks.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._names = names or MetricNames()
        self.registry = registry = CollectorRegistry()
        self._engine: Engine | None = None
        self._costs = Costs(self._names, prices)
        self._costs.engine = self._stats
        self.kafka = KafkaState()
        self._build = BuildCollector()
        self.sessions = SessionMetrics(self._names, self._costs, registry)
        self.learning = LearningMetrics(self._names, registry)
        for collector in (
            EngineCollector(self._stats), self._costs, KafkaCollector(self.kafka), self._build,
            GpuCollector(),
        ):  # fmt: skip
            registry.register(collector)
        ProcessCollector(registry=registry)
        self._records = Counter(
            "flashfeed_records",
            "What came from the source by feed and result. read: messages; the others: the "
            "records in them.",
            ["feed", "result"], registry=registry,
        )  # fmt: skip
        self._batches = PlainHistogram(
            "flashfeed_batch_records", "Records of a fetched partition batch.", ["feed"],
            BATCH_BOUNDS, registry,
        )  # fmt: skip
        self._dead_letters = Counter(
            "flashfeed_dead_letters", "Dead letters by reason.", ["reason"], registry=registry
        )
        self._generations = Counter(
            "flashfeed_generations", "Generations that decoded something.", registry=registry
        )
        self._generated = Counter(
            "flashfeed_generated_tokens", "Tokens that generations wrote.", registry=registry
        )
        self._first_token = PlainHistogram(
            "flashfeed_first_token_seconds",
            "From the call of a generation to its first token.", (), FIRST_TOKEN_BOUNDS_S,
            registry,
        )  # fmt: skip
        self._next_token = PlainHistogram(
            "flashfeed_next_token_seconds", "From one token of a generation to the next.", (),
            NEXT_TOKEN_BOUNDS_S, registry,
        )  # fmt: skip
        self._rebalances = Counter(
            "flashfeed_rebalances", "Assignments of partitions to this worker.", registry=registry
        )
        self._takeovers = PlainHistogram(
            "flashfeed_takeover_seconds",
            "From a partition's assignment to its sessions being served.", (), TAKEOVER_BOUNDS_S,
            registry,
        )  # fmt: skip
        self._sessions = Gauge(
            "flashfeed_sessions", "Live sessions, those of the probe not among them.",
            registry=registry,
        )  # fmt: skip
        self._failures = Counter(
            "flashfeed_session_failures", "Sessions that failed, by reason.", ["reason"],
            registry=registry,
        )  # fmt: skip
        # Each is there from the start: a rate does not see a series' first value.
        for reason in reasons():
            self._failures.labels(reason)
            self._dead_letters.labels(reason)
        for feed in self._names.feeds:
            self._batches.of(feed)
            for result in ("read", "mapped", "skipped", "dead_letter"):
                self._records.labels(feed, result)
        self._dropped_subscribers = Counter(
            "flashfeed_subscribers_dropped",
            "Readers of a session's events let go because a whole queue waited for them.",
            registry=registry,
        )
        self._halvings = Counter(
            "flashfeed_window_halvings",
            "Windows made smaller because their lines had no room in the context.",
            registry=registry,
        )

        self._idle_ended = Counter(
            "flashfeed_idle_sessions",
            "Sessions of feeds that ended because nothing reached them.", registry=registry,
        )  # fmt: skip
        self._paused = Gauge(
            "flashfeed_paused_partitions",
            "Feed partitions that wait for a schema or a birth.", registry=registry,
        )  # fmt: skip
        self._schemas = Counter(
            "flashfeed_schema_requests",
            "Requests to the schema registry: fetched, unknown or failed.", ["result"],
            registry=registry,
        )  # fmt: skip
        for result in ("fetched", "unknown", "failed"):
            self._schemas.labels(result)
        self._births = Counter(
            "flashfeed_births", "Sparkplug births: read, waited (for), missing.", ["result"],
            registry=registry,
        )  # fmt: skip
        for result in ("read", "waited", "missing"):
            self._births.labels(result)
        self._sequence_gaps = Counter(
            "flashfeed_sparkplug_sequence_gaps",
            "Sparkplug messages that do not follow their node's last one.", registry=registry,
        )  # fmt: skip

    def idle_ended(self, sessions: int) -> None:
        """So many sessions were idle for too long."""
        self._idle_ended.inc(sessions)

    def paused(self, partitions: int) -> None:
        """A feed partition more, or less, waits for what is outside."""
        self._paused.inc(partitions)

    def schema_request(self, result: str) -> None:
        """The schema registry was asked."""
        self._schemas.labels(result).inc()

    def birth(self, result: str) -> None:
        """A Sparkplug birth was `read`, `waited` for, or `missing`."""
        self._births.labels(result).inc()

    def sequence_gap(self) -> None:
        """Sparkplug messages are missing, or out of order."""
        self._sequence_gaps.inc()

    def feed_batch(
        self, feed: str, read: int, mapped: int, skipped: int, letters: Sequence[DeadLetter]
    ) -> None:
        """A feed's batch is on its way to the sessions."""
        self._batches.of(feed).add(read)
        self._records.labels(feed, "read").inc(read)
        self._records.labels(feed, "mapped").inc(mapped)
        self._records.labels(feed, "skipped").inc(skipped)
        self._records.labels(feed, "dead_letter").inc(len(letters))
        self.dead_letters(letters)

    def dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Dead letters were written."""
        for reason, count in Tally(letter.reason for letter in letters).items():
            self._dead_letters.labels(reason).inc(count)

    def window_halved(self) -> None:
        """A session's window has no room and is smaller from now on."""
        self._halvings.inc()

    def asked(self, spec: SessionSpec, feed: str, update: Update) -> None:
        """A question of no session's own was answered."""
        tenant = self._names.tenant(spec.tenant)
        self._costs.asked(tenant, self._names.feed(feed), update)

    def first_token(self, seconds: float) -> None:
        """A generation's first token came, that long after its call."""
        self._first_token.of().add(seconds)

    def next_token(self, seconds: float) -> None:
        """A generation's next token came, that long after the one before."""
        self._next_token.of().add(seconds)

    def generated(self, tokens: int) -> None:
        """A generation wrote that many tokens."""
        self._generated.inc(tokens)
        if tokens:
            self._generations.inc()

    def rebalanced(self) -> None:
        """The group gave this worker its partitions anew."""
        self._rebalances.inc()

    def took_over(self, seconds: float) -> None:
        """A partition is served, that long after it was assigned."""
        self._takeovers.of().add(seconds)

    def session_failed(self, reason: str) -> None:
        """A session takes no more records."""
        self._failures.labels(reason).inc()

    def subscribers_dropped(self, readers: int) -> None:
        """So many readers fell too far behind."""
        self._dropped_subscribers.inc(readers)

    def watch(self, sessions: Callable[[], int]) -> None:
        """Read the number of live sessions at scrape time."""
        self._sessions.set_function(sessions)

    def watch_engine(self, engine: Engine) -> None:
        """Read the engine's own numbers at scrape time."""
        self._engine = engine
        stats = self._stats()
        self._build.llama_cpp = stats.llama_cpp if stats is not None else ""

    def _stats(self) -> EngineStats | None:
        try:
            return self._engine.stats() if self._engine is not None else None
        except Unavailable:  # not started yet, or stopped
            return None

    def collect(self) -> list[Metric]:
        """All series as they are now; metrics_text.py writes them."""
        return list(self.registry.collect())
