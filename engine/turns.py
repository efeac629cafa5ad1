"""Whose turn it is: which waiting asks go into the next pass. Pure; no llama.cpp in here.

ask       runs that a job wants decoded in one context, in order
priority  foreground (a generation somebody reads), flash (an update with questions),
          ingest (data alone), background (next generations of a window, rebuilding)
step      one pass of one context. Its lead decides the context; other asks of that
          context join it while there is room

The lead is the first of the most urgent class, except that a class which was passed over
`WAITS_MAX` times goes first: so no class starves (at most WAITS_MAX + 8 steps). Within a
class the tenant that was served longest ago comes first, then the session; of one tenant's
updates one that has begun goes on for up to `TURNS_IN_A_ROW` steps, since taking turns
among equals would only make all of them late. While a generation is being read, every step
has at most `foreground_chunk` tokens of other work, and of two in a row the readers lead
one: so its next token never waits for more than one such chunk of the other classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol, TypeAlias

from .plan import Run, n_outputs, n_tokens, take
from .settings import Limits


class Priority(IntEnum):
    """The classes of work, the most urgent first."""

    FOREGROUND = 0
    FLASH = 1
    INGEST = 2
    BACKGROUND = 3


WAITS_MAX: Final = {
    Priority.FOREGROUND: 0,
    Priority.FLASH: 2,
    Priority.INGEST: 4,
    Priority.BACKGROUND: 8,
}
"""Steps that a waiting class may be passed over before it goes first."""
TURNS_IN_A_ROW: Final = 32
_REMEMBERED: Final = 8192
_Turn: TypeAlias = tuple["Priority", str, str | None]


class HasLimits(Protocol):
    """A context, as far as turns know it."""

    limits: Limits


@dataclass(frozen=True, slots=True)
class Ask:
    """What a job waits for: `runs` decoded in `context`.

    For the count of what tokens were for: the first `data_tokens` are new data; `again`
    says that it is nothing new, but a prefix or what another seat holds or held.
    """

    context: HasLimits
    runs: tuple[Run, ...]
    priority: Priority
    data_tokens: int = 0
    again: bool = False

    @property
    def n_tokens(self) -> int:
        """Tokens to decode."""
        return n_tokens(self.runs)


@dataclass(eq=False, kw_only=True)
class Waiting:
    """A job that waits for its turn: whose it is, what it asks, how many steps in a
    row it had a part in, and which was the last.

    `hurry` is the most urgent class of what waits behind it.
    """

    tenant: str = ""
    session: str = ""
    ask: Ask | None = None
    turns: int = 0
    last_step: int = 0
    arrival: int = 0
    hurry: Priority = Priority.BACKGROUND

    @property
    def priority(self) -> Priority:
        """The class that its ask is served in."""
        return self.asked.priority if self.asked.priority < self.hurry else self.hurry

    @property
    def asked(self) -> Ask:
        """What it asks for; it does wait."""
        assert self.ask is not None
        return self.ask


@dataclass(frozen=True, slots=True)
class Part:
    """What a step decodes for one job, and what is left of its ask."""

    job: Waiting
    runs: tuple[Run, ...]
    left: tuple[Run, ...]

    @property
    def n_tokens(self) -> int:
        """Tokens of the step that are the job's."""
        return n_tokens(self.runs)


class Turns:
    """Decides, and remembers who was served when. `step_tokens`: see `EngineSettings`."""

    def __init__(self, step_tokens: int, foreground_chunk: int) -> None:
        self._step_tokens: Final = step_tokens
        self._foreground_chunk: Final = foreground_chunk
        self._step = 0
        self._passed_over = dict.fromkeys(Priority, 0)
        self._served: dict[_Turn, int] = {}

    def plan(self, waiting: Sequence[Waiting]) -> list[Part]:
        """The parts of the next step, all of one context, the lead's first. `waiting` is
        not empty."""
        self._step += 1
        lead = self._lead(waiting)
        context = lead.asked.context
        limits = context.limits
        read = [one for one in waiting if one is not lead and _is_next_token(one)]
        if _is_next_token(lead):
            read.append(lead)
        others = self._foreground_chunk if read else self._step_tokens
        most = limits.batch_tokens if not read or _is_next_token(lead) else self._foreground_chunk
        tokens, outputs = limits.batch_tokens, limits.outputs
        parts: list[Part] = []
        joining = sorted(
            (one for one in waiting if one is not lead and one.asked.context is context),
            key=lambda one: (one.priority, *self._order(one)),
        )
        for job in (lead, *joining):
            need = job.asked.n_tokens
            if job is lead:
                room = min(most, limits.batch_tokens)
            elif _is_next_token(job):
                room = tokens
            else:
                room = min(tokens, others)
                # An update is not torn for a neighbour's sake, only for a reader's.
                torn = need > room and not read and job.priority < Priority.INGEST
                if torn or room < min(need, _WORTH_JOINING):
                    continue
            head, left = take(job.asked.runs, min(room, tokens), outputs)
            if not head:
                continue
            part = Part(job, head, left)
            size = n_tokens(head)
            tokens -= size
            outputs -= n_outputs(head)
            if not _is_next_token(job):
                others = max(0, others - size)
            parts.append(part)
        self._remember(waiting, parts)
        return parts

    def _lead(self, waiting: Sequence[Waiting]) -> Waiting:
        present = {one.priority for one in waiting}
        if self._passed_over[Priority.FOREGROUND] and any(map(_is_next_token, waiting)):
            return self._first(waiting, Priority.FOREGROUND)
        overdue = [one for one in present if self._passed_over[one] >= WAITS_MAX[one]]
        chosen = max(
            overdue or present,
            key=lambda one: (self._passed_over[one] - WAITS_MAX[one], -one) if overdue else -one,
        )
        return self._first(waiting, chosen)

    def _first(self, waiting: Sequence[Waiting], priority: Priority) -> Waiting:
        return min((one for one in waiting if one.priority is priority), key=self._order)

    def _order(self, job: Waiting) -> tuple[int, bool, int, int, int]:
        goes_on = job.priority is not Priority.FOREGROUND and 0 < job.turns < TURNS_IN_A_ROW
        return (
            self._served.get((job.priority, job.tenant, None), -1),
            not goes_on,
            self._served.get((job.priority, job.tenant, job.session), -1),
            job.last_step,
            job.arrival,
        )

    def _remember(self, waiting: Sequence[Waiting], parts: Sequence[Part]) -> None:
        lead = parts[0].job
        present = {one.priority for one in waiting}
        # Who joins has no turn of its own: else what often joins would hide what starves.
        for one in Priority:
            late = one in present and one is not lead.priority
            self._passed_over[one] = self._passed_over[one] + 1 if late else 0
        if lead.turns >= TURNS_IN_A_ROW:
            lead.turns = 0
        for part in parts:
            part.job.turns += 1
            part.job.last_step = self._step
        turns: tuple[_Turn, ...] = (
            (lead.priority, lead.tenant, None),
            (lead.priority, lead.tenant, lead.session),
        )
        for key in turns:
            self._served.pop(key, None)
            self._served[key] = self._step
        while len(self._served) > _REMEMBERED:
            del self._served[next(iter(self._served))]


_WORTH_JOINING: Final = 8
"""Fewer tokens of a longer ask are not worth a join."""


def _is_next_token(job: Waiting) -> bool:
    return job.priority is Priority.FOREGROUND and job.asked.n_tokens == 1
