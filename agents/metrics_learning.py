"""Metrics of questions that learn: outcomes and examples as they come, and how right the
questions were, read at a scrape from the heads that this worker learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from flashfeed.heads.scorecard import KEPT_MAX, Scores
from flashfeed.models.learning import HeadName, LabelledBy

from .metric_names import MetricNames
from .session_learning import RESULTS

LABELS: Final = ("tenant", "spec", "query")
_NEWEST: Final = f"Of the newest {KEPT_MAX} answers."
SCORES: Final[dict[str, tuple[str, str]]] = {
    "brier": ("brier", "Mean squared error of the probabilities; 0 is best."),
    "skill_base_rate": (
        "skill",
        "Part of the base rate's Brier score that is saved; below 0: worse than that.",
    ),
    "skill_low": (
        "skill_low",
        "Lower end of the skill's 95% interval, of answers as if independent.",
    ),
    "skill_high": (
        "skill_high",
        "Upper end of the skill's 95% interval, of answers as if independent.",
    ),
    "skill_persistence": ("skill_persistence", "The same against the last known answer again."),
    "log_loss": ("log_loss", "Mean surprise in nats."),
    "accuracy": ("accuracy", "How often the likeliest choice was the true one."),
    "auc": (
        "auc",
        f"How often a true answer is ranked above a false one; 0.5 is chance. {_NEWEST}",
    ),
    "ece": ("ece", f"How far confidences are from how often they were right. {_NEWEST}"),
    "sharpness": (
        "sharpness",
        f"Mean confidence less that of saying nothing, one part in the choices. {_NEWEST}",
    ),
    "coverage": (
        "coverage",
        f"How often the truth was in the answer's set of choices. {_NEWEST}",
    ),
}


class HeadScore(NamedTuple):
    """How right one head was; `version` labels are learnt, `drifted` is the one at which a
    forecaster that was fitted last lost its lead (0: never)."""

    head: HeadName
    scores: Scores
    version: int
    drifted: int


class LearningMetrics(Collector):
    """What questions learn. `heads` gives the scores of those that this worker learns."""

    def __init__(self, names: MetricNames, registry: CollectorRegistry) -> None:
        self._names = names
        self.heads: Callable[[], Iterable[HeadScore]] = tuple
        self._outcomes = Counter(
            "flashfeed_outcomes",
            "Outcomes of answers by who gave them and what became of them.",
            ["by", "result"], registry=registry,
        )  # fmt: skip
        for result in RESULTS:
            for by in ("user", "rule"):
                if (by == "user" and result != "unknown") or result in ("applied", "unknown"):
                    self._outcomes.labels(by, result)
        self._examples = Counter(
            "flashfeed_examples",
            "Examples that reached their heads: learnt, repeated, refused.",
            ["result"], registry=registry,
        )  # fmt: skip
        for result in ("learnt", "repeated", "refused"):
            self._examples.labels(result)
        registry.register(self)

    def outcomes(self, counts: Mapping[tuple[LabelledBy, str], int]) -> None:
        """So many outcomes were applied, or not."""
        for (by, result), count in counts.items():
            self._outcomes.labels(by, result).inc(count)

    def examples(self, result: str, count: int) -> None:
        """So many examples were `learnt`, `repeated` or `refused`."""
        self._examples.labels(result).inc(count)

    def collect(self) -> Iterable[Metric]:
        """The scores as they are now."""
        labels = GaugeMetricFamily(
            "flashfeed_score_labels", "Labels that a question's score is over.", labels=LABELS
        )
        drifted = GaugeMetricFamily(
            "flashfeed_head_drifted_labels",
            "Labels since a question's fitted forecasters last lost the lead; 0: never.",
            labels=LABELS,
        )
        figures = {
            name: GaugeMetricFamily(f"flashfeed_score_{short}", what, labels=LABELS)
            for name, (short, what) in SCORES.items()
        }
        for one in self.heads():
            series = (
                self._names.tenant(one.head.tenant),
                one.head.key.split("/")[1],
                self._names.query(one.head.label),
            )
            if series[::2] != (one.head.tenant, one.head.label):  # would be one another's
                continue
            labels.add_metric(series, one.scores.labels)
            drifted.add_metric(series, one.version - one.drifted if one.drifted else 0)
            for name, family in figures.items():
                value = getattr(one.scores, name)
                if value is not None:
                    family.add_metric(series, value)
        return [labels, drifted, *figures.values()]
