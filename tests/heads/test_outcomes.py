"""A label is applied once, whatever comes twice, too late, or says something else."""

from __future__ import annotations

from flashfeed.heads.outcome_rule import PENDING_MAX
from flashfeed.heads.outcomes import Pending, PendingAnswers
from flashfeed.models.learning import Example, Features, Prediction

FEATURES = Features((-0.1, -2.0))
PENDING = Pending(FEATURES, Prediction("prior", 0, {"prior": (0.9, 0.1)}, (0,)))


def test_a_label_makes_one_example() -> None:
    answers = PendingAnswers("s")
    for version in (1, 2):
        answers.keep(version, PENDING)
    assert answers.apply(1, 0) == Example("s", FEATURES, 0, PENDING.prediction)
    assert answers.apply(1, 0) is None
    assert answers.apply(1, 1) is None
    assert answers.apply(7, 1) is None
    assert answers.apply(2, 1) == Example("s", FEATURES, 1, PENDING.prediction)


def test_an_answer_that_comes_again_after_its_label_is_not_waited_for_again() -> None:
    answers = PendingAnswers("s")
    answers.keep(1, PENDING)
    answers.apply(1, 0)
    answers.keep(1, PENDING)
    assert not answers.waiting
    assert answers.apply(1, 0) is None


def test_the_oldest_answers_and_labels_are_forgotten() -> None:
    answers = PendingAnswers("s")
    for version in range(PENDING_MAX + 5):
        answers.keep(version, PENDING)
    assert answers.apply(4, 1) is None
    for version in range(5, PENDING_MAX + 5):
        answers.apply(version, 1)
    assert (len(answers.waiting), len(answers.labels)) == (0, PENDING_MAX)
