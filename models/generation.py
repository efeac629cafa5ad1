"""A generation against a live session: what is asked, and what comes back."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from .chat import ChatRequest, ToolCall
from .errors import RequestError

MAX_TOKENS_MAX: Final = 32_768
TEMPERATURE_MAX: Final = 5.0
TOP_K_MAX: Final = 1_000_000
REPETITION_PENALTY_MIN: Final = 0.1
REPETITION_PENALTY_MAX: Final = 10.0
REPETITION_WINDOW_MAX: Final = 4096
OPENAI_PENALTY_MAX: Final = 2.0
SEED_MAX: Final = 2**64 - 1
STOP_STRINGS_MAX: Final = 16
STOP_CHARACTERS_MAX: Final = 256
LOGPROBS_MAX: Final = 20
LOGIT_BIAS_MAX: Final = 100.0
LOGIT_BIASES_MAX: Final = 1024
GRAMMAR_CHARACTERS_MAX: Final = 65_536

Finish = Literal["stop", "length", "cancelled", "tool_calls"]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
OpenAIPenalty = Annotated[float, msgspec.Meta(ge=-OPENAI_PENALTY_MAX, le=OPENAI_PENALTY_MAX)]
StopString = Annotated[str, msgspec.Meta(max_length=STOP_CHARACTERS_MAX)]

_RANGES: Final[dict[str, tuple[float, float]]] = {
    "max_tokens": (1, MAX_TOKENS_MAX),
    "temperature": (0, TEMPERATURE_MAX),
    "top_p": (0, 1),
    "top_k": (0, TOP_K_MAX),
    "min_p": (0, 1),
    "repetition_penalty": (REPETITION_PENALTY_MIN, REPETITION_PENALTY_MAX),
    "repetition_window": (0, REPETITION_WINDOW_MAX),
    "presence_penalty": (-OPENAI_PENALTY_MAX, OPENAI_PENALTY_MAX),
    "frequency_penalty": (-OPENAI_PENALTY_MAX, OPENAI_PENALTY_MAX),
    "logprobs": (0, LOGPROBS_MAX),
}


class GenerateOptions(msgspec.Struct, frozen=True):
    """How to sample, where to stop and what to report.

    `temperature` 0 is greedy, and `seed` None draws one. `top_k` and `min_p` are off at
    0, `top_p` at 1, `repetition_penalty` at 1. The last is llama.cpp's, over the last
    `repetition_window` tokens, the prompt's own included; `presence_penalty` and
    `frequency_penalty` are OpenAI's, over what was written. `logprobs` is how many of
    the likeliest tokens each piece reports. `ignore_eos` goes on where the model would
    end its turn. `logit_bias` adds to the logits of tokens before the penalties; 100
    either way as good as forces or bans one. `grammar` (GBNF, as llama.cpp defines it) or
    `json_schema` constrain the text. With `clear_after` nothing of the generation stays
    in the session.

    Raises RequestError where a value is out of its bounds.
    """

    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS_MAX)] = 256
    temperature: Annotated[float, msgspec.Meta(ge=0, le=TEMPERATURE_MAX)] = 0.0
    top_p: Probability = 1.0
    seed: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stop: Annotated[tuple[StopString, ...], msgspec.Meta(max_length=STOP_STRINGS_MAX)] = ()
    top_k: Annotated[int, msgspec.Meta(ge=0, le=TOP_K_MAX)] = 0
    min_p: Probability = 0.0
    repetition_penalty: Annotated[
        float, msgspec.Meta(ge=REPETITION_PENALTY_MIN, le=REPETITION_PENALTY_MAX)
    ] = 1.0
    repetition_window: Annotated[int, msgspec.Meta(ge=0, le=REPETITION_WINDOW_MAX)] = 64
    presence_penalty: OpenAIPenalty = 0.0
    frequency_penalty: OpenAIPenalty = 0.0
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=LOGPROBS_MAX)] = 0
    ignore_eos: bool = False
    logit_bias: Annotated[
        tuple[tuple[int, float], ...], msgspec.Meta(max_length=LOGIT_BIASES_MAX)
    ] = ()
    grammar: Annotated[str, msgspec.Meta(max_length=GRAMMAR_CHARACTERS_MAX)] = ""
    json_schema: dict[str, Any] | None = None
    clear_after: bool = True

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:  # NaN is in no range
                raise RequestError(f"expected {name} from {low} to {high}, got {value}")
        if self.seed is not None and not 0 <= self.seed <= SEED_MAX:
            raise RequestError(f"expected a seed from 0 to {SEED_MAX}, got {self.seed}")
        longest = max(map(len, self.stop), default=0)
        if len(self.stop) > STOP_STRINGS_MAX or longest > STOP_CHARACTERS_MAX:
            raise RequestError(
                f"expected at most {STOP_STRINGS_MAX} stop strings of {STOP_CHARACTERS_MAX} "
                f"characters each, got {len(self.stop)}, the longest of {longest}"
            )
        if len(self.grammar) > GRAMMAR_CHARACTERS_MAX:
            raise RequestError(
                f"expected a grammar of at most {GRAMMAR_CHARACTERS_MAX} characters, "
                f"got {len(self.grammar)}"
            )
        if len(self.logit_bias) > LOGIT_BIASES_MAX:
            raise RequestError(
                f"expected a logit_bias of at most {LOGIT_BIASES_MAX} tokens, "
                f"got {len(self.logit_bias)}"
            )
        for token, bias in self.logit_bias:
            if token < 0 or not -LOGIT_BIAS_MAX <= bias <= LOGIT_BIAS_MAX:
                raise RequestError(
                    f"expected a logit_bias from -{LOGIT_BIAS_MAX:g} to {LOGIT_BIAS_MAX:g} of a "
                    f"token, got {bias} of {token}"
                )
        if self.grammar and self.json_schema is not None:
            raise RequestError("expected a grammar or a json_schema, got both; leave one out")


class Continuation(msgspec.Struct, frozen=True):
    """A text to go on with, token by token as it stands: no template is put around it."""

    text: str


PlainPrompt: TypeAlias = ChatRequest | Continuation
"""What may be asked without a session: a whole conversation, or a text to go on with."""


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token that could stand at a place, and its natural log-probability.

    `raw` are the token's bytes; `text` has the replacement character where they are no
    whole characters.
    """

    text: str
    raw: bytes
    log_probability: float


class GeneratedPiece(msgspec.Struct, frozen=True):
    """One step of a generation's stream.

    `text` may be empty (part of a character, or held back because a stop string may
    begin in it); the texts of all pieces joined are the answer. `position` is the
    token's position in the fork. The last piece alone has `finish_reason`, and `stop` where
    a stop string ended the answer: that one. Every piece has the two counts of what was
    read before it: `prompt_tokens` (all that the model read) and `cached_tokens` (those of
    them that the session held already).

    `raw` are the bytes of the piece's token, `log_probability` its natural
    log-probability, `logit_gap` its logit less the best other one's (below 0 where it
    was not the likeliest) and `top` the likeliest tokens. All three are of the model's
    own distribution: temperature 1, before biases, penalties, filters and grammar. `tool_calls`
    are the calls that ended with this piece; what was written of them is in no text.
    """

    text: str
    position: int
    n_tokens: int
    confidence: float = 0.0
    finish_reason: Finish | None = None
    raw: bytes = b""
    log_probability: float = 0.0
    logit_gap: float = 0.0
    top: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    stop: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
