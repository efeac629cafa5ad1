"""Two forecasters of the same labels: the interval holds the truth about as often as it says."""

from __future__ import annotations

import numpy as np
import pytest

from flashfeed.heads.paired import MOMENTS_MIN, Pair, difference


def pairs(
    n: int, gap: float, seed: int = 1, wait: int = 1, memory: float = 0.0, sessions: int = 1
) -> list[Pair]:
    """Losses that differ by `gap` in the mean, each moment's noise carried on by `memory`, and
    the same for all sessions."""
    draw = np.random.default_rng(seed)
    noise, found = 0.0, []
    for time in range(n):
        noise = memory * noise + draw.normal()
        found += [Pair(time, time + wait, 1.0 + gap + noise, 1.0) for _ in range(sessions)]
    return found


def test_nothing_to_compare_is_nothing() -> None:
    assert difference([]) is None


def test_few_moments_give_a_mean_and_no_interval() -> None:
    found = difference(pairs(MOMENTS_MIN - 1, 0.5))
    assert found is not None
    assert (found.labels, found.low, found.high, found.p) == (MOMENTS_MIN - 1, None, None, None)
    assert found.mean == pytest.approx(found.one - found.other)


def test_a_better_one_is_told_and_the_same_losses_are_no_difference() -> None:
    better = difference(pairs(400, -0.5))
    assert better is not None and better.low is not None and better.high is not None
    assert better.low < better.mean < better.high < 0
    assert better.p is not None and better.p < 0.01
    same = difference([one._replace(one=one.other) for one in pairs(100, 0.0)])
    assert same is not None
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_the_interval_holds_the_truth_also_where_neighbours_are_alike() -> None:
    """Without blocks an interval of such losses would be half as wide, and wrong twice as
    often; sessions that move together are no more moments."""
    held = 0
    for seed in range(100):
        found = difference(pairs(300, 0.0, seed, wait=10, memory=0.7, sessions=3))
        assert found is not None and found.low is not None and found.high is not None
        assert found.block == 10
        held += found.low <= 0 <= found.high
    assert held >= 85


def test_the_order_in_which_they_come_says_nothing_and_the_block_leaves_four() -> None:
    come = pairs(40, 0.1, wait=30)
    found = difference(come)
    assert found is not None and found.block == 10
    assert difference(come[::-1]) == found
