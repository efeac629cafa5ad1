"""A scorecard's answers as bins and points, against what they must add up to."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.heads.score_curves import learning_curve, reliability_bins, wilson_interval
from flashfeed.heads.scorecard import Kept, Scorecard
from flashfeed.models.learning import Prediction


def card(n: int, knows: float) -> Scorecard:
    draw, made = random.Random(5), Scorecard(2)
    for _ in range(n):
        label = draw.randrange(2)
        share = 0.5 + (0.5 - label) * 2 * knows * draw.random()
        forecast = (share, 1 - share)
        parts = {"mixed": forecast, "base_rate": (0.5, 0.5), "persistence": (0.4, 0.6)}
        made.learn(Prediction("mixed", 0, parts), label)
    return made


@given(share=st.floats(0, 1), n=st.integers(1, 10_000))
def test_an_interval_holds_its_share_and_narrows(share: float, n: int) -> None:
    low, high = wilson_interval(share, n)
    assert 0 <= low <= share <= high <= 1
    assert high > low
    wider = wilson_interval(share, max(1, n // 4))
    assert high - low <= wider[1] - wider[0] + 1e-12


def test_an_interval_is_as_published() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, and 0 of 20."""
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_the_bins_hold_every_answer() -> None:
    kept = list(card(500, 0.4).kept)
    bins = reliability_bins(kept)
    assert sum(one.answers for one in bins) == 500
    right = sum(one.answers * one.right for one in bins)
    assert right == pytest.approx(sum(max(k.forecast) == k.forecast[k.label] for k in kept))
    assert [one.confidence for one in bins] == sorted(one.confidence for one in bins)
    assert reliability_bins(kept[:19]) == [] == reliability_bins([])


@given(n=st.integers(1, 700), points=st.integers(1, 300))
def test_the_curve_ends_where_the_score_stands(n: int, points: int) -> None:
    made = card(n, 0.3)
    curve = learning_curve(made.kept, points)
    assert len(curve) == min(n, points)
    assert [one.label for one in curve] == sorted({one.label for one in curve})
    last = curve[-1]
    assert last.label == n
    assert last.own == pytest.approx(made.scores().log_loss)
    assert last.base_rate == pytest.approx(math.log(2))
    assert learning_curve([]) == []


def test_a_certain_mistake_costs_a_finite_loss() -> None:
    kept = Kept((0.0, 1.0), (0.5, 0.5), (0.5, 0.5), 0, 1, False)
    [one] = learning_curve([kept])
    assert math.isfinite(one.own)
