"""How much a step takes: a lone record at once, more under load, never past its time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.agents.session_queue import take_waiting
from flashfeed.agents.session_step import STEP_ITEMS_MAX
from flashfeed.agents.step_size import (
    FIRST_ITEMS,
    StepCost,
    decoded_items,
    fits_within,
    step_cost,
    step_seconds,
)
from flashfeed.models.session import WindowSpec

from session_steps import SPEC, reading

GROW = WindowSpec("grow", 64)


@dataclass
class Machine:
    """An engine that takes so long: a step of its own, and for each item decoded. Where
    `answers` is more than 1 the tokens of an answer take longer than their number says."""

    fixed_s: float
    item_s: float
    window: WindowSpec = GROW
    answers: float = 1.0
    count: int = 0
    cost: StepCost | None = None

    def seconds(self, items: int) -> float:
        """What a step of so many really takes, twice decoded items and all."""
        return self.fixed_s + self.item_s * decoded_items(items, self.window, self.count)

    def step(self, waits: int, step_s: float) -> int:
        """How many of those that wait, a message each, the next step takes."""
        waiting = [reading(n, float(n)) for n in range(waits)]
        fits = fits_within(self.cost, step_s, self.window, self.count)
        items = len(take_waiting(waiting, SPEC, 10_000, -1, fits).messages)
        self.learn(items)
        return items

    def learn(self, items: int) -> None:
        """Do a step, and measure it: without the junior's copy, which is made behind it."""
        kept = decoded_items(items, self.window, self.count)
        kept //= 2 if self.window.mode == "exact" else 1
        did = Did(
            ingest_tokens=round(1e6 * self.item_s * kept),
            question_tokens=round(1e6 * self.fixed_s / self.answers),
            generated_tokens=0,
            decode_s=self.fixed_s + self.item_s * kept,
        )
        self.cost = step_cost(did, items, self.window, self.count, self.cost)
        self.count += items


@dataclass
class Did:
    ingest_tokens: int
    question_tokens: int
    generated_tokens: int
    decode_s: float


def test_half_of_the_deadline_is_the_step_under_way() -> None:
    assert step_seconds(2000) == 1.0


def test_idle_a_record_goes_at_once_and_alone_whatever_came_before() -> None:
    machine = Machine(0.1, 0.02)
    assert [machine.step(1, 1.0) for _ in range(3)] == [1, 1, 1]
    machine.step(500, 1.0)
    assert machine.step(1, 1.0) == 1


def test_a_step_grows_under_load_to_its_time_and_shrinks_when_there_is_less() -> None:
    machine = Machine(0.1, 0.02)
    assert machine.step(1, 1.0) == 1
    sizes = [machine.step(500, 1.0) for _ in range(3)]
    assert sizes[-1] == 45 == (1.0 - 0.1) / 0.02
    assert machine.step(7, 1.0) == 7
    assert machine.step(1, 1.0) == 1
    assert machine.step(500, 1.0) == 45  # what an item costs is known from before


def test_a_machine_that_became_slower_takes_less() -> None:
    machine = Machine(0.1, 0.002)
    assert machine.step(5, 1.0) == 5
    assert machine.step(500, 1.0) == STEP_ITEMS_MAX
    machine.item_s = 0.05
    machine.step(500, 1.0)
    assert machine.step(500, 1.0) == 18


def test_the_first_step_of_a_session_is_small_and_a_replays_is_what_waits() -> None:
    assert Machine(0.0, 0.001).step(500, 1.0) == FIRST_ITEMS
    assert Machine(9.0, 9.0).step(500, math.inf) == STEP_ITEMS_MAX
    machine = Machine(9.0, 9.0)
    machine.learn(100)
    assert machine.step(200, math.inf) == 200


def test_questions_that_take_all_the_time_leave_data_as_much() -> None:
    machine = Machine(3.0, 0.1)
    machine.learn(1)
    assert machine.step(500, 1.0) == 30


def test_what_slides_out_at_once_costs_nothing() -> None:
    """A window of 8 holds 15 lines at most: a step of many decodes no more than that."""
    machine = Machine(0.1, 0.02, WindowSpec("shift", 8))
    machine.learn(1)
    assert machine.step(500, 1.0) == STEP_ITEMS_MAX
    machine = Machine(0.1, 0.02, WindowSpec("exact", 8))
    machine.learn(1)
    assert machine.step(500, 1.0) == STEP_ITEMS_MAX
    machine = Machine(0.1, 0.1, WindowSpec("exact", 8))  # 4 items twice, or 8 of many
    machine.learn(1)
    assert machine.step(500, 1.0) < 8


def test_a_step_that_decoded_nothing_teaches_nothing() -> None:
    known = StepCost(0.1, 0.2)
    assert step_cost(Did(0, 5, 5, 1.0), 0, GROW, 0, known) == known
    assert step_cost(Did(0, 5, 5, 1.0), 3, GROW, 0, None) is None
    free = step_cost(Did(10, 0, 0, 0.0), 10, GROW, 0, None)
    assert free is not None and fits_within(free, 1.0, GROW, 0)(STEP_ITEMS_MAX)


windows = st.builds(
    WindowSpec, st.sampled_from(["exact", "shift", "grow"]), st.sampled_from([1, 8, 64, 500])
)
seconds = st.floats(1e-5, 3.0)


@given(
    fixed_s=seconds,
    item_s=seconds,
    window=windows,
    answers=st.floats(1.0, 8.0),
    step_s=st.floats(0.05, 5.0),
    arrivals=st.lists(st.integers(1, 600), min_size=1, max_size=12),
)
def test_whatever_comes_a_step_keeps_its_time(
    fixed_s: float,
    item_s: float,
    window: WindowSpec,
    answers: float,
    step_s: float,
    arrivals: list[int],
) -> None:
    machine = Machine(fixed_s, item_s, window, answers)
    machine.learn(1)
    for waits in arrivals:
        before = machine.seconds
        alone, at = before(1), machine.count
        items = machine.step(waits, step_s)
        took = fixed_s + item_s * decoded_items(items, window, at)
        assert 1 <= items <= min(waits, STEP_ITEMS_MAX)
        assert items == 1 or took <= max(step_s, 2 * fixed_s) * (1 + 1e-3) + 1e-4
        assert waits > 1 or took == alone


@given(fixed_s=st.floats(0.01, 2.0), item_s=st.floats(0.001, 0.5), step_s=st.floats(0.1, 4.0))
def test_under_load_data_has_at_least_half_of_a_full_step(
    fixed_s: float, item_s: float, step_s: float
) -> None:
    machine = Machine(fixed_s, item_s)
    machine.learn(1)
    for _ in range(3):
        items = machine.step(600, step_s)
    wanted = max(step_s - fixed_s, fixed_s) / item_s
    assert items >= min(STEP_ITEMS_MAX, math.floor(wanted * 0.999)) or items == 1


@pytest.mark.parametrize("size", [1, 16, 40])
def test_a_message_is_never_cut(size: int) -> None:
    waiting = [reading(n, *map(float, range(size)), at=n * size) for n in range(20)]
    fits = fits_within(StepCost(0.1, 0.1), 1.0, GROW, 0)
    taken = take_waiting(waiting, SPEC, 10_000, -1, fits).messages
    assert len(taken) == max(1, 9 // size)
