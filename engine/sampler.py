"""The next token of one generation. Pure numpy.

The chain is llama.cpp's default order: biases, penalties, then top_k, top_p and min_p at
temperature 1, then the temperature and the draw (the Gumbel-max trick: the likeliest after
noise; Maddison, Tarlow, Minka 2014, arXiv:1411.0030). With a grammar the token is drawn
first and checked alone, as llama.cpp does. One that the grammar does not allow is taken
out and the draw made again; after some of them everything is taken out that is not
allowed. Greedy and unfiltered draws are exactly those from the allowed tokens, filtered
ones prefer what the filters left.

What is reported of a token (log-probability, gap, likeliest tokens) is of the model's own
distribution: temperature 1, before biases, penalties, filters and grammar.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flashfeed.models.errors import EngineError, RequestError
from flashfeed.models.generation import GenerateOptions

from .grammar import Grammar
from .score import Picked, Row, log_normaliser

_REDRAWS_MAX: Final = 8
"""Tokens checked one by one (some us each) before all are (1 to 25 ms where it is new)."""
_NUCLEUS_FIRST: Final = 256
"""How many of the likeliest tokens are looked at first for top_p; then eight times more."""


class Sampler:
    """Picks the tokens of one generation, each of which it counts as written.

    `prompt_tokens` are those that the repetition penalty sees beside the written ones,
    `ends` the tokens that end an answer. The same seed and rows give the same tokens.
    """

    def __init__(
        self,
        options: GenerateOptions,
        vocabulary_size: int,
        prompt_tokens: Sequence[int],
        ends: Iterable[int],
        grammar: Grammar | None = None,
    ) -> None:
        self._options: Final = options
        self._size: Final = vocabulary_size
        self._ends: Final = np.array(sorted(ends), np.intp)
        self._grammar: Final = grammar
        biased = dict(options.logit_bias)
        if max(biased, default=0) >= vocabulary_size:
            raise RequestError(
                f"logit_bias: expected tokens below {vocabulary_size}, the size of the model's "
                f"vocabulary, got {max(biased)}"
            )
        self._biased: Final = np.fromiter(biased.keys(), np.intp)
        self._biases: Final = np.fromiter(biased.values(), np.float32)
        self._random: Final = np.random.default_rng(options.seed)
        window = options.repetition_window
        last = prompt_tokens[-window:] if window else ()
        self._recent: Final[deque[int]] = deque(last, maxlen=window)
        self._written: Final[Counter[int]] = Counter()

    def pick(self, row: Row) -> Picked:
        """The token after these logits, one for each token of the vocabulary.

        Raises EngineError where the logits are not numbers, RequestError where the
        grammar allows no token of this model, or is too ambiguous.
        """
        peak = self._checked_peak(row)
        adjusted = self._adjusted(row)
        token = self._draw(adjusted)
        if self._grammar is not None:
            token = self._checked(token, adjusted, row, self._grammar)
            self._grammar.accept(token)
        picked = self._report(row, token, peak)
        self._recent.append(token)
        self._written[token] += 1
        return picked

    def _checked_peak(self, row: Row) -> float:
        if row.shape != (self._size,):
            raise EngineError(f"expected {self._size} logits, got an array of {row.shape}")
        peak = float(row.max())
        if not np.isfinite(peak):  # a NaN anywhere is the greatest
            raise EngineError(f"expected finite logits from the model, got {peak} among them")
        return peak

    def _adjusted(self, row: Row) -> Row:
        """The logits with biases and penalties; the row itself where there are none."""
        options = self._options
        is_open = options.ignore_eos and len(self._ends) > 0
        repeats = options.repetition_penalty != 1 and len(self._recent) > 0
        counts = bool(options.presence_penalty or options.frequency_penalty) and self._written
        if not (is_open or repeats or counts or len(self._biased)):
            return row
        adjusted = row.copy()
        adjusted[self._biased] += self._biases
        if repeats:
            tokens = np.fromiter(set(self._recent), np.intp)
            logits = adjusted[tokens]
            penalty = np.float32(options.repetition_penalty)
            adjusted[tokens] = np.where(logits > 0, logits / penalty, logits * penalty)
        if counts:
            tokens = np.fromiter(self._written.keys(), np.intp)
            times = np.fromiter(self._written.values(), np.float32)
            adjusted[tokens] -= times * np.float32(options.frequency_penalty)
            adjusted[tokens] -= np.float32(options.presence_penalty)
        if is_open:
            adjusted[self._ends] = -np.inf
        return adjusted

    def _checked(self, token: int, adjusted: Row, row: Row, grammar: Grammar) -> int:
        """The token if the grammar allows it, else another draw that it does."""
        left = adjusted
        for _ in range(_REDRAWS_MAX):
            if grammar.allows(token):
                return token
            left = left.copy() if left is adjusted else left
            left[token] = -np.inf
            if not np.isfinite(left.max()):
                break
            token = self._draw(left)
        allowed = grammar.allowed()
        left = np.where(allowed, adjusted, np.float32(-np.inf))
        if not np.isfinite(left.max()):
            # Nothing may come but an end that `ignore_eos` took out.
            left = np.where(allowed, row, np.float32(-np.inf))
        if not np.isfinite(left.max()):
            raise RequestError(
                "the grammar cannot go on: no token of this model fits after the text so far"
            )
        return self._draw(left)

    def _draw(self, logits: Row) -> int:
        options = self._options
        if options.temperature == 0 or options.top_k == 1:
            return int(logits.argmax())
        tokens, kept = self._filtered(logits)
        # Each token has its own luck: logits that other batches give in other last bits
        # (a cached prompt, another machine) then hardly ever change the draw of a seed, where
        # one number among the sums of all weights would.
        luck = self._random.standard_exponential(len(logits))
        luck = np.maximum(luck if tokens is None else luck[tokens], np.finfo(np.float64).tiny)
        with np.errstate(over="ignore"):  # at a temperature next to 0 all others weigh nothing
            scaled = (kept.astype(np.float64) - float(kept.max())) / options.temperature
        place = int((scaled - np.log(luck)).argmax())
        return place if tokens is None else int(tokens[place])

    def _filtered(self, logits: Row) -> tuple[NDArray[np.intp] | None, Row]:
        """The tokens that the filters leave, and their logits; None are all tokens."""
        options = self._options
        tokens: NDArray[np.intp] | None = None
        if 0 < options.top_k < len(logits):
            tokens = np.argpartition(logits, -options.top_k)[-options.top_k :]
            logits = logits[tokens]
        if options.top_p < 1:
            kept = nucleus(logits, options.top_p)
            logits = logits[kept]
            tokens = kept if tokens is None else tokens[kept]
        if options.min_p > 0:
            least = float(logits.max()) + float(np.log(options.min_p))
            kept = np.flatnonzero(logits >= least)
            logits = logits[kept]
            tokens = kept if tokens is None else tokens[kept]
        return tokens, logits

    def _report(self, row: Row, token: int, peak: float) -> Picked:
        normaliser = log_normaliser(row)
        others = max(
            float(row[:token].max(initial=-np.inf)), float(row[token + 1 :].max(initial=-np.inf))
        )
        logit = float(row[token])
        top: tuple[tuple[int, float], ...] = ()
        wanted = min(self._options.logprobs, len(row))
        if wanted:
            likeliest = np.argpartition(row, -wanted)[-wanted:]
            likeliest = likeliest[np.argsort(-row[likeliest], kind="stable")]
            top = tuple((int(one), float(row[one]) - normaliser) for one in likeliest)
        return Picked(token, logit - normaliser, logit - others, top)


def nucleus(logits: Row, top_p: float) -> NDArray[np.intp]:
    """The places of the fewest logits whose probabilities sum to top_p; at least one.

    Only as many as are needed are sorted.
    """
    weights = np.exp(logits - logits.max())
    wanted = top_p * float(weights.sum(dtype=np.float64))
    n = min(_NUCLEUS_FIRST, len(weights))
    while True:
        places = np.argpartition(weights, -n)[-n:] if n < len(weights) else np.arange(n)
        places = places[np.argsort(-weights[places], kind="stable")]
        sums = np.cumsum(weights[places], dtype=np.float64)
        if sums[-1] >= wanted or n == len(weights):
            return places[: int(np.searchsorted(sums, wanted)) + 1]
        n = min(n * 8, len(weights))
