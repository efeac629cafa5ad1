"""What is recorded is predicted before it is learnt from, in each session's own order."""

from __future__ import annotations

import math
import random

import pytest

from flashfeed.heads.backtest import Backtest
from flashfeed.heads.learner import LABELS_MIN
from flashfeed.heads.outcome_rule import OutcomeRule
from flashfeed.models.learning import Features
from flashfeed.models.records import Iot

CHOICES = ("no", "yes")
RULE = "yes if value > value@0 else no"


def run(n: int, knows: float, scored_from: int = 0, after: str = "2 records") -> Backtest:
    """Two sessions of random values; the model says yes to all, by `knows` more where it is."""
    draw = random.Random(3)
    backtest = Backtest(OutcomeRule(after, RULE, "iot", CHOICES), 2, scored_from)
    values = {name: [draw.random() for _ in range(n + 2)] for name in ("a", "b")}
    for number in range(n):
        for name, course in values.items():
            truth = course[number + 2] > course[number]
            share = 1 / (1 + math.exp(-(4 + knows * (2 * truth - 1) + draw.gauss(0, 1))))
            backtest.record(name, Iot(sid=name, val=course[number]))
            features = Features((math.log1p(-share), math.log(share)))
            backtest.answer(name, number, features, (1 - share, share))
            backtest.settle(name)
    return backtest


def test_every_answer_is_scored_once_its_outcome_is_there() -> None:
    backtest = run(50, 0.0)
    assert backtest.waiting == 2 * 2
    assert (backtest.published.labels, backtest.learnt.labels) == (96, 96)
    assert backtest.head.version == 96
    assert backtest.unknown == 0


def test_what_was_published_stays_bad_and_what_was_learnt_gets_good() -> None:
    backtest = run(300, 2.0)
    published, learnt = backtest.published.scores(), backtest.learnt.scores()
    assert published.skill_base_rate is not None
    assert published.skill_base_rate < -0.3
    assert learnt.skill_base_rate is not None
    assert learnt.skill_base_rate > 0.3
    assert published.auc == pytest.approx(learnt.auc, abs=0.1)


def test_only_what_is_known_at_the_time_is_used() -> None:
    """With labels that come later than all answers, nothing was learnt when they were given."""
    backtest = Backtest(OutcomeRule("100 records", RULE, "iot", CHOICES), 2)
    for number in range(2 * LABELS_MIN):
        backtest.record("a", Iot(sid="a", val=number % 7))
        backtest.answer("a", number, Features((0.0, -1.0)), (0.7, 0.3))
        assert backtest.settle("a") == []
    for number in range(100):
        backtest.record("a", Iot(sid="a", val=number % 5))
    examples = backtest.settle("a")
    assert len(examples) == 2 * LABELS_MIN
    assert {example.prediction.version for example in examples} == {0}


@pytest.mark.parametrize("after", ["1100 records", "1d"])
def test_a_long_rule_labels_every_answer_once(after: str) -> None:
    """Of minute bars, each with an answer."""
    backtest = Backtest(OutcomeRule(after, RULE, "iot", CHOICES), 2)
    for number in range(1500):
        backtest.record("a", Iot(sid="a", val=number % 7, timestamp=number * 60))
        backtest.answer("a", number, Features((0.0, -1.0)), (0.7, 0.3))
        backtest.settle("a")
    labels = 1500 - (1100 if after.endswith("records") else 24 * 60)
    assert (backtest.published.labels, backtest.waiting) == (labels, 1500 - labels)
    assert (backtest.dropped, backtest.unknown) == (0, 0)


def test_scoring_begins_where_it_is_said_and_unknown_labels_are_counted() -> None:
    assert run(50, 0.0, scored_from=40).learnt.labels == 96 - 40 - 4
    backtest = Backtest(OutcomeRule("0 records", "yes if value@-1 > 0 else no", "iot", CHOICES), 2)
    backtest.record("a", Iot(sid="a", val=1.0))
    backtest.answer("a", 0, Features((0.0, 0.0)), (0.5, 0.5))
    assert backtest.settle("a") == []
    assert backtest.unknown == 1
