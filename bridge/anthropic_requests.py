"""What an Anthropic client sends, as models that check it and describe it.

A field that is not here is refused by name, never dropped. `session_id`, `seed` and
`ignore_eos` go beyond Anthropic's API and are LayerScale's. The conversation itself is
read in anthropic_conversation.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from flashfeed.models.chat import CONTENT_CHARS_MAX, MESSAGES_MAX, TOOLS_MAX, ChatRequest
from flashfeed.models.generation import (
    MAX_TOKENS_MAX,
    SEED_MAX,
    STOP_CHARACTERS_MAX,
    STOP_STRINGS_MAX,
    TOP_K_MAX,
    GenerateOptions,
)

from .anthropic_conversation import BLOCKS_MAX, conversation
from .errors import Unsupported

MODEL_CHARACTERS_MAX = 2000
TEMPERATURE_MAX = 1.0

SESSION_ID_CHARACTERS_MAX = 256
TOOL_NAME_CHARACTERS_MAX = 64

Text = Annotated[str, Field(max_length=CONTENT_CHARS_MAX)]
Blocks = Annotated[list[dict[str, Any]], Field(max_length=BLOCKS_MAX)]
StopText = Annotated[str, Field(max_length=STOP_CHARACTERS_MAX)]

_EXAMPLE: dict[str, Any] = {
    "model": "packaged",
    "max_tokens": 100,
    "system": "You are terse.",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
}
_TOOL_EXAMPLE: dict[str, Any] = _EXAMPLE | {
    "tools": [
        {
            "name": "price",
            "description": "The last price of a stock.",
            "input_schema": {"type": "object", "properties": {"symbol": {"type": "string"}}},
        }
    ],
    "tool_choice": {"type": "any"},
}


class _Body(BaseModel):
    """What every request body has: strict types, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ToolChoiceBody(_Body):
    """auto: the model decides; any: some tool is called; tool: the one named; none."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = Field(default=None, max_length=TOOL_NAME_CHARACTERS_MAX)
    disable_parallel_tool_use: bool = False


class OutputConfigBody(_Body):
    """How the answer is written: `format` constrains it to a JSON schema."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: dict[str, Any] | None = None


class CountBody(_Body):
    """A conversation, to be counted."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    messages: list[dict[str, Any]] = Field(min_length=1, max_length=MESSAGES_MAX)
    model: str = Field(
        default="",
        max_length=MODEL_CHARACTERS_MAX,
        description="empty: the worker's default; not read with a session_id",
    )
    system: Text | Blocks | None = None
    tools: list[dict[str, Any]] | None = Field(default=None, max_length=TOOLS_MAX)
    tool_choice: ToolChoiceBody | None = None
    thinking: dict[str, Any] | None = Field(default=None, description="only disabled")
    output_config: OutputConfigBody | None = None
    cache_control: dict[str, Any] | None = Field(
        default=None, description="accepted: what can be kept is kept, in any case"
    )
    speed: Literal["standard", "fast"] | None = None
    max_tokens: int = Field(default=1, ge=1, le=MAX_TOKENS_MAX)
    temperature: float = Field(default=1.0, ge=0, le=TEMPERATURE_MAX)
    top_p: float = Field(default=1.0, ge=0, le=1)
    top_k: int = Field(default=0, ge=0, le=TOP_K_MAX)
    stop_sequences: list[StopText] | None = Field(default=None, max_length=STOP_STRINGS_MAX)
    stream: bool = False
    metadata: dict[str, Any] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    container: None = Field(default=None, description="not supported")
    diagnostics: None = Field(default=None, description="not supported")
    inference_geo: None = Field(default=None, description="not supported")
    seed: int | None = Field(default=None, ge=0, le=SEED_MAX)
    ignore_eos: bool = False
    session_id: str | None = Field(
        default=None,
        max_length=SESSION_ID_CHARACTERS_MAX,
        description="asks this live session, as the header x-layerscale-session-id does",
    )

    def chat_request(self) -> ChatRequest:
        """The conversation as the service takes it. Raises InvalidField, Unsupported."""
        if self.thinking is not None and self.thinking.get("type") != "disabled":
            message = "thinking: this bridge's models answer without it; send disabled, or nothing"
            raise Unsupported(message, "thinking")
        if self.output_config is not None and self.output_config.effort not in (None, "low"):
            message = "output_config.effort: only low, which is without thinking"
            raise Unsupported(message, "output_config.effort")
        if self.speed == "fast":
            raise Unsupported("speed: there is one speed; send standard, or nothing", "speed")
        choice = self.tool_choice
        return conversation(
            self.messages,
            self.system,
            self.tools or (),
            choice.type if choice else "auto",
            choice.name if choice else None,
        )


class MessagesBody(CountBody):
    """A conversation, to be answered."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE, _TOOL_EXAMPLE]})

    max_tokens: int = Field(ge=1, le=MAX_TOKENS_MAX)

    @property
    def one_call(self) -> bool:
        """Whether the answer ends with its first call of a tool."""
        return self.tool_choice is not None and self.tool_choice.disable_parallel_tool_use

    def options(self) -> GenerateOptions:
        """How to sample. Raises RequestError, Unsupported."""
        return GenerateOptions(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=self.seed,
            stop=tuple(text for text in self.stop_sequences or () if text),
            ignore_eos=self.ignore_eos,
            json_schema=self._json_schema(),
        )

    def _json_schema(self) -> dict[str, Any] | None:
        wanted = self.output_config.format if self.output_config else None
        if wanted is None:
            return None
        schema = wanted.get("schema")
        if wanted.get("type") != "json_schema" or not isinstance(schema, dict):
            where = "output_config.format"
            message = f'{where}: expected {{"type": "json_schema", "schema": an object}}'
            raise Unsupported(message, where)
        return schema
