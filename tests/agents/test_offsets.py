"""Invariant 1: nothing is committed past an unfinished record."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.agents.offsets import PartitionOffsets


def test_only_the_contiguous_head_is_committable() -> None:
    offsets = PartitionOffsets()
    offsets.fetched(2585, 2585)
    offsets.fetched(2586, 2589)
    assert offsets.done(2586, 0)
    assert offsets.committable is None  # stock Faust commits 2590 here
    assert offsets.done(2585, 0)
    assert offsets.committable == 2590


def test_holes_of_compaction_and_transaction_markers_do_not_stall() -> None:
    offsets = PartitionOffsets()
    offsets.fetched(0, 3)
    offsets.fetched(9, 12)
    offsets.done(0, 0)
    offsets.done(9, 0)
    assert offsets.committable == 13


def test_a_late_acknowledgement_of_a_lost_partition_counts_for_nothing() -> None:
    offsets = PartitionOffsets()
    offsets.fetched(0, 9)
    offsets.restart()
    offsets.fetched(0, 9)
    assert not offsets.done(0, epoch=0)
    assert offsets.committable is None
    assert offsets.done(0, epoch=1)
    assert offsets.committable == 10


@pytest.mark.parametrize("batch", [(5, 4), (3, 9), (9, 12)])
def test_batches_that_cannot_be_are_refused(batch: tuple[int, int]) -> None:
    offsets = PartitionOffsets()
    offsets.fetched(5, 9)
    with pytest.raises(ValueError, match="expected"):
        offsets.fetched(*batch)


Steps = st.lists(
    st.one_of(
        st.tuples(st.just("fetch"), st.integers(1, 5), st.integers(0, 3)),
        st.tuples(st.just("done"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(Steps)
def test_no_interleaving_commits_past_a_batch(
    steps: list[tuple[str, int, int]],
) -> None:
    offsets = PartitionOffsets()
    next_offset = committed = 0
    unfinished: dict[tuple[int, int], int] = {}  # (first, epoch) -> last
    handed_out: list[tuple[int, int]] = []
    for kind, number, gap in steps:
        if kind == "fetch":
            first = next_offset + gap
            next_offset = first + number
            offsets.fetched(first, next_offset - 1)
            unfinished[first, offsets.epoch] = next_offset - 1
            handed_out.append((first, offsets.epoch))
        elif kind == "done" and handed_out:
            batch = handed_out[number % len(handed_out)]
            offsets.done(*batch)
            unfinished.pop(batch, None)
        elif kind == "restart":
            offsets.restart()
            unfinished.clear()
            next_offset = committed  # read again from the commit
        if offsets.committable is not None:
            assert offsets.committable >= committed or kind == "restart"
            committed = max(committed, offsets.committable)
            head = min(
                (first for first, epoch in unfinished if epoch == offsets.epoch), default=None
            )
            assert head is None or committed <= head
