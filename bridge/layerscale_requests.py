"""What LayerScale clients send of sessions and data, as models that check and describe it.

A field that is not here is refused by name, never dropped: a caller who asks for
something this bridge does not do is told so. Of a flash query `choices`, `name` and what
is made of its answers (heads/verdict.py), and an inline `mark_prefix`, go beyond the
published clients. What is asked of a session is in
layerscale_ask_requests.py.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator

from flashfeed.agents.service import PUSH_RECORDS_MAX, PUSH_TEXT_CHARS_MAX
from flashfeed.models.errors import DecodeFault
from flashfeed.models.records import StreamType
from flashfeed.models.session import (
    CHOICES_MAX,
    QUERIES_MAX,
    WINDOW_ITEMS_MAX,
    FlashQuery,
    Overflow,
    Publish,
    SessionSpec,
    WindowSpec,
)
from flashfeed.models.views import Fields

from .bounds import INTEGER_MAX, Count, Text
from .errors import InvalidField

IDEMPOTENCY_KEY_CHARS_MAX = 200

FLASH_TOKENS_MAX = 512
TEXT_SESSION_TYPE: StreamType = "event"
TEXT_SESSION_CODEC = "text"
"""Sessions of 0.8 have no type, and take texts. What may be pushed to them as records, and
what 0.3's state calls them, is this."""

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
TEXTS_EXAMPLE = {"data": ["AAPL 187.44 +0.5%", "MSFT 420.21 -0.1%"]}


class Body(BaseModel):
    """What every request body has: strict types, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FlashBody(Body):
    """A standing question, answered again after every update."""

    query: str = Field(min_length=1, max_length=2000, examples=["Is the trend bullish?"])
    max_tokens: int = Field(default=32, ge=1, le=FLASH_TOKENS_MAX)
    choices: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field(
        default=[],
        max_length=CHOICES_MAX,
        description="the answers it may have: 2 or more, or none",
    )
    name: str = Field(default="", max_length=100, description="a short name, for metrics")
    learn: bool = Field(
        default=False, description="learn from outcomes that are sent; needs choices"
    )
    min_confidence: float = Field(
        default=0.0, ge=0, le=1, description="an answer that is less sure is `abstained`"
    )
    hysteresis: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="by how much another choice must lead before the answer changes",
    )
    publish: Publish = Field(default="all", description="`changes`: only answers that changed")

    def flash_query(self, where: str) -> FlashQuery:
        """The question as the session service takes it; `where` is its place in the body."""
        try:
            return FlashQuery(
                query=self.query,
                name=self.name,
                choices=tuple(self.choices),
                max_tokens=self.max_tokens,
                learn=self.learn,
                min_confidence=self.min_confidence,
                hysteresis=self.hysteresis,
                publish=self.publish,
            )
        except ValueError as error:
            param = f"{where}choices"
            raise InvalidField(f"{param}: {error}", param) from None


class AddFlashBody(FlashBody):
    """A standing question more. `max_tokens` is brought into its bounds, as client 0.8
    expects; the answer says what it became."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "Is volume rising?", "max_tokens": 4}]}
    )

    max_tokens: int = Field(
        default=32,
        ge=-INTEGER_MAX,
        le=INTEGER_MAX,
        description=f"at most {FLASH_TOKENS_MAX}",
    )

    @field_validator("max_tokens")
    @classmethod
    def _bounded(cls, value: int) -> int:
        return min(max(value, 1), FLASH_TOKENS_MAX)


class CreateBody(Body):
    """A new session (0.3)."""

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
    context: Count = Field(default=0, ge=0, description="tokens; 0 for the engine's default")
    window_size: int = Field(
        default=0,
        ge=0,
        le=WINDOW_ITEMS_MAX,
        description="items: the session keeps the last so many to twice as many; 0: all",
    )
    flash: list[FlashBody] = Field(default=[], max_length=QUERIES_MAX)
    mark_prefix: bool = Field(default=False, description="freeze the prompt as the prefix")
    overflow: Overflow = Field(
        default="drop_oldest",
        description="where more waits than the queue holds: drop_oldest; coalesce merges what "
        "waits into fewer lines; block refuses a push (429), and needs a worker without keys",
    )

    def session_spec(self) -> SessionSpec:
        """The spec as the session service takes it."""
        queries = tuple(q.flash_query(f"flash.{place}.") for place, q in enumerate(self.flash))
        window = WindowSpec("exact", self.window_size) if self.window_size else WindowSpec("grow")
        return SessionSpec(
            type=self.type,
            prompt=self.prompt,
            context=self.context,
            flash=queries,
            window=window,
            overflow=self.overflow,
        )


class CreateTextBody(Body):
    """A new session (0.8): of texts, and of records of TEXT_SESSION_TYPE."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": "ticker-feed", "window": 1024}]}
    )

    id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,128}$")
    pre_decode: bool = Field(
        default=False,
        description="ask after every update what the model would say next by itself: "
        "`ready_token` and `ready_gap` of the session",
    )
    window: Count | None = Field(
        default=None,
        ge=1,
        description="tokens of data that the session keeps at most, the latest; without it "
        "all is kept, until the context is full",
    )

    def session_spec(self) -> SessionSpec:
        """The spec as the session service takes it. A token has one item at most, so a
        window of as many items as tokens is bounded by its tokens alone."""
        tokens = self.window or 0
        items = min(tokens, WINDOW_ITEMS_MAX)
        return SessionSpec(
            type=TEXT_SESSION_TYPE,
            text=TEXT_SESSION_CODEC,
            window=WindowSpec("exact", items) if tokens else WindowSpec("grow"),
            window_tokens=tokens,
            pre_decode=self.pre_decode,
            overflow="drop_oldest",
        )


class AppendBody(Body):
    """Text that becomes part of the context."""

    text: Text = Field(min_length=1, examples=["The market opens in ten minutes."])


class MarkPrefixBody(Body):
    """Nothing: an empty object."""


class PushBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Records and texts to push; they are the session service's to check."""

    data: str | list[Fields | str]


def pushed_data(data: str | list[Fields | str]) -> list[Fields | str]:
    """What is pushed as a list: one text may stand alone."""
    return [data] if isinstance(data, str) else data


_push_decoder = msgspec.json.Decoder(PushBody)


def read_push(body: bytes) -> list[Fields | str]:
    """What a push's body brings; raises DecodeFault, naming the path, where it is none."""
    try:
        return pushed_data(_push_decoder.decode(body).data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message, _, path = str(error).partition(" - at `")
        raise DecodeFault(
            f'expected {{"data": [records]}}: {message}', path.rstrip("`") or "$"
        ) from None


def push_openapi(example: dict[str, Any]) -> dict[str, Any]:
    """A push's request for OpenAPI: its body is read by `read_push`."""
    text = {"type": "string", "maxLength": PUSH_TEXT_CHARS_MAX}
    item = {"anyOf": [{"type": "object"}, text]}
    data = {"anyOf": [{"type": "array", "items": item, "maxItems": PUSH_RECORDS_MAX}, text]}
    return {
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
                        "properties": {"data": data},
                    },
                    "example": example,
                }
            },
        },
    }
