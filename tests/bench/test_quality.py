"""bench/quality.py: which questions its figures are of, and when they are those wanted."""

from __future__ import annotations

from typing import Any

import pytest

from flashfeed.heads.scorecard import Scores
from flashfeed.models.learning import Prediction

PROBABLE = 0.75
BASE = 0.5
EXPECTED = {
    "said": {"up", "volume", "range", "above_140"},
    "combined": {"week", "highest", "falls", "changed"},
    "forecast": {"next_day", "glucose_180"},
}
GOOD = {
    "auc_said_head_median": 0.9,
    "auc_combined_head_median": 0.7,
    "brier_skill_median": 0.3,
    "skill_glucose_180": 0.2001,
    "skill_next_day": -0.02,
    "skill_random": -0.02,
    "ece": 0.05,
}


def result(name: str, group: str, right: float = PROBABLE, skill: float = 0.4) -> Any:
    """A question whose published 0.75 was right so often."""
    from quality_figures import Result
    from quality_series import Question

    published = []
    for number in range(400):
        choice = number // 4 % 2
        shares = (1 - PROBABLE, PROBABLE) if choice else (PROBABLE, 1 - PROBABLE)
        parts = {"base_rate": (BASE, BASE), "mixed": shares}
        label = choice if number % 4 < 4 * right else 1 - choice
        published.append((Prediction("mixed", 200 + number, parts), label))
    scores = Scores(400, skill_base_rate=skill, skill_persistence=0.1, coverage=0.9)
    raw = [(0.5, 0.5)] * 400
    return Result(Question(name, group, "?", "yes"), "ohlcv", scores, published, raw, "hidden")


def test_what_compares_texts_and_wordings_is_in_no_figure() -> None:
    from quality_figures import summary

    asked = [result("up", "said"), result("week", "combined"), result("next_day", "forecast")]
    figures = summary(asked)
    assert figures["ece"] < 0.01
    others = [result(group, group, right=0.0, skill=-5.0) for group in ("texts", "wording")]
    assert summary(asked + others) == figures


def test_a_forecast_says_how_far_it_is_from_the_base_rate() -> None:
    from quality_figures import summary

    figures = summary([result("next_day", "forecast")])
    assert figures["next_day_from_base_rate"] == pytest.approx(PROBABLE - BASE)


@pytest.mark.parametrize("groups", [(), ("said",), ("forecast",), ("texts",)])
def test_figures_of_some_questions_are_those_that_there_are(groups: tuple[str, ...]) -> None:
    from quality_figures import summary

    figures = summary([result(group, group) for group in groups])
    assert ("auc_said_head_median" in figures) is ("said" in groups)
    assert ("ece" in figures) is bool({"said", "forecast"} & set(groups))


@pytest.mark.parametrize(
    ("name", "value", "good"),
    [
        ("skill_glucose_180", 0.2001, True),
        ("skill_glucose_180", 0.2, False),
        ("auc_said_head_median", 0.8999, False),
        ("auc_combined_head_median", 0.6999, False),
        ("brier_skill_median", 0.2999, False),
        ("skill_next_day", -0.0201, False),
        ("ece", 0.0501, False),
    ],
)
def test_figures_pass_as_they_are_not_as_they_are_rounded(
    name: str, value: float, good: bool
) -> None:
    from quality_figures import passes

    assert passes(GOOD | {name: value}, []) is good


def test_what_was_not_measured_does_not_pass() -> None:
    from quality_figures import passes

    assert not passes({}, ["up"])
    assert not passes(GOOD, ["up"])


def test_the_questions_that_the_issue_names_are_asked() -> None:
    from quality_series import plans

    asked = [one for plan in plans().values() for one in plan.questions]
    assert {group: {one.name for one in asked if one.group == group} for group in EXPECTED} == (
        EXPECTED
    )
