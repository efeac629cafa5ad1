"""One question on its way from rows of logits to an answer. Pure."""

from __future__ import annotations

from encodings import utf_8
from typing import Final

from flashfeed.models.session import Answer, FlashQuery

from .hidden import state_bytes
from .model import Model
from .plan import Asked, Want
from .score import Picked, Row, geometric_mean, pick_greedy, softmax, token_log_probability


class Pending:
    """The question's answer so far.

    A question with choices ends with its last wanted row. A free one is `ended` when
    the model ends its turn or `max_tokens` are written; until then `go_on` wants the
    logits after the last token of `written`. `hidden` is the hidden state that a choice is
    made from, where it is read; `decoded` counts the tokens that it took.
    """

    def __init__(self, model: Model, query: FlashQuery, asked: Asked) -> None:
        self._model: Final = model
        self._query: Final = query
        self.asked: Final = asked
        self._scores: list[float] = [0.0] * len(asked.choices)
        self._log_probabilities: list[float] = []
        self._gap = 0.0
        self._first = -1
        self.written: list[int] = []
        self.hidden = b""
        self.decoded = asked.n_tokens
        self.ended = bool(asked.choices)

    def take(self, want: Want, row: Row, hidden: Row) -> None:
        """The logits that the plan wanted for this question, and the hidden state there."""
        choices = self.asked.choices
        if want.choice is not None:
            token = choices[want.choice][want.depth]
            self._scores[want.choice] += token_log_probability(row, token)
        elif choices:
            self.hidden = state_bytes(hidden)
            # The normaliser of the first token is the same for all choices: left out.
            for place, choice in enumerate(choices):
                self._scores[place] += float(row[choice[0]])
        else:
            first = pick_greedy(row, with_gap=True)
            self._gap, self._first = first.gap, first.token
            self._write(first)

    def go_on(self, row: Row) -> None:
        """The next token of a free answer."""
        self._write(pick_greedy(row))

    def answer(self) -> Answer:
        """The answer, once nothing more is wanted."""
        if self.asked.choices:
            return self._chosen()
        raw = b"".join(self._model.piece(token) for token in self.written)
        # Not final: what is left of a character that max_tokens cut is dropped.
        text = utf_8.IncrementalDecoder("replace").decode(raw)
        return Answer(
            query_id=self._query.id,
            value=text.strip(),
            confidence=geometric_mean(self._log_probabilities),
            logit_gap=self._gap,
            n_tokens=len(self.written),
            first_token=self._first,
        )

    def _write(self, picked: Picked) -> None:
        if picked.token in self._model.ends:
            self.ended = True
            if not self.written:
                self._log_probabilities.append(picked.log_probability)
            return
        self.written.append(picked.token)
        self._log_probabilities.append(picked.log_probability)
        self.ended = len(self.written) >= self.asked.max_tokens

    def _chosen(self) -> Answer:
        probabilities = softmax(self._scores)
        ranked = sorted(self._scores, reverse=True)
        best = self._scores.index(ranked[0])
        return Answer(
            query_id=self._query.id,
            value=self._query.choices[best],
            confidence=probabilities[best],
            logit_gap=ranked[0] - ranked[1],
            probabilities=dict(zip(self._query.choices, probabilities, strict=True)),
        )
