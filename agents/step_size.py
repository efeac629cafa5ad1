"""How many of the items that wait a session's next step takes. Pure.

A step costs the engine `fixed_s`, for its questions and answers, and `item_s` for each item
that it decodes. Both are measured at every step: there is nothing to tune.

idle        a record that comes goes at once, alone. Nothing waits for company
under load  what came while a step was under way goes into the next, so that the questions,
            which cost the same for one record and for many, are asked the seldomer the more
            comes; up to what the engine does in `step_s`
again idle  steps are small again because little waits, not because a rule has to notice

The deadline: a record that comes waits for the step under way, and is answered by the next.
`step_s` is therefore half of `engine.answer_deadline_ms`. It bounds a step's own time in the
engine. Not in it: what other sessions do meanwhile, and the wait behind more than the engine
can do at all, of which a record at the end has as much as it has before it. Three things are
never cut, and may take longer: one message (a feed packs at most PACK_RECORDS_MAX records
into one; a push is one), the questions, and, where those take more than half of `step_s`, as
much data as takes as long as they do. Else a session with many questions would do little but
ask them: so data has at least half of every full step, and the step takes at most
max(step_s, 2 * fixed_s).

A step that merges (`overflow = "coalesce"`, over its bound) is not sized here: it has at most
MERGED_LINES_MAX lines.

Of a step's items only those are decoded that its window still holds behind it, and where the
window is exact they are decoded twice (the junior's copy comes before the session's next
step). So more items may cost less: the largest step that fits is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final, NamedTuple, Protocol

from flashfeed.models.session import WindowSpec
from flashfeed.models.window import window_length

from .session_step import STEP_ITEMS_MAX

FIRST_ITEMS: Final = 16
"""Items of a session's first step at most: nobody knows yet what they cost."""

Fits = Callable[[int], bool]
"""Whether a step of so many items keeps its time."""


def any_that_plans(items: int) -> bool:
    """The Fits of who has all the time there is."""
    return items <= STEP_ITEMS_MAX


def step_seconds(answer_deadline_ms: int) -> float:
    """How long a step may take of the engine."""
    return answer_deadline_ms / 2000


class Decoded(Protocol):
    """What the engine says of a step (engine/update.py)."""

    @property
    def ingest_tokens(self) -> int:
        """Tokens of the new data."""

    @property
    def question_tokens(self) -> int:
        """Tokens of the questions."""

    @property
    def generated_tokens(self) -> int:
        """Tokens of the answers."""

    @property
    def decode_s(self) -> float:
        """The step's own seconds in the engine."""


class StepCost(NamedTuple):
    """What a step costs: seconds whatever it brings, and for each item decoded."""

    fixed_s: float
    item_s: float

    def seconds(self, items: int, window: WindowSpec, count: int) -> float:
        """A step of so many items, in a session that was given `count` before."""
        return self.fixed_s + self.item_s * decoded_items(items, window, count)


def decoded_items(items: int, window: WindowSpec, count: int) -> int:
    """How often an item is decoded in a step of so many."""
    kept = min(items, window_length(window, count + items))
    return 2 * kept if window.mode == "exact" else kept


def step_cost(
    did: Decoded, items: int, window: WindowSpec, count: int, before: StepCost | None
) -> StepCost | None:
    """The cost as a step of `items` items shows it, `count` before it; `before` where it
    decoded none. Its time is the data's by its share of the tokens. Those of an answer take
    longer each, so an item's cost is told too high rather than too low, and a larger step
    never costs more than is said here."""
    kept = min(items, window_length(window, count + items))
    tokens = did.ingest_tokens + did.question_tokens + did.generated_tokens
    if not kept or not did.ingest_tokens:
        return before
    data_s = did.decode_s * did.ingest_tokens / tokens
    return StepCost(did.decode_s - data_s, data_s / kept)


def fits_within(cost: StepCost | None, step_s: float, window: WindowSpec, count: int) -> Fits:
    """Which numbers of items a step may have, in a session that was given `count`. With an
    infinite `step_s` they follow from what waits alone, as a replay needs it."""
    if step_s == inf:
        return any_that_plans
    if cost is None:
        return lambda items: items <= FIRST_ITEMS
    most_s = max(step_s, 2 * cost.fixed_s)

    def fits(items: int) -> bool:
        return any_that_plans(items) and cost.seconds(items, window, count) <= most_s

    return fits
