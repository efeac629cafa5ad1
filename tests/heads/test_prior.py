"""The prior correction: a bias goes, the order stays, a replay gives the same."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.heads.prior import (
    LOG_PROBABILITY_MIN,
    MEMORY_ANSWERS,
    SHRINK_ANSWERS,
    correct,
)
from flashfeed.models.session import Answer
from flashfeed.models.state import Prior

NAMES = ("yes", "no", "flat", "gone")


def answer_of(scores: Sequence[float]) -> Answer:
    """What an engine answers whose choices have these scores."""
    peak = max(scores)
    weights = [math.exp(score - peak) for score in scores]
    shares = dict(zip(NAMES, (weight / sum(weights) for weight in weights), strict=False))
    ranked = sorted(scores, reverse=True)
    best = NAMES[list(scores).index(ranked[0])]
    return Answer(1, best, shares[best], ranked[0] - ranked[1], probabilities=shares)


def stream(answers: Sequence[Answer], prior: Prior | None = None) -> list[Answer]:
    corrected = []
    for one in answers:
        answer, prior = correct(one, prior)
        corrected.append(answer)
    return corrected


def log_odds(answer: Answer) -> float:
    return math.log(answer.probabilities["yes"] / answer.probabilities["no"])


def area_under_curve(scored: Sequence[tuple[float, bool]]) -> float:
    """The share of (true, false) pairs in the right order."""
    true = [score for score, label in scored if label]
    false = [score for score, label in scored if not label]
    right = sum(t > f for t, f in itertools.product(true, false))
    return right / (len(true) * len(false))


def test_the_first_answer_is_as_it_was() -> None:
    raw = answer_of((2.0, 1.0))
    answer, prior = correct(raw, None)
    assert msgspec.structs.replace(answer, raw=None) == raw
    assert answer.raw is not None
    assert (answer.raw.value, answer.raw.confidence) == (raw.value, raw.confidence)
    assert (answer.raw.logit_gap, answer.raw.probabilities) == (raw.logit_gap, raw.probabilities)
    assert prior.count == 1


@pytest.mark.parametrize("bias", [(3.0, 0.0), (-2.0, 0.0), (1.0, -4.0, 2.5)])
def test_a_constant_bias_is_taken_off(bias: tuple[float, ...]) -> None:
    draw = random.Random(7)
    signals = [[draw.gauss(0, 1) for _ in bias] for _ in range(600)]
    biased = [answer_of([s + b for s, b in zip(one, bias, strict=True)]) for one in signals]
    said = [NAMES[one.index(max(one))] for one in signals]
    late = range(300, 600)

    def agreement(values: Sequence[str]) -> float:
        return sum(values[place] == said[place] for place in late) / len(late)

    corrected = stream(biased)
    assert agreement([one.value for one in biased]) < 0.75
    assert agreement([one.value for one in corrected]) > 0.9
    gaps = [log_odds(corrected[place]) - (signals[place][0] - signals[place][1]) for place in late]
    assert abs(sum(gaps) / len(gaps)) < 0.25


def test_half_of_the_bias_is_gone_after_so_many_answers() -> None:
    answers = stream([answer_of((3.0, 0.0))] * (SHRINK_ANSWERS + 1))
    assert log_odds(answers[-1]) == pytest.approx(1.5)


@given(
    past=st.lists(st.floats(-8, 8), max_size=40),
    one=st.floats(-8, 8),
    other=st.floats(-8, 8),
)
def test_a_prior_keeps_the_order_of_answers(past: list[float], one: float, other: float) -> None:
    prior = None
    for score in past:
        _, prior = correct(answer_of((score, 0.0)), prior)
    low, high = sorted((one, other))
    first, _ = correct(answer_of((low, 0.0)), prior)
    second, _ = correct(answer_of((high, 0.0)), prior)
    assert log_odds(first) <= log_odds(second) + 1e-9


def test_the_area_under_the_curve_stays() -> None:
    draw = random.Random(3)
    labels = [draw.random() < 0.5 for _ in range(800)]
    raw = [answer_of((draw.gauss(1.2 if label else -1.2, 1) + 2.0, 0.0)) for label in labels]
    corrected = stream(raw)
    late = slice(200, None)
    before = area_under_curve([(log_odds(a), b) for a, b in zip(raw, labels, strict=True)][late])
    after = area_under_curve(
        [(log_odds(a), b) for a, b in zip(corrected, labels, strict=True)][late]
    )
    assert 0.8 < before < 1
    assert after == pytest.approx(before, abs=0.003)


def test_it_forgets_what_is_long_ago() -> None:
    old = [answer_of((4.0, 0.0))] * (2 * MEMORY_ANSWERS)
    new = [answer_of((-4.0, 0.0))] * (4 * MEMORY_ANSWERS)
    prior: Prior | None = None
    for one in (*old, *new):
        _, prior = correct(one, prior)
    assert prior is not None
    assert prior.count == MEMORY_ANSWERS
    assert prior.means["yes"] - prior.means["no"] == pytest.approx(-4.0, abs=0.2)


@given(streams=st.integers(2, 4).flatmap(
    lambda n: st.lists(st.lists(st.floats(-900, 900), min_size=n, max_size=n), max_size=20)
))  # fmt: skip
def test_whatever_comes_is_a_probability_and_a_replay_is_the_same(
    streams: list[list[float]],
) -> None:
    answers = [answer_of(scores) for scores in streams]
    corrected = stream(answers)
    assert stream(answers) == corrected
    for one in corrected:
        assert sum(one.probabilities.values()) == pytest.approx(1)
        assert one.confidence == max(one.probabilities.values()) == one.probabilities[one.value]
        assert one.logit_gap >= 0
        assert all(math.isfinite(share) for share in one.probabilities.values())


def test_a_choice_ruled_out_moves_the_mean_so_far_and_no_further() -> None:
    _, prior = correct(answer_of((900.0, -900.0)), None)
    assert prior.means["no"] == LOG_PROBABILITY_MIN


def test_other_choices_begin_anew() -> None:
    _, prior = correct(answer_of((3.0, 0.0)), None)
    raw = answer_of((3.0, 0.0, 1.0))
    answer, again = correct(raw, prior)
    assert answer.probabilities == raw.probabilities
    assert (again.count, set(again.means)) == (1, {"yes", "no", "flat"})


def test_a_prior_survives_the_changelog() -> None:
    _, prior = correct(answer_of((0.3, 0.1)), None)
    assert msgspec.json.decode(msgspec.json.encode(prior), type=Prior) == prior
