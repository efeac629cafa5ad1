"""What a probe reads beside the hidden state: how it moved."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flashfeed.heads.moved import MEMORY_ANSWERS, with_move
from flashfeed.heads.probe import fit_probe
from flashfeed.heads.scorecard import auc

STATES = st.integers(1, 12).flatmap(
    lambda size: st.lists(
        hnp.arrays("<f2", size, elements=st.floats(-1000, 1000, width=16)), min_size=1, max_size=9
    )
)


def course(states: list[np.ndarray]) -> np.ndarray:
    """The rows of a session's answers, one after the other."""
    mean, rows = b"", []
    for state in states:
        row, mean = with_move(state.astype("<f2").tobytes(), mean)
        rows.append(np.frombuffer(row, "<f2").astype(float))
    return np.stack(rows)


@given(states=STATES)
def test_the_state_stands_as_it_is_and_beside_it_what_it_left(states: list[np.ndarray]) -> None:
    rows, mean = course(states), states[0].astype(float)
    size = len(states[0])
    for row, state in zip(rows, states, strict=True):
        assert (row[:size] == state).all()
        np.testing.assert_allclose(row[size:], state.astype(float) - mean, atol=8)
        mean = mean + (state.astype(float) - mean) / MEMORY_ANSWERS
    assert not rows[0][size:].any()


def test_a_mean_of_another_model_is_none_and_nothing_overflows() -> None:
    state = np.full(4, 65504, "<f2").tobytes()
    row, mean = with_move(state, b"\0" * 6)
    assert not np.frombuffer(row, "<f2")[4:].any()
    low = np.full(4, -65504, "<f2").tobytes()
    row, mean = with_move(low, mean)
    assert np.isfinite(np.frombuffer(row, "<f2").astype(float)).all()
    assert np.isfinite(np.frombuffer(mean, "<f2").astype(float)).all()


def test_an_answer_is_read_where_the_context_drifts() -> None:
    """A signal under a drift ten times as large, in a direction that changes."""
    draw = np.random.default_rng(0)
    n, size = 500, 60
    drift = np.cumsum(draw.normal(0, 1, (n, size)), axis=0)
    labels = draw.integers(0, 2, n)
    signal = np.outer(labels - 0.5, draw.normal(0, 1, size)) * 1.5
    states = list((drift + signal).astype("<f2"))
    rows = course(states)
    areas = [
        auc(fit_probe(part[:300], labels[:300], 2).apply(part[300:]), labels[300:])
        for part in (rows[:, :size], rows)
    ]
    assert areas[0] is not None and areas[1] is not None
    assert areas[1] > areas[0] + 0.1
    assert areas[1] > 0.9
