"""The worker's metrics, in one registry of its own. SI base units; labels bounded:
never a session id, and of questions the configuration's names alone: what a tenant calls
its own is nobody else's to read. `/metrics` of the bridge renders them."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Collection, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .dead_letters import DeadLetter

LATENCY_BUCKETS_S = (
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip


OTHER_QUERY = "other"
"""The label of every question that the configuration does not name."""


class Metrics:
    """Every series that a worker exports; the methods are the events that move them.
    `queries` are the questions that have a label of their own."""

    def __init__(self, queries: Collection[str] = ()) -> None:
        self._named = frozenset(queries)
        self.registry = registry = CollectorRegistry()
        self._records = Counter(
            "flashfeed_records", "Source records by feed and result.", ["feed", "result"],
            registry=registry,
        )  # fmt: skip
        self._batches = Counter(
            "flashfeed_batches", "Fetched partition batches by feed.", ["feed"], registry=registry
        )
        self._dead_letters = Counter(
            "flashfeed_dead_letters", "Dead letters by reason.", ["reason"], registry=registry
        )
        self._updates = Counter(
            "flashfeed_updates", "Applied session updates by type.", ["type"], registry=registry
        )
        self._applied = Counter(
            "flashfeed_applied_records", "Records applied to sessions by result.", ["result"],
            registry=registry,
        )  # fmt: skip
        self._candles = Counter(
            "flashfeed_candles",
            "Candles written as lines: final ones, and live ones each time they changed.",
            ["result"], registry=registry,
        )  # fmt: skip
        self._tokens = Counter(
            "flashfeed_engine_tokens", "Tokens decoded by kind.", ["kind"], registry=registry
        )
        self._answers = Counter(
            "flashfeed_answers", "Answers to flash queries.", ["query", "changed"],
            registry=registry,
        )  # fmt: skip
        self._corrected = Counter(
            "flashfeed_corrected_answers",
            "Answers whose choice the prior correction changed.", ["query"], registry=registry,
        )  # fmt: skip
        self._generations = Counter(
            "flashfeed_generations", "Generations that decoded something.", registry=registry
        )
        self._decode = Counter(
            "flashfeed_engine_decode_seconds", "Time inside llama_decode.", registry=registry
        )
        self._latency = Histogram(
            "flashfeed_update_latency_seconds",
            "From a source record's Kafka timestamp to its flash_ready acknowledged.",
            buckets=LATENCY_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._step = Histogram(
            "flashfeed_update_seconds", "Engine time of one update.",
            buckets=LATENCY_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._lag = Gauge(
            "flashfeed_consumer_lag_records",
            "Records behind the end of an assigned partition.",
            ["topic", "partition"], registry=registry,
        )  # fmt: skip
        self._sessions = Gauge("flashfeed_sessions", "Live sessions.", registry=registry)
        self._failures = Counter(
            "flashfeed_session_failures", "Sessions that failed, by reason.", ["reason"],
            registry=registry,
        )  # fmt: skip

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
        self._births = Counter(
            "flashfeed_births", "Sparkplug births: read, waited for, missing.", ["result"],
            registry=registry,
        )  # fmt: skip
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
        """A Sparkplug birth was read, waited for, or did not come."""
        self._births.labels(result).inc()

    def sequence_gap(self) -> None:
        """Sparkplug messages are missing, or out of order."""
        self._sequence_gaps.inc()

    def feed_batch(
        self, feed: str, read: int, mapped: int, skipped: int, letters: Sequence[DeadLetter]
    ) -> None:
        """A feed's batch is on its way to the sessions."""
        self._batches.labels(feed).inc()
        self._records.labels(feed, "read").inc(read)
        self._records.labels(feed, "mapped").inc(mapped)
        self._records.labels(feed, "skipped").inc(skipped)
        self._records.labels(feed, "dead_letter").inc(len(letters))
        self.dead_letters(letters)

    def dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Dead letters were written."""
        for reason, count in Tally(letter.reason for letter in letters).items():
            self._dead_letters.labels(reason).inc(count)

    def applied(self, applied: int, duplicates: int, late: int, corrected: int) -> None:
        """Records reached their session, were seen before, or came too late; `corrected` of
        the applied took the place of another."""
        self._applied.labels("applied").inc(applied)
        self._applied.labels("duplicate").inc(duplicates)
        self._applied.labels("late").inc(late)
        self._applied.labels("correction").inc(corrected)

    def candles(self, final: int, live: int) -> None:
        """Candles became lines: for good, or for as long as they are open."""
        self._candles.labels("final").inc(final)
        self._candles.labels("live").inc(live)

    def relieved(self, dropped: int, coalesced: int) -> None:
        """A queue was full: records were dropped, or `coalesced` of the applied merged."""
        self._applied.labels("dropped").inc(dropped)
        self._applied.labels("coalesced").inc(coalesced)

    def update(
        self, type_: str, ingest: int, question: int, generated: int, decode_s: float, wall_s: float
    ) -> None:
        """The engine finished an update."""
        self._updates.labels(type_).inc()
        self._tokens.labels("ingest").inc(ingest)
        self._tokens.labels("flash").inc(question + generated)
        self._decode.inc(decode_s)
        self._step.observe(wall_s)

    def answer(self, query: str, changed: bool, corrected: bool) -> None:
        """An answer was published; `corrected`: the model alone would have said another."""
        label = query if query in self._named else OTHER_QUERY
        self._answers.labels(label, str(changed).lower()).inc()
        if corrected:
            self._corrected.labels(label).inc()

    def window_halved(self) -> None:
        """A session's window has no room and is smaller from now on."""
        self._halvings.inc()

    def asked(self, tokens: int) -> None:
        """A question of no session's own was answered with that many tokens."""
        self._tokens.labels("flash").inc(tokens)

    def generated(self, tokens: int) -> None:
        """A generation decoded that many tokens."""
        self._tokens.labels("generate").inc(tokens)
        if tokens:
            self._generations.inc()

    def latency(self, seconds: float) -> None:
        """A record's answers are out, that long after the record."""
        self._latency.observe(max(0.0, seconds))

    def session_failed(self, reason: str) -> None:
        """A session takes no more records."""
        self._failures.labels(reason).inc()

    def subscribers_dropped(self, readers: int) -> None:
        """So many readers fell too far behind."""
        self._dropped_subscribers.inc(readers)

    def watch(self, sessions: Callable[[], int]) -> None:
        """Read the number of live sessions at scrape time."""
        self._sessions.set_function(sessions)

    def render(self, lag: dict[tuple[str, int], int]) -> bytes:
        """All series in Prometheus' text format; lag of the partitions owned now."""
        self._lag.clear()
        for (topic, partition), records in lag.items():
            self._lag.labels(topic, str(partition)).set(records)
        return generate_latest(self.registry)
