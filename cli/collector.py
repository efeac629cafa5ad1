"""Python's garbage collector, set for a worker."""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 10_000
OLD_ROUNDS = 20


def calm_collector() -> None:
    """Collect seldom, and never what is there now. A worker makes a few objects of each record
    that reference counts free; it leaves hardly a cycle behind, and its sessions' windows, which
    stay, would be looked through again and again (a twelfth of the time that a record takes)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, OLD_ROUNDS, OLD_ROUNDS)
