"""What waits at a session's owner: how much a step takes of it, and what is done where it is
too much (DESIGN.md, invariant 7). Pure.

block         a step takes what it can decode; the rest waits, and so does the partition
coalesce      where more than the bound waits a step takes it all, and merges it into as many
              lines as it can decode. What has too little in common to be merged waits
drop_oldest   where more than the bound waits the oldest are dropped; the next are decoded

All of it is done in a step, so that what is dropped or merged is counted, its watermarks
advance and its offsets are committed as those of any other record (invariants 1 and 2).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Final, NamedTuple

from flashfeed.codecs.coalesce import merge_key
from flashfeed.models.messages import Records, pushed_text
from flashfeed.models.session import SessionSpec

from .session_step import MERGED_LINES_MAX, STEP_ITEMS_MAX, Waiting
from .step_size import Fits, any_that_plans

COALESCE_RECORDS_MAX: Final = 1024
"""Records that one step merges: planning it takes 0.04 s, and where candles come newest first
0.3 s."""


class Relief(NamedTuple):
    """What a step does about what is too much: so many of the oldest records are dropped,
    and the others merged."""

    drops: int = 0
    coalesces: bool = False


NO_RELIEF: Final = Relief()


class Taken(NamedTuple):
    """The messages of the next step, and what is done about too much of them."""

    messages: list[Waiting]
    relief: Relief = NO_RELIEF

    def first(self) -> Taken:
        """The first message by itself."""
        return Taken(self.messages[:1], self.relief)


Take = Callable[[Sequence[Waiting], SessionSpec | None, int, int, Fits], Taken]
"""What the next step takes, as `take_waiting` says it."""


def queue_bound(spec: SessionSpec, worker_bound: int) -> int:
    """How many records may wait before `overflow` decides."""
    if spec.queue_records:
        return spec.queue_records
    return spec.window.items if spec.overflow == "coalesce" else worker_bound


def queue_capacity(spec: SessionSpec, worker_bound: int) -> int:
    """How many records may wait before a push is refused, or under `drop_oldest` costs as
    many of the oldest."""
    bound = queue_bound(spec, worker_bound)
    return max(bound, worker_bound) if spec.overflow == "coalesce" else bound


def take_waiting(
    waiting: Sequence[Waiting],
    spec: SessionSpec | None,
    worker_bound: int,
    applied: int = -1,
    fits: Fits = any_that_plans,
) -> Taken:
    """What the next step takes of what waits; a session without a spec is not there yet.
    Messages up to the offset `applied` are repeats, and hold no place. `fits`: of how many
    items a step may be (step_size.py)."""
    if spec is None or spec.overflow == "block":
        return Taken(_step_of(waiting, fits))
    queued = sum(one.records for one in waiting if one.offset > applied)
    excess = queued - queue_bound(spec, worker_bound)
    if excess <= 0:
        return Taken(_step_of(waiting, fits))
    if spec.overflow == "coalesce":
        return Taken(_all_that_merges(waiting), Relief(coalesces=True))
    taken = _step_of(waiting, fits, excess, applied)
    return Taken(taken, Relief(excess))


def take_together(waiting: Sequence[Waiting], *_: object) -> Taken:
    """All that waits, up to a message that changes the session itself: for a replay, where
    nothing is too much. Takes what `take_waiting` does."""
    alone = (at for at, one in enumerate(waiting) if one.alone)
    return Taken(list(waiting)[: max(next(alone, len(waiting)), 1)])


def _step_of(
    waiting: Sequence[Waiting], fits: Fits, drops: int = 0, applied: int = -1
) -> list[Waiting]:
    """What waits, as much of it as fits behind what is dropped, and to the first message that
    changes the session itself (which is a step of its own). The first that brings anything is
    taken whatever fits; and more may fit where less does not."""
    taken: list[Waiting] = []
    items = fitting = 0
    for one in waiting:
        if taken and one.alone:
            break
        gone = min(drops, one.records) if one.offset > applied else 0
        drops -= gone
        brings = one.items - gone
        first = brings == items + brings
        items += brings
        if items > STEP_ITEMS_MAX and not first:
            break
        taken.append(one)
        if first or fits(items):
            fitting = len(taken)
        if one.alone:
            break
    return taken[:fitting]


def _all_that_merges(waiting: Sequence[Waiting]) -> list[Waiting]:
    """What waits, as long as it can become MERGED_LINES_MAX lines."""
    taken: list[Waiting] = []
    records = lines = 0
    keys: set[Hashable] = set()
    for one in waiting:
        if taken and (one.alone or records + one.records > COALESCE_RECORDS_MAX):
            break
        new = set(keys)
        more = 0
        if isinstance(one.message, Records):
            for record in one.message.records:
                if pushed_text(record.fields) is None:
                    new.add(merge_key(one.message.type, record.fields))
                else:
                    more, new = more + len(new) + 1, set()
        else:
            more, new = len(new) + 1, set()
        if taken and lines + more + len(new) > MERGED_LINES_MAX:
            break
        taken.append(one)
        records += one.records
        lines, keys = lines + more, new
        if one.alone:
            break
    return taken
