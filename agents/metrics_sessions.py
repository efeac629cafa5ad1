"""The metrics of the sessions' path: records applied, updates, answers, and what they cost.

Every series of a session has the same three labels, its scope: tenant, feed and type. Their
children are looked up once for each scope, since every step comes through here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter

from flashfeed.engine import Update
from flashfeed.engine.stats import Buckets
from flashfeed.models.events import FlashReady
from flashfeed.models.messages import Records
from flashfeed.models.probe_session import is_probe

from .cost import Costs
from .metric_names import MetricNames, Scope
from .plain_histogram import PlainHistogram
from .session_step import Step

SCOPE: Final = ("tenant", "feed", "type")
RESULTS: Final = ("applied", "duplicate", "late", "correction", "dropped", "coalesced")
UPDATE_BOUNDS_S: Final = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0,
    30.0,
)  # fmt: skip
RECEIPT_BOUNDS_S: Final = (
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0,
    60.0, 120.0, 300.0,
)  # fmt: skip
CONFIDENCE_BOUNDS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
FRESH_BOUNDS_S: Final = (
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0,
    7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0,
)  # fmt: skip


class SessionMetrics:
    """What steps and their answers move. The series of every feed's sessions are there from the
    start: a rate does not see a series' first value. Those of `flashfeed probe` are no work of
    anybody's, and count in what they cost alone."""

    def __init__(self, names: MetricNames, costs: Costs, registry: CollectorRegistry) -> None:
        self._names = names
        self._costs = costs
        self._applied = Counter(
            "flashfeed_applied_records",
            "Records that came to sessions, by result; a correction is applied too. Where two "
            "feeds share a session, what waited together counts for the feed that came first.",
            (*SCOPE, "result"), registry=registry,
        )  # fmt: skip
        self._updates = Counter(
            "flashfeed_updates", "Applied session updates.", SCOPE, registry=registry
        )
        self._answers = Counter(
            "flashfeed_answers",
            "Answers to flash queries; value is one of the choices, empty for free text.",
            (*SCOPE, "query", "value", "changed"), registry=registry,
        )  # fmt: skip
        self._corrected = Counter(
            "flashfeed_corrected_answers",
            "Answers whose choice the prior correction changed.", (*SCOPE, "query"),
            registry=registry,
        )  # fmt: skip
        self._abstained = Counter(
            "flashfeed_abstained_answers",
            "Answers that were less sure than their question's min_confidence.",
            (*SCOPE, "query"), registry=registry,
        )  # fmt: skip
        self._held = Counter(
            "flashfeed_held_answers",
            "Answers that stayed as they were because of their question's hysteresis.",
            (*SCOPE, "query"), registry=registry,
        )  # fmt: skip
        self._confidence = PlainHistogram(
            "flashfeed_answer_confidence", "Probability of the answers given.",
            (*SCOPE, "query"), CONFIDENCE_BOUNDS, registry,
        )  # fmt: skip
        self._candles = Counter(
            "flashfeed_candles",
            "Candles written as lines: final ones, and live ones each time they changed.",
            ["result"], registry=registry,
        )  # fmt: skip
        self._update = PlainHistogram(
            "flashfeed_update_seconds",
            "An update in the engine, from its call to its last answer.",
            SCOPE, UPDATE_BOUNDS_S, registry,
        )  # fmt: skip
        self._receipt = PlainHistogram(
            "flashfeed_receipt_latency_seconds",
            "From a message on flashfeed.records to its answers acknowledged.",
            SCOPE, RECEIPT_BOUNDS_S, registry,
        )  # fmt: skip
        self._fresh = PlainHistogram(
            "flashfeed_update_latency_seconds",
            "From a source record's Kafka timestamp to its flash_ready acknowledged, of sessions "
            "with a standing question.",
            SCOPE, FRESH_BOUNDS_S, registry,
        )  # fmt: skip
        self._scopes: dict[Scope, _Counts] = {}
        for result in ("final", "live"):
            self._candles.labels(result)
        for scope, questions in names.scopes.items():
            counts = self._scopes[scope] = self._counts(scope)
            for label in questions:
                self._confidence.of(*scope, label)
                for counter in (self._corrected, self._abstained, self._held):
                    counter.labels(*scope, label)
                for value in names.values(label):
                    self._answer(scope, counts, label, value, changed=False)
                    self._answer(scope, counts, label, value, changed=True)

    def stepped(
        self, step: Step, update: Update, answers: Iterable[FlashReady], now_ms: float
    ) -> None:
        """A step is durable and its answers are out, at `now_ms`: its records count, what
        the engine did for it, and what it was answered."""
        feed, spec = _feed(step), step.head.spec
        if not feed and is_probe(step.head.session_id):
            self._costs.probed(update)
            return
        scope = (self._names.tenant(spec.tenant), self._names.feed(feed), spec.type)
        counts = self._scopes.get(scope)
        if counts is None:
            counts = self._scopes[scope] = self._counts(scope)
        self._count_records(step, counts)
        if update.decodes:
            counts.updates.inc()
            counts.update_s.add(update.wall_s)
            self._costs.add(scope[0], scope[1], step.queries, update)
        for one in answers:
            self._answered(scope, counts, one)
        for message in step.messages:
            if message.written_ms and message.records:
                counts.receipt_s.add(max(0.0, (now_ms - message.written_ms) / 1000))
        if step.received_ms and spec.flash:
            counts.fresh_s.add_all(
                [(now_ms - one) / 1000 if one < now_ms else 0.0 for one in step.received_ms]
            )

    def _count_records(self, step: Step, counts: _Counts) -> None:
        numbers = (
            step.taken + step.texts, step.duplicates, step.late, step.corrected,
            step.dropped, step.coalesced,
        )  # fmt: skip
        for counter, number in zip(counts.records, numbers, strict=True):
            if number:
                counter.inc(number)
        if step.final:
            self._candles.labels("final").inc(step.final)
        if step.live:
            self._candles.labels("live").inc(step.live)

    def _answered(self, scope: Scope, counts: _Counts, one: FlashReady) -> None:
        names = self._names
        label = names.query(one.name)
        value = names.value(one.name, one.value)
        self._answer(scope, counts, label, value, changed=one.changed).inc()
        self._confidence.of(*scope, label).add(one.confidence)
        if one.raw is not None and one.raw.value != one.value and not one.held:
            self._corrected.labels(*scope, label).inc()
        if one.abstained:
            self._abstained.labels(*scope, label).inc()
        if one.held:
            self._held.labels(*scope, label).inc()

    def _answer(
        self, scope: Scope, counts: _Counts, label: str, value: str, *, changed: bool
    ) -> Counter:
        key = (label, value, changed)
        counter = counts.answers.get(key)
        if counter is None:
            word = "true" if changed else "false"
            counter = counts.answers[key] = self._answers.labels(*scope, label, value, word)
        return counter

    def _counts(self, scope: Scope) -> _Counts:
        return _Counts(
            tuple(self._applied.labels(*scope, result) for result in RESULTS),
            self._updates.labels(*scope),
            self._update.of(*scope),
            self._receipt.of(*scope),
            self._fresh.of(*scope),
            {},
        )


class _Counts(NamedTuple):
    """A scope's children, looked up once."""

    records: tuple[Counter, ...]
    updates: Counter
    update_s: Buckets
    receipt_s: Buckets
    fresh_s: Buckets
    answers: dict[tuple[str, str, bool], Counter]


def _feed(step: Step) -> str:
    """The feed that brought a step's records; the session's own where they do not say."""
    for one in step.messages:
        if isinstance(one.message, Records):
            return one.message.feed or step.head.feed
    return step.head.feed
