"""How a window slides: which items a session's context holds, from a count alone. Pure.

Items are numbered from 0 since the frozen prefix; `count` is how many were ever applied,
so the newest is count - 1. That everything here follows from the count is what lets a
rebuild and a replay find the same context.

N = window.items     exact   the last N to 2N - 1 items: a multiple of N falls off at once
                     shift   the last N items
                     grow    all of them
"""

from __future__ import annotations

import msgspec

from .session import WindowSpec


def window_start(window: WindowSpec, count: int) -> int:
    """The number of the oldest item in the context: it holds [window_start, count)."""
    if window.mode == "grow":
        return 0
    if window.mode == "shift":
        return max(0, count - window.items)
    return max(0, (count // window.items - 1) * window.items)


def window_length(window: WindowSpec, count: int) -> int:
    """How many items the context holds."""
    return count - window_start(window, count)


def junior_start(window: WindowSpec, count: int) -> int | None:
    """The number of the first item of the junior generation, which takes over when the
    senior is 2N long; None where there is none (not `exact`, or before the first N)."""
    if window.mode != "exact" or count < window.items:
        return None
    return block_start(window, count)


def block_start(window: WindowSpec, count: int) -> int:
    """The number of the first item of the block that item `count` belongs to.

    Blocks are N items long. A line may refer to records of its own block only: under
    `exact` every context begins with a block, so none begins with a line that cannot be
    read alone; under `shift` each context has one line at least that can.
    """
    return 0 if window.mode == "grow" else count // window.items * window.items


def halved(window: WindowSpec) -> WindowSpec | None:
    """Half the window; None where there is nothing to halve."""
    if window.mode == "grow" or window.items == 1:
        return None
    return msgspec.structs.replace(window, items=window.items // 2)
