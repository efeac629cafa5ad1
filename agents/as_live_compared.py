"""Versions that were made again, held against the live ones. Pure.

Compared are the numbers of the version and its records, what its context holds and from where,
origins, event time, tokens; the answer's value, but for near ties (DESIGN.md, invariant 5). A
replay has no heads, which learn from all sessions in the order of their labels: where one gave
the live answer, what the model said is compared, its bias taken off as it was live.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from flashfeed.models.events import DataUpdated, FlashReady
from flashfeed.models.views import SessionEvent

from .as_live_state import learnt, prior_shares
from .replay_sessions import NAMED_MAX

NEAR_TIE: Final = 0.2
"""Below it the better of two answers is not told apart: each logit may be 0.1 off."""
_SHARE_MIN: Final = 1e-3
_LEAST: Final = 1e-12
_INPUTS: Final = (
    "data_version",
    "data_count",
    "records_first",
    "records_last",
    "origins",
    "event_time",
    "n_tokens",
)


class Said(NamedTuple):
    """An answer, and how far the next best was."""

    value: str
    logit_gap: float


def _likeliest(shares: Mapping[str, float]) -> Said:
    ranked = sorted(shares, key=lambda choice: -shares[choice])
    best, second = (math.log(max(shares[choice], _LEAST)) for choice in ranked[:2])
    return Said(ranked[0], best - second)


def _by_model(event: FlashReady, live: FlashReady) -> tuple[Said, Said]:
    """What the model said, where a learnt head gave the live answer: with its bias taken off,
    or as it was where the live event does not say what that came to."""
    said, was = event.probabilities, prior_shares(live)
    if was is None:
        said, was = (event.raw or event).probabilities, (live.raw or live).probabilities
    if said.keys() != was.keys():  # the configuration asks something else
        return Said(event.value, event.logit_gap), _likeliest(was)
    return _likeliest(said), _likeliest(was)


@dataclass(slots=True)
class Compared:
    """How the versions made again compare with the live ones. `log_max` is the most that the
    log-probability of a choice differs by, before any correction; `texts` counts free answers
    with other words, which one near tie in them gives, and `learnt` those that a learnt head
    gave."""

    versions: int = 0
    answers: int = 0
    near_ties: int = 0
    texts: int = 0
    learnt: int = 0
    alone: int = 0
    missing: int = 0
    log_max: float = 0.0
    differ: list[str] = field(default_factory=list)
    n_differ: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def same(self) -> bool:
        """Whether all live versions were made again, and are the same."""
        return not (self.n_differ or self.missing or self.skipped)

    def update(self, event: DataUpdated, live: DataUpdated) -> None:
        """One version's inputs."""
        self.versions += 1
        for name in _INPUTS:
            one, other = getattr(event, name), getattr(live, name)
            if one != other:
                self._differs(event, f"{name} is {one}, was {other}")
                break

    def answer(self, event: FlashReady, live: FlashReady) -> None:
        """One answer."""
        self.answers += 1
        one, other = event.raw or event, live.raw or live
        for choice, share in other.probabilities.items():
            again = one.probabilities.get(choice, 0.0)
            if min(share, again) > _SHARE_MIN:
                self.log_max = max(self.log_max, abs(math.log(share / again)))
        said, was = Said(event.value, event.logit_gap), Said(live.value, live.logit_gap)
        whose = ""
        if learnt(live):
            self.learnt += 1
            said, was = _by_model(event, live)
            whose = ", before its head"
        if said.value == was.value:
            return
        if min(said.logit_gap, was.logit_gap) <= NEAR_TIE:
            self.near_ties += 1
        elif not live.probabilities:
            self.texts += 1
        else:
            self._differs(event, f"{event.name} is {said.value}, was {was.value}{whose}")

    def _differs(self, event: SessionEvent, what: str) -> None:
        self.n_differ += 1
        if len(self.differ) < NAMED_MAX:
            self.differ.append(f"{event.session_id} version {event.data_version}: {what}")

    def text(self) -> str:
        """It all, in words."""
        lines = [
            f"as live: {self.versions} versions and {self.answers} answers compared, "
            f"{self.n_differ} differ, {self.near_ties} near ties; log-probabilities within "
            f"{self.log_max:.3f}"
        ]
        lines += [f"    {one}" for one in self.differ]
        if self.n_differ > len(self.differ):
            lines.append(f"    and {self.n_differ - len(self.differ)} more")
        if self.learnt:
            lines.append(
                f"  {self.learnt} live answers are a learnt head's: without heads here, what the "
                "model said, its bias taken off, is compared"
            )
        if self.texts:
            lines.append(f"  {self.texts} free answers have other words")
        if self.alone:
            lines.append(f"  {self.alone} have no live event to be compared with")
        if self.missing:
            lines.append(f"  {self.missing} live versions were not made again")
        lines += [f"  {count} live versions left out: {why}" for why, count in self.skipped.items()]
        return "\n".join(lines)
