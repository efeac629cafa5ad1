"""A generation in a branch of a session: the data is never touched (inv. 6).

The branch begins at the session's committed tokens, so it may start while an update is
under way. Where the session's data needs its cells, the branch ends with "length".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from encodings import utf_8
from typing import Final, Literal

import numpy as np

from flashfeed.models.errors import ContextFull, EngineError
from flashfeed.models.generation import GeneratedPiece, GenerateOptions

from .model import Model
from .plan import Run
from .pool import Sessions
from .score import Picked, Row, geometric_mean, pick_greedy, pick_sampled
from .sessions import Branch, Seat, Session
from .steps import Steps
from .turns import Ask, Priority

Finish = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Prompt:
    """What is put after the data. `keep`: it is a chat, and its tokens stay for the next turn."""

    tokens: tuple[int, ...]
    keep: bool = False


class StopText:
    """Text as it comes, with stop strings found wherever tokens cut them.

    What may be the beginning of a stop string is held back until it is clear.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops: Final = tuple(stop for stop in stops if stop)
        self._decoder: Final = utf_8.IncrementalDecoder("replace")
        self._held = ""

    def add(self, raw: bytes) -> tuple[str, bool]:
        """The text that is free to go, and whether a stop string ends it."""
        self._held += self._decoder.decode(raw)
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            return self._held[: min(found)], True
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        free = self._held[: len(self._held) - keep]
        self._held = self._held[len(free) :]
        return free, False

    def rest(self) -> str:
        """What was held back, when nothing more comes; half a character is dropped."""
        held, self._held = self._held, ""
        return held

    def _overlap(self, stop: str) -> int:
        for length in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:length]):
                return length
        return 0


@dataclass(eq=False)
class Talk:
    """What the reader of a generation and the engine share: whether it goes on."""

    cancelled: bool = False
    branch: Branch | None = None

    @property
    def over(self) -> bool:
        """Whether nobody reads it any more, or its branch had to make way."""
        return self.cancelled or (self.branch is not None and self.branch.dropped)


class NotResident(EngineError):
    """The session has no seat: it must be brought back first."""


def generate_steps(
    sessions: Sessions,
    session_id: str,
    prompt: Prompt,
    options: GenerateOptions,
    emit: Callable[[GeneratedPiece], None],
    talk: Talk,
) -> Steps[None]:
    """Writes an answer to the prompt, a piece a token; the last piece has the reason.

    Raises ContextFull where the prompt itself has no room, Overloaded where the session
    has too many generations, NotResident.
    """
    session = sessions[session_id]
    seat = session.senior
    if seat is None:
        raise NotResident(f"session {session_id!r} is not resident")
    branch, cached = _open_branch(session, seat, prompt)
    talk.branch = branch
    context = seat.group.context
    writer = _Writer(session.model, options, emit)
    decoded = list(prompt.tokens)
    position = branch.base + cached
    runs = (
        Run(
            prompt.tokens[cached:], position, (branch.sequence,), (len(prompt.tokens) - cached - 1,)
        ),
    )
    try:
        while True:
            row = (yield Ask(context, runs, Priority.FOREGROUND)).rows
            if talk.over:
                writer.finish("cancelled" if talk.cancelled or session.closed else "length")
                return
            token = writer.write(row[0], context.ends[branch.sequence])
            if token is None:
                return
            if writer.n_tokens >= options.max_tokens or not seat.has_room(1):
                writer.finish("length")
                return
            decoded.append(token)
            runs = (Run((token,), context.ends[branch.sequence], (branch.sequence,), (0,)),)
    finally:
        if prompt.keep and not branch.dropped:
            held = context.ends[branch.sequence] - branch.base
            seat.keep_chat(branch, decoded[:held])
        if branch in seat.branches:
            seat.drop_branch(branch)


def n_common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two lists begin with alike."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))


def _open_branch(session: Session, seat: Seat, prompt: Prompt) -> tuple[Branch, int]:
    """A branch, and how many of the prompt's tokens it holds already."""
    cached = 0
    if prompt.keep and seat.chat is not None and seat.chat.base == seat.held:
        # The last token is decoded in any case: its logits are wanted.
        cached = n_common(prompt.tokens[:-1], seat.chat.tokens)
    if cached:
        branch = seat.reopen_chat()
        seat.group.context.truncate(branch.sequence, branch.base + cached)
    else:
        seat.drop_chat()
    needed = len(prompt.tokens) - cached
    if not seat.has_room(needed):
        room = seat.room
        if cached:
            seat.drop_branch(branch)
        raise ContextFull(
            f"session {session.id!r} has room for {room} more tokens; the prompt needs {needed}"
        )
    return (branch if cached else seat.open_branch()), cached


class _Writer:
    """Picks tokens and sends the pieces on."""

    def __init__(
        self, model: Model, options: GenerateOptions, emit: Callable[[GeneratedPiece], None]
    ) -> None:
        self._model: Final = model
        self._options: Final = options
        self._emit: Final = emit
        self._rng: Final = np.random.default_rng(options.seed)
        self._text: Final = StopText(options.stop)
        self._log_probabilities: list[float] = []
        self._position = 0
        self.n_tokens = 0

    def write(self, row: Row, position: int) -> int | None:
        """The token that stands at `position`; None where the answer ended."""
        picked = self._pick(row)
        self._position = position
        self._log_probabilities.append(picked.log_probability)
        if picked.token in self._model.ends:
            self.finish("stop")
            return None
        self.n_tokens += 1
        text, stopped = self._text.add(self._model.piece(picked.token))
        if stopped:
            self._send(text, "stop")
            return None
        self._send(text, None, picked)
        return picked.token

    def finish(self, reason: Finish) -> None:
        """The last piece, with what was held back."""
        self._send(self._text.rest(), reason)

    def _pick(self, row: Row) -> Picked:
        if self._options.temperature == 0:
            return pick_greedy(row)
        return pick_sampled(row, self._options.temperature, self._options.top_p, self._rng)

    def _send(self, text: str, reason: Finish | None, picked: Picked | None = None) -> None:
        mean = [picked.log_probability] if picked else self._log_probabilities
        self._emit(
            GeneratedPiece(
                text=text,
                position=self._position,
                n_tokens=self.n_tokens,
                confidence=geometric_mean(mean),
                finish_reason=reason,
            )
        )
