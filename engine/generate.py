"""A generation in a branch of a session: the data is never touched (inv. 6).

The branch begins at the session's committed tokens, so it may start while an update is
under way. Where the session's data needs its cells, the branch ends with "length".
"""

from __future__ import annotations

from collections.abc import Callable
from encodings import utf_8
from typing import Final, Literal

import numpy as np

from flashfeed.models.errors import ContextFull
from flashfeed.models.generation import GeneratedPiece, GenerateOptions

from .model import Model
from .plan import Run, cut
from .score import Picked, Row, geometric_mean, pick_greedy, pick_sampled
from .sessions import Sessions
from .update import Steps

Finish = Literal["stop", "length", "cancelled"]


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


def generate_steps(
    sessions: Sessions,
    session_id: str,
    prompt: str,
    options: GenerateOptions,
    emit: Callable[[GeneratedPiece], None],
    is_cancelled: Callable[[], bool],
) -> Steps[None]:
    """Writes an answer to the prompt, a piece a token; the last piece has the reason.

    Raises ContextFull where the prompt itself has no room, Overloaded where the
    context has no sequence free.
    """
    session, model = sessions[session_id], sessions.model
    tokens = model.tokens(prompt) + model.tail
    if len(tokens) > session.room:
        raise ContextFull(
            f"session {session_id!r} has room for {session.room} more tokens; "
            f"the prompt needs {len(tokens)}"
        )
    branch = session.open_branch()
    writer = _Writer(model, options, emit)
    context, token = session.group.context, -1
    runs = (Run(tokens, len(session.tokens), (branch.sequence,), (len(tokens) - 1,)),)
    try:
        while True:
            for one in cut(runs, context.limits):
                decoded = yield context, one
                branch.cells += one.n_tokens
                if one.n_outputs:
                    written = writer.write(decoded.rows[0], context.ends[branch.sequence])
                    if written is None:
                        return
                    token = written
                    if writer.n_tokens >= options.max_tokens:
                        writer.finish("length")
                        return
                yield None
                # In the others' turn the branch may have made way, or been closed.
                if branch.dropped or is_cancelled():
                    made_way = branch.dropped and not branch.cancelled
                    writer.finish("length" if made_way else "cancelled")
                    return
            if session.room < 1:
                writer.finish("length")
                return
            position = context.ends[branch.sequence]
            runs = (Run((token,), position, (branch.sequence,), (0,)),)
    finally:
        session.drop_branch(branch)


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
