"""Windows slide as the design says, whatever the count."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.models.session import WINDOW_ITEMS_MAX, WindowSpec
from flashfeed.models.window import (
    block_start,
    halved,
    junior_start,
    window_length,
    window_start,
)

Items = st.integers(1, 40)
Counts = st.integers(0, 400)


def walk(items: int, count: int) -> Iterable[tuple[int, int, int]]:
    """Two generations as they are drawn in the design, item by item: (senior's start,
    senior's end, junior's start; -1 where there is none)."""
    senior, junior = 0, -1
    yield senior, 0, junior
    for n in range(1, count + 1):
        if n - senior == 2 * items:  # the junior takes over, a new one starts
            senior, junior = junior, n
        elif n == items:  # the senior reached N for the first time
            junior = n
        yield senior, n, junior


@given(items=Items, count=Counts)
def test_exact_is_the_two_generations(items: int, count: int) -> None:
    window = WindowSpec("exact", items)
    for senior, n, junior in walk(items, count):
        assert window_start(window, n) == senior
        assert junior_start(window, n) == (None if junior < 0 else junior)


@given(items=Items, count=Counts)
def test_exact_holds_the_last_n_to_2n(items: int, count: int) -> None:
    window = WindowSpec("exact", items)
    length = window_length(window, count)
    assert length == count if count < items else items <= length < 2 * items
    assert window_start(window, count) % items == 0
    assert window_start(window, count) <= block_start(window, count) <= count
    junior = junior_start(window, count)
    assert junior is None or window_start(window, count) < junior <= count


@given(
    items=Items, count=Counts, step=st.integers(0, 200), mode=st.sampled_from(["exact", "shift"])
)
def test_a_window_never_goes_back(items: int, count: int, step: int, mode: str) -> None:
    window = msgspec.convert({"mode": mode, "items": items}, WindowSpec)
    assert window_start(window, count) <= window_start(window, count + step)


@given(items=Items, count=Counts)
def test_shift_holds_the_last_n_and_grow_all(items: int, count: int) -> None:
    assert window_length(WindowSpec("shift", items), count) == min(items, count)
    assert junior_start(WindowSpec("shift", items), count) is None
    assert window_length(WindowSpec("grow", items), count) == count
    assert junior_start(WindowSpec("grow", items), count) is None
    assert block_start(WindowSpec("grow", items), count) == 0


@given(items=Items, count=Counts)
def test_every_context_has_a_line_that_stands_alone(items: int, count: int) -> None:
    for mode in ("exact", "shift"):
        window = msgspec.convert({"mode": mode, "items": items}, WindowSpec)
        held = range(window_start(window, count), count)
        alone = [n for n in held if block_start(window, n) == n]
        assert bool(alone) == bool(held)
        if mode == "exact" and held:
            assert alone[0] == held[0]  # and it is the first one


def test_a_window_is_halved_down_to_one_item() -> None:
    window: WindowSpec | None = WindowSpec("exact", 13)
    sizes = []
    while window is not None:
        sizes.append(window.items)
        window = halved(window)
    assert sizes == [13, 6, 3, 1]
    assert halved(WindowSpec("grow")) is None


@pytest.mark.parametrize("items", [0, -1, WINDOW_ITEMS_MAX + 1])
def test_a_window_has_bounds(items: int) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"items": items}, WindowSpec)
