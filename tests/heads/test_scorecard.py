"""The running scorecard equals a plain computation over everything, and its parts the textbook."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from flashfeed.heads.learner import Head
from flashfeed.heads.scorecard import (
    KEPT_MAX,
    Scorecard,
    auc,
    brier,
    calibration_error,
    reliability,
    skill_interval,
)
from flashfeed.models.learning import Prediction

from .synthetic import stream, taught


def test_the_running_figures_are_those_of_a_plain_recomputation() -> None:
    said = taught(Head(2), stream(400, 1.0, 1.0, rate=0.6))
    card = Scorecard(2)
    for prediction, label in said:
        card.learn(prediction, label)
    scores = card.scores()
    rows = np.array([prediction.forecast for prediction, _ in said])
    base = np.array([prediction.parts["base_rate"] for prediction, _ in said])
    last = np.array([prediction.parts["persistence"] for prediction, _ in said])
    labels = np.array([label for _, label in said])
    truth = np.eye(2)[labels]

    def plain(forecasts: np.ndarray) -> float:
        return float(((forecasts[:, 1] - labels) ** 2).mean())

    assert scores.labels == 400
    assert scores.brier == pytest.approx(plain(rows))
    assert scores.skill_base_rate == pytest.approx(1 - plain(rows) / plain(base))
    assert scores.skill_persistence == pytest.approx(1 - plain(rows) / plain(last))
    assert scores.log_loss == pytest.approx(-np.log((rows * truth).sum(axis=1)).mean())
    assert scores.accuracy == pytest.approx((rows.argmax(axis=1) == labels).mean())
    assert scores.sharpness == pytest.approx(rows.max(axis=1).mean() - 0.5)
    inside = [label in prediction.answers for prediction, label in said]
    assert scores.coverage == pytest.approx(np.mean(inside))
    assert scores.set_size == pytest.approx(np.mean([len(one.answers) for one, _ in said]))
    low, high = scores.skill_low, scores.skill_high
    assert low is not None
    assert high is not None
    assert scores.skill_base_rate is not None
    assert low < scores.skill_base_rate < high


def test_auc_is_how_often_a_true_one_ranks_above_a_false_one() -> None:
    draw = np.random.default_rng(8)
    labels = draw.integers(0, 2, 60)
    scores = np.round(draw.normal(size=60) + labels, 1)  # with ties
    pairs = list(itertools.product(scores[labels == 1], scores[labels == 0]))
    expected = sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)
    assert auc(np.stack([-scores, scores], axis=1), labels) == pytest.approx(expected)
    assert auc(np.zeros((3, 2)), np.ones(3, np.int64)) is None


def test_brier_of_two_choices_is_the_squared_error() -> None:
    assert brier((0.3, 0.7), 1) == pytest.approx(0.09)
    assert brier((0.2, 0.3, 0.5), 2) == pytest.approx(0.5 * (0.04 + 0.09 + 0.25))


@pytest.mark.parametrize("bins", [None, 10])
def test_the_calibration_error_is_near_what_it_was_made_with(bins: int | None) -> None:
    draw = np.random.default_rng(9)
    confidences = draw.uniform(0.5, 0.9, 20_000)
    good = calibration_error(confidences, draw.random(20_000) < confidences, bins)
    assert good is not None
    assert good < 0.02
    too_sure = calibration_error(confidences, draw.random(20_000) < confidences - 0.2, bins)
    assert too_sure == pytest.approx(0.2, abs=0.02)


def test_who_is_wrong_the_surer_they_are_is_not_calibrated() -> None:
    """Errors of opposite sign do not cancel: confidence and accuracy are 0.75 in the mean."""
    confidences = np.repeat([0.55, 0.95], 500)
    right = np.concatenate([np.arange(500) < 450, np.arange(500) < 300])
    assert calibration_error(confidences, right) == pytest.approx(0.35)
    assert reliability(confidences, right) == [
        pytest.approx((500, 0.55, 0.9)),
        pytest.approx((500, 0.95, 0.6)),
    ]
    draw = np.random.default_rng(12)
    spread = draw.uniform(0.5, 1.0, 1000)
    turned = calibration_error(spread, draw.random(1000) < 1.5 - spread)
    assert turned == pytest.approx(0.25, abs=0.04)  # the mean of |2 * confidence - 1.5|
    rates = [rate for _, _, rate in reliability(spread, draw.random(1000) < 1.5 - spread)]
    assert rates[0] > 0.8
    assert rates[-1] < 0.7


@pytest.mark.parametrize(("labels", "most"), [(200, 0.07), (1000, 0.045), (2000, 0.035)])
def test_chance_alone_makes_a_small_error_of_few_labels(labels: int, most: float) -> None:
    draw = np.random.default_rng(13)
    found = []
    for _ in range(100):
        confidences = draw.uniform(0.5, 1.0, labels)
        found.append(calibration_error(confidences, draw.random(labels) < confidences))
    assert np.mean([one for one in found if one is not None]) < most


def test_reliability_keeps_every_answer_and_cuts_between_confidences_alone() -> None:
    draw = np.random.default_rng(10)
    confidences = np.round(draw.uniform(0.5, 1.0, 500), 2)
    right = draw.random(500) < 0.7
    rows = reliability(confidences, right)
    assert len(rows) == 8
    assert sum(n for n, _, _ in rows) == 500
    assert sum(n * rate for n, _, rate in rows) == pytest.approx(right.sum())
    assert min(n for n, _, _ in rows) > 40
    mixed = draw.permutation(500)
    assert reliability(confidences[mixed], right[mixed]) == [pytest.approx(row) for row in rows]
    base_rate_alone = np.full(500, 0.7)
    assert reliability(base_rate_alone, np.arange(500) < 350) == [pytest.approx((500, 0.7, 0.7))]
    assert reliability(confidences[:5], np.ones(5, bool)) == []
    assert calibration_error(confidences[:5], np.ones(5, bool)) is None


def sums_of(own: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """What a scorecard has summed of two losses, label by label."""
    return {
        "paired": len(own),
        "brier": own.sum(),
        "base_rate": reference.sum(),
        "brier_squared": own @ own,
        "brier_base_rate": own @ reference,
        "base_rate_squared": reference @ reference,
    }


def test_the_interval_holds_the_true_skill_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(11)
    held = 0
    for _ in range(400):
        outcome = draw.random(300) < 0.5
        own, reference = (0.7 - outcome) ** 2, np.full(300, 0.25)
        low, high = skill_interval(300, sums_of(own, reference))
        assert low is not None
        assert high is not None
        held += low <= 1 - 0.29 / 0.25 <= high
    assert held / 400 == pytest.approx(0.95, abs=0.03)
    few = np.array([0.1] * 3)
    assert skill_interval(3, sums_of(few, 2 * few)) == (None, None)
    same = np.full(100, 0.1)
    assert skill_interval(100, sums_of(same, 3 * same)) == (
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
    )


def lately_worse(labels: int) -> list[tuple[Prediction, int]]:
    """Right 9 times of 10 in the first half, and by chance in the second."""
    draw, found = np.random.default_rng(14), []
    for number in range(labels):
        label = int(draw.integers(2))
        right = draw.random() < (0.9 if number < labels / 2 else 0.5)
        share = 0.9 if (label == 1) == right else 0.1
        parts = {
            "mixed": (1 - share, share),
            "base_rate": (0.5, 0.5),
            "persistence": (0.5, 0.5),
        }
        found.append((Prediction("mixed", number, parts), label))
    return found


def carded(said: list[tuple[Prediction, int]]) -> Scorecard:
    card = Scorecard(2)
    for prediction, label in said:
        card.learn(prediction, label)
    return card


def test_the_skill_and_its_interval_are_of_the_same_answers() -> None:
    said = lately_worse(2 * KEPT_MAX)
    scores = carded(said).scores()
    own = np.array([brier(prediction.forecast, label) for prediction, label in said])
    reference = np.full(len(own), 0.25)
    residuals = own - own.mean() / 0.25 * reference
    half = 1.96 * residuals.std(ddof=1) / 0.25 / np.sqrt(len(own))
    skill = 1 - own.mean() / reference.mean()
    assert scores.skill_base_rate == pytest.approx(skill)
    assert (scores.skill_low, scores.skill_high) == pytest.approx((skill - half, skill + half))
    newest = carded(said[-KEPT_MAX:]).scores()
    assert newest.skill_high is not None
    assert newest.skill_high < skill - half  # what it was of before


def test_sums_of_an_older_version_are_gone_on_from() -> None:
    """They lack what the interval is made of: its spread is that of the newest labels."""
    said = lately_worse(3000)
    whole = carded(said)
    older = {name: whole.sums[name] for name in ("brier", "base_rate", "persistence", "log_loss")}
    resumed = carded(said[-KEPT_MAX:])
    resumed.resume(3000, older | {"right": whole.sums["right"]})
    before, after = whole.scores(), resumed.scores()
    figures = ("labels", "brier", "skill_base_rate", "log_loss", "accuracy")
    assert [getattr(after, one) for one in figures] == [getattr(before, one) for one in figures]
    assert after.skill_low is not None
    assert after.skill_high is not None
    assert before.skill_low is not None
    assert before.skill_high is not None
    assert after.skill_low + after.skill_high == pytest.approx(2 * (after.skill_base_rate or 0))
    assert after.skill_high - after.skill_low == pytest.approx(
        before.skill_high - before.skill_low, rel=0.2
    )
    again = carded(said[-KEPT_MAX:])
    again.resume(3000, whole.sums)
    assert again.scores() == before


def test_no_label_is_no_figure() -> None:
    scores = Scorecard(2).scores()
    assert scores.labels == 0
    assert scores.brier is None
