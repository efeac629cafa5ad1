"""From rows of logits to the pieces that the reader of a generation gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from flashfeed.models.chat import ToolCall
from flashfeed.models.generation import Finish, GeneratedPiece, TokenLogprob

from .grammar import Grammar
from .model import Model
from .prompt import Prompt
from .sampler import Sampler
from .score import Picked, Row, geometric_mean
from .stop_text import StopText
from .tool_calls import ToolCallReader


class Writer:
    """Picks a generation's tokens and emits its pieces; the last one has the reason.

    Raises RequestError where the grammar leaves no token, EngineError for logits that
    are no numbers (both from `write`).
    """

    def __init__(
        self, model: Model, prompt: Prompt, emit: Callable[[GeneratedPiece], None]
    ) -> None:
        options, program = prompt.options, prompt.program
        grammar = Grammar(program, model.vocabulary, model.ends) if program else None
        self._model: Final = model
        self._emit: Final = emit
        self._max_tokens: Final = options.max_tokens
        self._sampler: Final = Sampler(options, model.n_vocab, prompt.tokens, model.ends, grammar)
        self._text: Final = StopText(options.stop)
        self._calls: Final = ToolCallReader(prompt.tools, prompt.tool_choice, prompt.key)
        self._tagged: Final = bool(prompt.tools)
        self._called = False
        self._log_probabilities: list[float] = []
        self._position = self._prompt_tokens = self._cached_tokens = 0
        self.n_tokens = 0

    def begin(self, prompt_tokens: int, cached_tokens: int) -> None:
        """What the model reads before it writes, and how much of it was there already."""
        self._prompt_tokens, self._cached_tokens = prompt_tokens, cached_tokens

    def write(self, row: Row, position: int) -> int | None:
        """The token that stands at `position`; None where the answer ended."""
        picked = self._sampler.pick(row)
        self._position = position
        self._log_probabilities.append(picked.log_probability)
        if picked.token in self._model.ends:
            self.finish("stop")
            return None
        self.n_tokens += 1
        raw = self._model.piece(picked.token)
        # In some vocabularies the tags of a call are control tokens, which have no text.
        if not raw and self._tagged:
            raw = self._model.piece(picked.token, True)
        text, stop = self._text.add(raw)
        if stop:
            self._send(self._calls.add(text) + self._calls.end(), "stop", stop=stop)
            return None
        if self.n_tokens >= self._max_tokens:
            self._send(self._calls.add(text), None, picked)
            self.finish("length")
            return None
        self._send(self._calls.add(text), None, picked)
        return picked.token

    def finish(self, reason: Finish) -> None:
        """The last piece, with what was held back."""
        self._send(self._calls.add(self._text.rest()) + self._calls.end(), reason)

    def _send(
        self,
        parts: tuple[str | ToolCall, ...],
        reason: Finish | None,
        picked: Picked | None = None,
        stop: str = "",
    ) -> None:
        calls = tuple(part for part in parts if isinstance(part, ToolCall))
        self._called = self._called or bool(calls)
        if reason == "stop" and self._called:
            reason = "tool_calls"
        self._emit(
            GeneratedPiece(
                text="".join(part for part in parts if isinstance(part, str)),
                position=self._position,
                n_tokens=self.n_tokens,
                confidence=geometric_mean(
                    [picked.log_probability] if picked else self._log_probabilities
                ),
                finish_reason=reason,
                raw=self._model.piece(picked.token) if picked else b"",
                log_probability=picked.log_probability if picked else 0.0,
                logit_gap=picked.gap if picked else 0.0,
                top=self._top(picked) if picked else (),
                tool_calls=calls,
                stop=stop,
                prompt_tokens=self._prompt_tokens,
                cached_tokens=self._cached_tokens,
            )
        )

    def _top(self, picked: Picked) -> tuple[TokenLogprob, ...]:
        return tuple(
            TokenLogprob(self._model.text((token,)), self._model.piece(token, True), value)
            for token, value in picked.top
        )
