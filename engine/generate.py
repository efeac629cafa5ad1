"""A generation in a branch of a session: the data is never touched (inv. 6).

The branch begins at the session's committed tokens, so it may start while an update is
under way. Where the session's data needs its cells, the branch ends with "length".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from flashfeed.models.errors import ContextFull
from flashfeed.models.generation import Finish, GeneratedPiece, GenerateOptions, TokenLogprob

from .grammar import Grammar, compile_options
from .model import Model
from .plan import Run, cut
from .sampler import Sampler
from .score import Picked, Row, geometric_mean
from .sessions import Sessions
from .stop_text import StopText
from .update import Steps


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
    writer = _Writer(model, options, (*session.tokens, *tokens), emit)
    branch = session.open_branch()
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
        self,
        model: Model,
        options: GenerateOptions,
        prompt: tuple[int, ...],
        emit: Callable[[GeneratedPiece], None],
    ) -> None:
        self._model: Final = model
        self._emit: Final = emit
        program = compile_options(options)
        grammar = Grammar(program, model.vocabulary, model.ends) if program else None
        self._sampler: Final = Sampler(options, model.n_vocab, prompt, model.ends, grammar)
        self._text: Final = StopText(options.stop)
        self._log_probabilities: list[float] = []
        self._position = 0
        self.n_tokens = 0

    def write(self, row: Row, position: int) -> int | None:
        """The token that stands at `position`; None where the answer ended."""
        picked = self._sampler.pick(row)
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

    def _send(self, text: str, reason: Finish | None, picked: Picked | None = None) -> None:
        mean = [picked.log_probability] if picked else self._log_probabilities
        self._emit(
            GeneratedPiece(
                text=text,
                position=self._position,
                n_tokens=self.n_tokens,
                confidence=geometric_mean(mean),
                finish_reason=reason,
                raw=self._model.piece(picked.token) if picked else b"",
                log_probability=picked.log_probability if picked else 0.0,
                logit_gap=picked.gap if picked else 0.0,
                top=self._top(picked) if picked else (),
            )
        )

    def _top(self, picked: Picked) -> tuple[TokenLogprob, ...]:
        return tuple(
            TokenLogprob(self._model.text((token,)), self._model.piece(token, True), value)
            for token, value in picked.top
        )
