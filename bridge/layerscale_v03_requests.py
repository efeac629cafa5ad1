"""What a LayerScale 0.3 client sends, as models that check it and describe it.

A field that is not here is refused by name, never dropped: a caller who asks for
something this bridge does not do is told so. `choices` and `name` of a flash query,
sampling options and an inline `mark_prefix` go beyond the published client.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from flashfeed.models.errors import DecodeFault
from flashfeed.models.generation import GenerateOptions
from flashfeed.models.records import StreamType
from flashfeed.models.session import (
    CHOICES_MAX,
    QUERIES_MAX,
    WINDOW_ITEMS_MAX,
    FlashQuery,
    SessionSpec,
    WindowSpec,
)
from flashfeed.models.views import Fields

from .errors import InvalidField, Unsupported

CANDLE_EXAMPLE = {
    "o": 150.2,
    "h": 150.8,
    "l": 150.1,
    "c": 150.7,
    "v": 1_200_000,
    "timestamp": 1_733_000_000,
    "sym": "AAPL",
}
PUSH_EXAMPLE = {"data": [CANDLE_EXAMPLE]}


class _Body(BaseModel):
    """What every request body has: strict types, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FlashBody(_Body):
    """A standing question, answered again after every update."""

    query: str = Field(min_length=1, max_length=2000, examples=["Is the trend bullish?"])
    max_tokens: int = Field(default=32, ge=1, le=512)
    choices: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field(
        default=[],
        max_length=CHOICES_MAX,
        description="the answers it may have: 2 or more, or none",
    )
    name: str = Field(default="", max_length=100, description="a short name, for metrics")

    def flash_query(self, where: str) -> FlashQuery:
        """The question as the session service takes it; `where` is its place in the body."""
        try:
            return FlashQuery(
                query=self.query,
                name=self.name,
                choices=tuple(self.choices),
                max_tokens=self.max_tokens,
            )
        except ValueError as error:
            param = f"{where}choices"
            raise InvalidField(f"{param}: {error}", param) from None


class CreateBody(_Body):
    """A new session."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "ohlcv",
                    "prompt": "You are a financial analyst. Analyze incoming market data.",
                    "flash": [
                        {"query": "Is the trend bullish or bearish?", "max_tokens": 4},
                        {"query": "Is volume rising?", "choices": ["yes", "no"]},
                    ],
                }
            ]
        }
    )

    type: StreamType
    prompt: str = Field(default="", max_length=20_000)
    context: int = Field(default=0, ge=0, description="tokens; 0 for the engine's default")
    window_size: int = Field(
        default=0,
        ge=0,
        le=WINDOW_ITEMS_MAX,
        description="items: the session keeps the last so many to twice as many; 0: all",
    )
    flash: list[FlashBody] = Field(default=[], max_length=QUERIES_MAX)
    mark_prefix: bool = Field(default=False, description="freeze the prompt as the prefix")

    def session_spec(self) -> SessionSpec:
        """The spec as the session service takes it."""
        queries = tuple(q.flash_query(f"flash.{place}.") for place, q in enumerate(self.flash))
        window = WindowSpec("exact", self.window_size) if self.window_size else WindowSpec("grow")
        return SessionSpec(
            type=self.type, prompt=self.prompt, context=self.context, flash=queries, window=window
        )


class AppendBody(_Body):
    """Text that becomes part of the context."""

    text: str = Field(min_length=1, examples=["The market opens in ten minutes."])


class MarkPrefixBody(_Body):
    """Nothing: an empty object."""


class GenerateBody(_Body):
    """A generation over the session's data. It leaves no trace in the session, unless
    `clear_after` is 0: then prompt and answer become an item of its window."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "What's the trend over the last hour?", "max_tokens": 200}]
        }
    )

    prompt: str = ""
    max_tokens: int = Field(default=256, ge=1, le=32_768)
    fast_answer: bool | list[str] | None = Field(
        default=None, description="true: a fresh answer of the standing question of that text"
    )
    clear_after: bool | int | None = Field(
        default=None, description="0: prompt and answer stay in the session's context"
    )
    stop: str | list[str] | None = None
    stream: bool = False
    temperature: float = Field(default=0.0, ge=0, le=5)
    top_p: float = Field(default=1.0, ge=0, le=1)
    seed: int | None = None
    messages: list[Any] | None = Field(default=None, description="not supported yet")
    tools: list[Any] | None = Field(default=None, description="not supported yet")

    def options(self) -> GenerateOptions:
        """How to sample. Raises Unsupported for what the client may ask and we cannot do."""
        if self.messages:
            raise Unsupported("messages: chat turns are not supported yet; use prompt", "messages")
        if self.tools:
            raise Unsupported("tools: tool calls are not supported yet", "tools")
        if isinstance(self.fast_answer, list):
            message = "fast_answer: scoring a list of answers is not supported yet; use true"
            raise Unsupported(message, "fast_answer")
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return GenerateOptions(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=tuple(text for text in stop if text),
            clear_after=self.clear_after is None or bool(self.clear_after),
        )


class PushBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Records to push; their fields are the session service's to check."""

    data: list[Fields]


_push_decoder = msgspec.json.Decoder(PushBody)


def read_push(body: bytes) -> list[Fields]:
    """The records of a push's body; raises DecodeFault, naming the path, where it is none."""
    try:
        return _push_decoder.decode(body).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message, _, path = str(error).partition(" - at `")
        raise DecodeFault(
            f'expected {{"data": [records]}}: {message}', path.rstrip("`") or "$"
        ) from None


PUSH_OPENAPI: dict[str, Any] = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "the same key again is acknowledged again and applied once",
            "schema": {"type": "string", "maxLength": 200},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {"data": {"type": "array", "items": {"type": "object"}}},
                },
                "example": PUSH_EXAMPLE,
            }
        },
    },
}
