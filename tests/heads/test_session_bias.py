"""A session that differs gets a bias of its own; the others, and memory, are left in peace."""

from __future__ import annotations

import numpy as np
import pytest

from flashfeed.heads.session_bias import SessionBias


def test_a_session_that_differs_is_followed_and_the_others_are_not_moved() -> None:
    draw = np.random.default_rng(7)
    bias = SessionBias(2, 10)
    shared = np.array([0.5, 0.5])
    for _ in range(1500):
        for session, rate in (("calm", 0.5), ("hot", 0.8)):
            forecast = bias.apply(session, shared)
            bias.learn(session, forecast, int(draw.random() < rate))
    assert bias.apply("hot", shared)[1] > 0.65
    assert bias.apply("calm", shared)[1] == pytest.approx(0.5, abs=0.1)
    assert bias.apply("new", shared)[1] == 0.5


def test_the_least_lately_used_session_is_forgotten() -> None:
    bias = SessionBias(2, 2)
    for session in ("a", "b", "a", "c"):
        bias.learn(session, np.array([0.5, 0.5]), 1)
    assert list(bias.by_session) == ["a", "c"]
