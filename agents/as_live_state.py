"""A session as it was at a live version, from its messages and that version's event. Pure.

The messages up to the version are folded as its owner folded them, without a model: lines,
corrections, bars that are not complete, questions that came later. Where the session's first
messages are gone (retention), what is left of them gives the newest items at least, and the
event says which of those were the context: its first record's offset and how many there were.
What only the model can say is taken from the answers after it: what was answered before, and
what the model favours (heads/prior.py). Where a learnt head gave one, that is in what its
forecaster `prior` said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np

from flashfeed.codecs.registry import text_codec
from flashfeed.heads.prior import LOG_PROBABILITY_MIN, MEMORY_ANSWERS, SHRINK_ANSWERS
from flashfeed.heads.softmax import unbounded
from flashfeed.models.events import DataUpdated, FlashReady
from flashfeed.models.messages import Create, Records
from flashfeed.models.session import Answer, SessionSpec
from flashfeed.models.state import Item, Prior

from .session_items import write_lines
from .session_plan import plan_step
from .session_settle import Ran, next_state, settle_step
from .session_step import SessionState, Step, Templates, Waiting

NO_CREATION: Final = "its creation is not on the records topic any more"
NO_CONTEXT: Final = "its context cannot be told from the messages that are left"

_NOTHING: Final = Ran((), 0, 0, 0, 0, 0, 0, "")
_LEAST: Final = 1e-12


class Fold:
    """A session's state after its messages, without answers. `wide`: with twice its window, so
    that it holds every context that the session may have had, wherever its first messages
    went. `asked_from` has, by query, the version of the fold at which it came."""

    def __init__(self, session_id: str, templates: Templates, *, wide: bool = False) -> None:
        self.state: SessionState | None = None
        self.asked_from: dict[int, int] = {}
        self._session_id = session_id
        self._templates = templates
        self._wide = wide

    def apply(self, one: Waiting) -> None:
        """The session's next message."""
        wide = self._window(one) if self._wide and self.state is None else 0
        step = plan_step(self._session_id, self.state, [one], self._templates, wide)
        head = settle_step(step, self.state, _NOTHING)
        if step.deletes:
            self.state = None
            self.asked_from = {}
        elif self.state is not None or step.creates:
            self.state = next_state(step, self.state, head)
            for query in head.spec.flash:
                self.asked_from.setdefault(query.id, head.version)

    def asked_share(self, query_id: int) -> float:
        """In which part of the versions the question was asked."""
        version = self.state.head.version if self.state is not None else 0
        since = max(0, self.asked_from.get(query_id, 0) - 1)
        return (version - since) / version if version else 0.0

    def _window(self, one: Waiting) -> int:
        spec: SessionSpec | None = None
        if isinstance(one.message, Create):
            spec = one.message.spec
        elif isinstance(one.message, Records):
            spec = self._templates(one.message.template)
        return 2 * spec.window.items if spec is not None and spec.window.mode != "grow" else 0


def state_at(
    version: DataUpdated, narrow: SessionState | None, wide: SessionState | None
) -> SessionState | str:
    """The state at that version: the folded one where its context is the event's, else what
    the wide one has of it; or in words why there is none."""
    if narrow is None:
        return NO_CREATION
    if _is_context(narrow.items, version):
        return narrow
    if wide is not None and (found := _cut(wide, version)) is not None:
        return found
    return NO_CONTEXT


def _is_context(items: Iterable[Item], version: DataUpdated) -> bool:
    held = [*items]
    first = held[0].offset if held else -1
    records = sum(item.fields is not None for item in held)
    return (records, first) == (version.data_count, version.records_first)


def _cut(wide: SessionState, version: DataUpdated) -> SessionState | None:
    """The state with the newest items alone that the version's context had.

    The window's arithmetic goes on as it was: with N items a block, a context of n items
    begins with a block, as one does of which n were ever applied (models/window.py).
    """
    items = [*wide.items]
    kept = next(
        (items[at:] for at in reversed(range(len(items))) if _is_context(items[at:], version)),
        None,
    )
    if kept is None:
        return None
    head = msgspec.structs.replace(wide.head, window_items=0, base=0, count=0, items=0, records=0)
    step = Step(head=head, items=kept)
    write_lines(step, (), text_codec(head.spec.text, head.spec.type))
    head = msgspec.structs.replace(
        head, count=len(kept), items=len(kept), records=version.data_count
    )
    return SessionState.restored(head, step.items)


def goes_on(
    state: SessionState, version: int, answers: Sequence[FlashReady], fold: Fold
) -> SessionState:
    """The state, to go on with the version after `version`, which had these answers."""
    priors: dict[int, Prior] = {}
    for one in answers:
        count = min(MEMORY_ANSWERS, round(version * fold.asked_share(one.id)))
        prior = prior_before(one, count)
        if prior is not None:
            priors[one.id] = prior
    before = tuple(
        Answer(query_id=one.id, value=one.previous, confidence=0.0, logit_gap=0.0)
        for one in answers
        if one.previous is not None
    )
    head = msgspec.structs.replace(
        state.head, version=version, answers=before, previous={}, priors=priors
    )
    return SessionState(head, state.items, state.last)


def prior_before(answer: FlashReady, count: int) -> Prior | None:
    """What the answer was corrected by, after `count` answers: what was published (or given to
    its head) is what the model said less a part of it, up to a constant that changes nothing.
    None: by nothing, or it cannot be told."""
    raw, shares = answer.raw, prior_shares(answer)
    if raw is None or shares is None or not count or raw.probabilities.keys() != shares.keys():
        return None
    weight = count / (count + SHRINK_ANSWERS)
    means = {
        choice: (max(_log(share), LOG_PROBABILITY_MIN) - _log(shares[choice])) / weight
        for choice, share in raw.probabilities.items()
    }
    middle = math.fsum(means.values()) / len(means)
    return Prior(count, {choice: mean - middle for choice, mean in means.items()})


def learnt(answer: FlashReady) -> bool:
    """Whether a head that learnt gave the answer, and not the model."""
    return answer.answered_by.head not in (None, "prior")


def prior_shares(answer: FlashReady) -> dict[str, float] | None:
    """The probabilities with the model's bias taken off and nothing else, whoever answered;
    None where a learnt head did and the event does not have them."""
    if not learnt(answer):
        return answer.probabilities
    for part in answer.learned.forecasts if answer.learned is not None else ():
        if part.forecaster == "prior":
            given = unbounded(np.asarray([*part.probabilities.values()]))
            return dict(zip(part.probabilities, map(float, given), strict=True))
    return None


def _log(share: float) -> float:
    return math.log(max(share, _LEAST))
