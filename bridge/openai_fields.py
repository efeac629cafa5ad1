"""What OpenAI's requests have in common: how to sample, and the rules of their bodies.

null means the same as a field that is not there. Text that is no valid Unicode (half of
a surrogate pair) and integers beyond 64 bits are refused. A field that is not known is refused by
name, never dropped. `top_k`, `min_p`, `repetition_penalty` and `ignore_eos` go beyond the
published client.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from flashfeed.models.generation import (
    LOGIT_BIAS_MAX,
    LOGIT_BIASES_MAX,
    LOGPROBS_MAX,
    MAX_TOKENS_MAX,
    OPENAI_PENALTY_MAX,
    REPETITION_PENALTY_MAX,
    REPETITION_PENALTY_MIN,
    STOP_CHARACTERS_MAX,
    STOP_STRINGS_MAX,
    TEMPERATURE_MAX,
    TOP_K_MAX,
    GenerateOptions,
)

CHOICES_MAX: Final = 16
METADATA_KEYS_MAX: Final = 16
SESSION_ID_CHARS_MAX: Final = 256
_SEEDS: Final = 2**64

StopText = Annotated[str, Field(max_length=STOP_CHARACTERS_MAX)]
MetadataKey = Annotated[str, Field(max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=METADATA_KEYS_MAX)]
"""What a caller keeps beside an answer; it changes nothing."""
SessionId = Annotated[
    str, Field(max_length=SESSION_ID_CHARS_MAX, description="ask this live session's data")
]
ModelName = Annotated[
    str, Field(max_length=1024, description="left out: the worker's own, or the session's")
]
TokenNumber = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-LOGIT_BIAS_MAX, le=LOGIT_BIAS_MAX)]
MaxTokens = Annotated[int, Field(ge=1, le=MAX_TOKENS_MAX)]
TopLogprobs = Annotated[int, Field(ge=0, le=LOGPROBS_MAX)]


class Body(BaseModel):
    """What every request body has: strict types, no unknown fields, null as left out."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        try:  # what is read here is shown and kept again, as JSON
            orjson.dumps(data)
        except orjson.JSONEncodeError as error:
            raise ValueError(f"expected JSON that can be written again: {error}") from None
        return {key: value for key, value in data.items() if value is not None}


class MetadataBody(Body):
    """Metadata that take the place of those that are there."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"metadata": {"run": "7"}}]})

    metadata: Metadata


class SamplingBody(Body):
    """How to sample, in OpenAI's words and with OpenAI's defaults."""

    temperature: float = Field(default=1.0, ge=0, le=TEMPERATURE_MAX)
    top_p: float = Field(default=1.0, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=_SEEDS)
    stop: StopText | Annotated[list[StopText], Field(max_length=STOP_STRINGS_MAX)] = []
    presence_penalty: float = Field(default=0.0, ge=-OPENAI_PENALTY_MAX, le=OPENAI_PENALTY_MAX)
    frequency_penalty: float = Field(default=0.0, ge=-OPENAI_PENALTY_MAX, le=OPENAI_PENALTY_MAX)
    top_k: int = Field(default=0, ge=0, le=TOP_K_MAX)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(
        default=1.0, ge=REPETITION_PENALTY_MIN, le=REPETITION_PENALTY_MAX
    )
    ignore_eos: bool = False
    logit_bias: dict[TokenNumber, Bias] = Field(
        default={}, max_length=LOGIT_BIASES_MAX, description="by the model's own token numbers"
    )

    def sampling(
        self, max_tokens: int, logprobs: int = 0, json_schema: dict[str, Any] | None = None
    ) -> GenerateOptions:
        """As the session service takes it."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        return GenerateOptions(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=None if self.seed is None else self.seed % _SEEDS,
            stop=tuple(text for text in stop if text),
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            ignore_eos=self.ignore_eos,
            logit_bias=tuple((int(token), bias) for token, bias in self.logit_bias.items()),
            logprobs=logprobs,
            json_schema=json_schema,
        )


class StreamOptions(Body):
    """`include_usage`: one more chunk at the end, with the counts and no choices.
    `include_obfuscation`: chunks are never padded here, so that it changes nothing."""

    include_usage: bool = False
    include_obfuscation: bool = False
