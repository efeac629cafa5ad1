"""The planner: a plan never exceeds the limits, and any cut gives the same context."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.engine.plan import (
    Asked,
    Pass,
    PlanFault,
    Run,
    Want,
    check_pass,
    cut,
    plan_questions,
    plan_rounds,
)
from flashfeed.engine.settings import Limits

VOCABULARY = 1000
token = st.integers(0, VOCABULARY - 1)
tokens = st.lists(token, min_size=1, max_size=30).map(tuple)
choice = st.lists(token, min_size=1, max_size=4).map(tuple)


@st.composite
def questions(draw: st.DrawFn) -> Asked:
    choices = draw(st.one_of(st.just(()), st.lists(choice, min_size=2, max_size=6).map(tuple)))
    return Asked(draw(tokens), choices, draw(st.integers(1, 20)))


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    batch = draw(st.integers(1, 40))
    return Limits(batch, 10_000, 256, draw(st.integers(1, batch)), VOCABULARY)


def placed(passes: tuple[Pass, ...]) -> dict[int, list[tuple[int, int, bool]]]:
    """What each sequence gets: (position, token, is output), in order."""
    held = defaultdict(list)
    for one in passes:
        for run in one.runs:
            for offset, value in enumerate(run.tokens):
                for sequence in run.sequences:
                    entry = (run.position + offset, value, offset in run.outputs)
                    held[sequence].append(entry)
    return dict(held)


def update_runs(
    history: int, ingest: tuple[int, ...], asked: list[Asked]
) -> tuple[list[Run], list[Want], tuple[int, ...]]:
    forks = tuple(range(1, 1 + sum(one.n_forks for one in asked)))
    runs, wants = plan_questions(asked, history + len(ingest), forks)
    return [Run(ingest, history, (0, *forks)), *runs], wants, forks


@given(st.integers(0, 500), tokens, st.lists(questions(), max_size=6), limits())
def test_a_plan_never_exceeds_limits_and_positions_go_on(
    history: int, ingest: tuple[int, ...], asked: list[Asked], bounds: Limits
) -> None:
    runs, wants, forks = update_runs(history, ingest, asked)
    passes = cut(runs, bounds)
    ends = dict.fromkeys((0, *forks), history)
    cells = history
    for one in passes:
        ends |= check_pass(one, bounds, ends, cells)
        cells += one.n_tokens
    assert ends[0] == history + len(ingest)
    assert sum(one.n_outputs for one in passes) == len(wants)
    assert cells == history + sum(len(run.tokens) for run in runs)


@given(st.integers(0, 500), tokens, st.lists(questions(), max_size=6), limits(), limits())
def test_any_chunking_gives_the_same_positions(
    history: int, ingest: tuple[int, ...], asked: list[Asked], one: Limits, other: Limits
) -> None:
    runs, _, _ = update_runs(history, ingest, asked)
    assert placed(cut(runs, one)) == placed(cut(runs, other))


@given(st.lists(st.lists(token, min_size=1, max_size=9), min_size=1, max_size=9), limits())
def test_passes_are_as_few_as_the_tokens_need(lines: list[list[int]], bounds: Limits) -> None:
    whole = tuple(value for line in lines for value in line)
    assert len(cut([Run(whole, 0, (0,))], bounds)) == -(-len(whole) // bounds.batch_tokens)


@given(st.lists(questions(), max_size=8), st.integers(6, 12), st.integers(0, 120))
def test_rounds_hold_every_question_once_within_forks_and_cells(
    asked: list[Asked], n_forks: int, n_cells: int
) -> None:
    rounds = plan_rounds(asked, n_forks, n_cells)
    if rounds is None:
        assert any(one.n_cells > n_cells for one in asked)
        return
    assert [index for one in rounds for index in one] == list(range(len(asked)))
    for one in rounds:
        assert sum(asked[index].n_forks for index in one) <= n_forks
        assert sum(asked[index].n_cells for index in one) <= n_cells


@given(st.lists(questions(), min_size=1, max_size=5))
def test_wants_name_the_token_before_each_scored_one(asked: list[Asked]) -> None:
    runs, wants, _ = update_runs(0, (1,), asked)
    outputs = [(run, offset) for run in runs for offset in run.outputs]
    for (run, offset), want in zip(outputs, wants, strict=True):
        if want.choice is None:
            assert run.tokens == asked[want.question].tokens
            assert offset == len(run.tokens) - 1
        else:
            assert run.tokens[offset] == asked[want.question].choices[want.choice][want.depth - 1]
    for index, one in enumerate(asked):
        scored = {(w.choice, w.depth) for w in wants if w.question == index}
        longer = {(p, d) for p, c in enumerate(one.choices) for d in range(1, len(c))}
        assert scored == {(None, 0)} | longer


BOUNDS = Limits(batch_tokens=8, cells=100, sequences=4, outputs=2, vocabulary=VOCABULARY)


@pytest.mark.parametrize(
    ("runs", "fault"),
    [
        ((), "tokens"),
        ((Run((1,) * 9, 5, (0,)),), "tokens"),
        ((Run((1, 1, 1), 5, (0,), (0, 1, 2)),), "outputs"),
        ((Run((1,), 4, (0,)),), "goes on at 5"),
        ((Run((1,), 6, (0,)),), "goes on at 5"),
        ((Run((1,), 5, (0,)), Run((1,), 5, (0,))), "goes on at 6"),
        ((Run((1,), 5, (0, 1)),), "goes on at 0"),
        ((Run((1,), 0, (4,)),), "sequence below 4"),
        ((Run((1,), 0, (-1,)),), "sequence below 4"),
        ((Run((VOCABULARY,), 5, (0,)),), "tokens in"),
        ((Run((-1,), 5, (0,)),), "tokens in"),
        ((Run((1,), 5, (0, 0)),), "once"),
        ((Run((1,), 5, ()),), "sequences"),
        ((Run((1,), 5, (0,), (1,)),), "inside"),
    ],
)
def test_a_pass_that_would_abort_is_refused(runs: tuple[Run, ...], fault: str) -> None:
    with pytest.raises(PlanFault, match=fault):
        check_pass(Pass(runs), BOUNDS, {0: 5}, 5)


def test_a_pass_without_room_is_refused() -> None:
    one = Pass((Run((1, 2), 5, (0,)),))
    assert check_pass(one, BOUNDS, {0: 5}, 98) == {0: 7}
    with pytest.raises(PlanFault, match="cells"):
        check_pass(one, BOUNDS, {0: 5}, 99)
