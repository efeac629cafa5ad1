"""What a session still holds of all that was ever applied to it: window arithmetic.

Items are counted from the frozen prefix on; `count` is how many were ever applied. Where
a window begins is a function of the count alone, so that a rebuild and a replay find
the very same context.
"""

from __future__ import annotations

from .session import WindowSpec


def window_start(window: WindowSpec, count: int) -> int:
    """The index of the first item that the session answers over.

    `exact` keeps the last N to 2N items and moves N at a time, `shift` the last N,
    `grow` all of them.
    """
    if window.mode == "exact":
        return max(0, (count // window.items - 1) * window.items)
    if window.mode == "shift":
        return max(0, count - window.items)
    return 0


def junior_start(window: WindowSpec, count: int) -> int | None:
    """Where the next generation begins that an exact window prepares; None for none yet.

    It is what `window_start` will be when the count next reaches a multiple of N.
    """
    if window.mode == "exact" and count >= window.items:
        return count // window.items * window.items
    return None
