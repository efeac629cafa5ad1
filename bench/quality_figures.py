"""What the last line of bench/quality.py says: figures over the questions of the first text of
each series, and whether they are those wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from quality_series import Question

from flashfeed.heads.scorecard import Scores, auc, calibration_error
from flashfeed.models.learning import Forecast, Prediction

GROUPS = ("said", "combined", "forecast")
"""The groups that the figures are of; what only compares texts and wordings is in none."""

AT_LEAST = {
    "auc_said_head_median": 0.9,
    "auc_combined_head_median": 0.7,
    "brier_skill_median": 0.3,
    "skill_next_day": -0.02,
    "skill_random": -0.02,
}
ABOVE = {"skill_glucose_180": 0.2}
AT_MOST = {"ece": 0.05}


@dataclass
class Result:
    """What one question came to, in one text."""

    question: Question
    text: str
    scores: Scores
    published: list[tuple[Prediction, int]]
    raw: list[Forecast]
    leading: str

    def auc_of(self, part: str) -> float:
        """The AUC of the published forecasts, of one forecaster's, or of the raw logits; chance
        where all labels are the same."""
        labels = np.array([label for _, label in self.published])
        if part == "logits":
            rows = self.raw
        elif part == "head":
            rows = [one.forecast for one, _ in self.published]
        else:
            rows = [one.parts.get(part, one.parts["base_rate"]) for one, _ in self.published]
        area = auc(np.array(rows), labels) if rows else None
        return 0.5 if area is None else area

    @property
    def from_base_rate(self) -> float:
        """How far the published probabilities are from the base rate's, on the average: 0 for
        who says that it does not know."""
        apart = [abs(one.forecast[1] - one.parts["base_rate"][1]) for one, _ in self.published]
        return sum(apart) / max(1, len(apart))


def summary(results: Sequence[Result]) -> dict[str, float]:
    """The figures of the questions that there are, not rounded."""
    counted = [one for one in results if one.question.group in GROUPS]

    def of(*groups: str) -> list[Result]:
        return [one for one in counted if one.question.group in groups]

    figures: dict[str, float] = {}
    for name in ("said", "combined"):
        for part in ("logits", "head", "hidden"):
            if group := of(name):
                figures[f"auc_{name}_{part}_median"] = median(one.auc_of(part) for one in group)
    if known := of("said", "combined"):
        skills = [one.scores.skill_base_rate or 0.0 for one in known]
        figures["brier_skill_median"] = median(skills)
    if counted:
        rows = [(one.forecast, label) for each in counted for one, label in each.published]
        forecasts = np.array([forecast for forecast, _ in rows])
        right = forecasts.argmax(axis=1) == np.array([label for _, label in rows])
        figures["ece"] = calibration_error(forecasts.max(axis=1), right, bins=10) or 0.0
        covered = [one.scores.coverage or 0.0 for one in counted]
        figures["coverage_min"], figures["coverage_max"] = min(covered), max(covered)
    for one in of("forecast"):
        name = one.question.name
        figures[f"skill_{name}"] = one.scores.skill_base_rate or 0.0
        figures[f"skill_{name}_persistence"] = one.scores.skill_persistence or 0.0
        figures[f"{name}_from_base_rate"] = one.from_base_rate
    return figures


def passes(figures: dict[str, float], missing: Sequence[str]) -> bool:
    """Whether every question was asked and the figures, not rounded, are those wanted."""
    return (
        not missing
        and all(figures[name] >= least for name, least in AT_LEAST.items())
        and all(figures[name] > least for name, least in ABOVE.items())
        and all(figures[name] <= most for name, most in AT_MOST.items())
    )
