"""The verdict finds what it is there to find: each fault in what is committed has its figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
from chaos_feed import Candle
from chaos_verdict import (
    NONE_ALLOWED,
    Answered,
    Claim,
    Final,
    Source,
    Trouble,
    Updated,
    failures,
    logits_apart,
    recoveries,
    unapplied,
    verdict,
)

SOURCE = [
    Source("a", (0, 0), Candle(0, 5), False, 0.0),
    Source("b", (0, 1), Candle(0, 6), False, 0.0),
    Source("a", (0, 2), Candle(1, 7), False, 0.0),
    Source("a", (0, 3), Candle(1, 7), True, 0.0),
    Source("a", (0, 4), None, False, 0.0),
    Source("a", (0, 5), Candle(2, 8), False, 0.0),
]
LETTERS = {(0, 4)}
UPDATED = [
    Updated("u1", "a", 1, ((0, 0, 0),), 1.0),
    Updated("u2", "b", 1, ((0, 1, 1),), 1.0),
    Updated("u3", "a", 2, ((0, 2, 5),), 2.0),
]
ANSWERED = [
    Answered("f1", "a", 1, 1),
    Answered("f2", "b", 1, 1),
    Answered("f3", "a", 2, 1),
]
FINAL = {"a": Final(2, 3), "b": Final(1, 1)}


def figures(
    letters: set[tuple[int, int]] = LETTERS,
    updated: list[Updated] = UPDATED,
    answered: list[Answered] = ANSWERED,
    final: Mapping[str, Final] = FINAL,
) -> dict[str, float]:
    return verdict(SOURCE, letters, updated, answered, final, [1]).figures


def wrong(found: dict[str, float]) -> dict[str, float]:
    return {name: found[name] for name in NONE_ALLOWED if found.get(name)}


def test_a_clean_run_is_clean() -> None:
    assert not wrong(figures())
    assert unapplied(SOURCE, LETTERS, UPDATED) == []


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        # A record between two that are in one version: its session has counted one less.
        (lambda: figures(final=FINAL | {"a": Final(2, 2)}), {"lost": 1}),
        (lambda: figures(letters=set()), {"lost": 1}),
        (lambda: figures(final={"a": Final(2, 3)}), {"lost": 1}),
        (
            lambda: figures(updated=[UPDATED[0], *UPDATED[2:]]),
            {"lost": 1, "events_lost": 1},
        ),
        (
            lambda: figures(updated=[*UPDATED[:2], UPDATED[2]._replace(origins=((0, 2, 4),))]),
            {"lost": 1},
        ),
        (lambda: figures(final=FINAL | {"a": Final(2, 4)}), {"applied_twice": 1}),
        (
            lambda: figures(updated=[*UPDATED[:2], UPDATED[2]._replace(origins=((0, 0, 5),))]),
            {"applied_twice": 1},
        ),
        (lambda: figures(answered=ANSWERED[:2]), {"events_lost": 1}),
        (lambda: figures(answered=[]), {"events_lost": 3}),
        (
            lambda: figures(final=FINAL | {"b": Final(2, 1)}),
            {"events_lost": 2},
        ),
        (
            lambda: figures(answered=[*ANSWERED, ANSWERED[0]._replace(id="f9")]),
            {"events_repeated_after_dedupe": 1},
        ),
        (
            lambda: figures(updated=[*UPDATED, UPDATED[1]._replace(id="u9", origins=())]),
            {"events_repeated_after_dedupe": 1, "version_regressions": 1},
        ),
        (
            lambda: figures(updated=[UPDATED[2], UPDATED[1], UPDATED[0]]),
            {"version_regressions": 1},
        ),
    ],
)
def test_what_is_wrong_is_counted(
    broken: Callable[[], dict[str, float]], expected: dict[str, float]
) -> None:
    assert wrong(broken()) == expected


def test_the_same_event_again_is_dropped_by_its_id_and_counted() -> None:
    again = figures(updated=[*UPDATED, UPDATED[0]], answered=[ANSWERED[0], *ANSWERED])
    assert not wrong(again)
    assert again["events_repeated"] == 2


CLAIMS = [Claim(0, "A", 0.0), Claim(1, "B", 0.0), Claim(2, "A", 0.0), Claim(0, "B", 12.0)]
KILL = Trouble(10.0, 13.0, "A")
TIMES = [1.0, 100.0]


def test_a_kills_partitions_and_the_seconds_to_the_first_record() -> None:
    applied = {0: [9.0, 17.5, 18.0], 1: [11.0], 2: [10.5]}
    assert recoveries([KILL], CLAIMS, applied, dict.fromkeys(range(3), TIMES)) == [
        (KILL, 0, 7.5),
        (KILL, 2, 0.5),
    ]


def test_a_partition_that_never_comes_back_counts_for_ever() -> None:
    applied = {0: [9.0], 2: [10.5]}
    found = recoveries([KILL], CLAIMS, applied, dict.fromkeys(range(3), TIMES))
    assert found[0] == (KILL, 0, math.inf)
    assert [number for _, number, _ in recoveries([KILL], CLAIMS, applied, {2: TIMES})] == [2]


def test_what_another_fault_takes_longer_is_not_the_kills() -> None:
    applied = {0: [40.0], 2: [40.0]}
    sent = dict.fromkeys(range(3), TIMES)
    others = [Trouble(2.0, 8.0), Trouble(5.0, 25.0), Trouble(39.0, 60.0), Trouble(30.0, 35.0, "B")]
    assert [s for _, _, s in recoveries([KILL, *others[:3]], CLAIMS, applied, sent)] == [15.0] * 2
    full = Trouble(5.0, 35.0, delays=False)  # a disk, which no record waits for
    assert [s for _, _, s in recoveries([KILL, full], CLAIMS, applied, sent)] == [30.0] * 2
    # A later kill begins it anew; a worker that is only away for long does not end it.
    assert [s for _, _, s in recoveries([KILL, *others], CLAIMS, applied, sent)][:2] == [10.0] * 2


def test_logits_are_apart_up_to_what_is_common_to_all() -> None:
    live = {"up": 0.6, "down": 0.4}
    assert logits_apart(live, live) == 0
    moved = math.exp(0.2) * 0.6 / 0.4
    fresh = {"up": moved / (1 + moved), "down": 1 / (1 + moved)}
    assert logits_apart(fresh, live) == pytest.approx(0.1)
    assert logits_apart({"up": 0.4, "down": 0.6}, live) > 0.1
    assert logits_apart(fresh, {}) == logits_apart({}, {}) == math.inf


GOOD = dict.fromkeys(NONE_ALLOWED, 0.0) | {
    "recover_seconds_max": 26.0,
    "kills": 2,
    "events": 9,
    "sessions_compared": 3,
    "recoveries": 2,
}


def test_a_run_within_its_bounds_passes() -> None:
    assert failures(GOOD, 2, 6.0) == []


@pytest.mark.parametrize(
    "figure",
    [
        *({name: 1} for name in NONE_ALLOWED),
        {"recover_seconds_max": 26.1},
        {"recover_seconds_max": math.inf},
        {"kills": 1},
        {"events": 0},
        {"sessions_compared": 0},
        {"recoveries": 0},
    ],
)
def test_one_figure_out_of_its_bound_fails_the_run(figure: dict[str, float]) -> None:
    [why] = failures(GOOD | figure, 2, 6.0)
    assert next(iter(figure)) in why


def test_a_run_without_kills_fails_and_so_does_a_figure_that_is_missing() -> None:
    assert failures(GOOD | {"kills": 0}, 0, 6.0)
    for name in GOOD:
        assert failures({key: GOOD[key] for key in GOOD if key != name}, 2, 6.0), name
