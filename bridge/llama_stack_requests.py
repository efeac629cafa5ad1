"""What Llama Stack clients send, as models that check it and describe it: what agents and
inference have in common.

One model reads all versions of the client, whose fields differ by name and never by
meaning. As with Llama Stack itself a field that is not here is passed over; what is
known and cannot be done is refused by name.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from flashfeed.models.errors import RequestError
from flashfeed.models.generation import REPETITION_PENALTY_MAX, GenerateOptions

from .bounds import Count, Grammar, Name, Seed, StopTexts
from .errors import InvalidField, Unsupported
from .llama_stack_words import Words

TOP_P_DEFAULT: Final = 0.95
MAX_TOKENS_DEFAULT: Final = 1024

ToolChoice: TypeAlias = Name


def shown(*examples: Words) -> ConfigDict:
    """A body's configuration with examples of it, for OpenAPI."""
    return ConfigDict(json_schema_extra={"examples": list(examples)})


class Part(BaseModel):
    """A part of a request: strict types; what is not known is passed over."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Body(Part):
    """A request. Much of it is kept and shown again: what cannot be written as JSON (half
    of a surrogate pair, an integer beyond 64 bits) is refused."""

    @model_validator(mode="before")
    @classmethod
    def _writable(cls, data: Any) -> Any:
        try:
            orjson.dumps(data)
        except orjson.JSONEncodeError as error:
            raise ValueError(f"expected JSON that can be written again: {error}") from None
        return data


class Strategy(Part):
    """How the next token is drawn."""

    type: Literal["greedy", "top_p", "top_k"]
    temperature: float | None = Field(default=None, ge=0, le=5)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: Count | None = Field(default=None, ge=0)


class SamplingParams(Part):
    """Sampling. In 0.0.35 `strategy` is a name, and its numbers stand beside it; 0 is
    everywhere the default."""

    strategy: Strategy | Literal["greedy", "top_p", "top_k"] = "greedy"
    max_tokens: Count | None = Field(default=None, ge=0, examples=[64])
    repetition_penalty: float | None = Field(default=None, ge=0, le=REPETITION_PENALTY_MAX)
    stop: StopTexts | None = None
    temperature: float | None = Field(default=None, ge=0, le=5)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: Count | None = Field(default=None, ge=0)
    seed: Seed | None = Field(default=None, description="goes beyond the client's fields")

    def fields(self) -> dict[str, Any]:
        """The fields of GenerateOptions that this sets."""
        fields: dict[str, Any] = {"seed": self.seed, "stop": tuple(self.stop or ())}
        if self.max_tokens:
            fields["max_tokens"] = self.max_tokens
        if self.repetition_penalty:
            fields["repetition_penalty"] = self.repetition_penalty
        by_name = isinstance(self.strategy, str)
        strategy = self.strategy
        if isinstance(strategy, str):
            strategy = Strategy(
                type=strategy, temperature=self.temperature, top_p=self.top_p, top_k=self.top_k
            )
        if strategy.type == "greedy":
            return fields
        # 0.0.35 sends 0 for what its user left out; later clients mean it.
        unset = strategy.temperature is None or (by_name and not strategy.temperature)
        fields["temperature"] = 1.0 if unset else strategy.temperature
        if strategy.type == "top_p":
            fields["top_p"] = strategy.top_p or TOP_P_DEFAULT
        else:
            fields["top_k"] = strategy.top_k or 0
        return fields


class Logprobs(Part):
    """How many of the likeliest tokens to report for each place."""

    top_k: int | None = Field(default=None, ge=0, le=20)


class ResponseFormat(Part):
    """What the text must be: of a JSON schema, or of a grammar."""

    type: Literal["json_schema", "grammar"]
    json_schema: dict[str, Any] | None = None
    bnf: Grammar | dict[str, Any] | None = None

    def fields(self, where: str) -> dict[str, Any]:
        """The field of GenerateOptions that this sets."""
        if self.type == "json_schema":
            if self.json_schema is None:
                raise InvalidField(f"{where}.json_schema: expected a schema", where)
            return {"json_schema": self.json_schema}
        if not isinstance(self.bnf, str):
            at = f"{where}.bnf"
            raise Unsupported(f"{at}: expected a GBNF grammar as one string", at)
        return {"grammar": self.bnf}


class ToolConfig(Part):
    """Whether tools are called. How a call is written is the model's own affair."""

    tool_choice: ToolChoice | None = None
    tool_prompt_format: Name | None = None
    system_message_behavior: Name | None = None


def generate_options(
    sampling: SamplingParams | None,
    response_format: ResponseFormat | None,
    logprobs: Logprobs | None,
    where: str = "",
) -> GenerateOptions:
    """How to generate. Raises InvalidField, naming the part, or Unsupported."""
    fields: dict[str, Any] = {"max_tokens": MAX_TOKENS_DEFAULT}
    if logprobs is not None:
        fields["logprobs"] = logprobs.top_k or 1
    if response_format is not None:
        fields |= response_format.fields(f"{where}response_format")
    part = f"{where}sampling_params"
    if sampling is not None:
        fields |= sampling.fields()
    try:
        return GenerateOptions(**fields)
    except RequestError as error:
        raise InvalidField(f"{part}: {error}", part) from None


def choice_of(config: ToolConfig | None) -> ToolChoice | None:
    """What a configuration of tools says of calling them."""
    return None if config is None else config.tool_choice


def tool_choice(tools: list[Words], *choices: ToolChoice | None) -> str | Words:
    """The first of the choices that is one, as chat_request takes it: a word, or a tool by
    its name."""
    choice = next((one for one in choices if one), "auto")
    if choice == "required" and not tools:
        return "auto"  # a hint to Llama Stack, which nothing can follow without tools
    return choice if choice in ("auto", "none", "required") else {"name": choice}
