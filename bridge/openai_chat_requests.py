"""What a chat completion is asked with, as a model that checks it and describes it.

`session_id` asks a live session. The reasoning fields are LayerScale 0.8's: no model
thinks aloud here, so that turning it off is granted and turning it on refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from flashfeed.models.chat import MESSAGES_MAX, TOOLS_MAX, ChatRequest
from flashfeed.models.generation import GenerateOptions

from .bounds import Name
from .errors import InvalidField
from .openai_fields import (
    CHOICES_MAX,
    Body,
    MaxTokens,
    Metadata,
    ModelName,
    SamplingBody,
    SessionId,
    StreamOptions,
    TopLogprobs,
)
from .openai_messages import chat_request

MAX_TOKENS_DEFAULT: Final = 1024
ANY_OBJECT: Final[dict[str, Any]] = {"type": "object"}


class SchemaFormat(Body):
    """A schema that the answer follows; `strict` or not, it always does."""

    name: str = Field(default="", max_length=64)
    description: str = Field(default="", max_length=10_000)
    schema_: dict[str, Any] = Field(default=ANY_OBJECT, alias="schema")
    strict: bool = True


class ResponseFormat(Body):
    """What the answer must look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None

    def schema_of(self, where: str = "response_format") -> dict[str, Any] | None:
        """The JSON schema of the answer, None for free text."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return ANY_OBJECT
        if self.json_schema is None:
            param = f"{where}.json_schema"
            raise InvalidField(f"{param}: expected the schema of a json_schema format", param)
        return self.json_schema.schema_


class TemplateArguments(Body):
    """Arguments of the chat template; each may only be what it is here anyway."""

    enable_thinking: Literal[False] = False
    add_generation_prompt: Literal[True] = True
    tools_in_user_message: Literal[True] = True


class ChatBody(SamplingBody):
    """A conversation to go on with."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "messages": [{"role": "user", "content": "Is the trend up or down?"}],
                    "session_id": "my-session",
                    "max_tokens": 16,
                }
            ]
        }
    )

    messages: list[dict[str, Any]] = Field(min_length=1, max_length=MESSAGES_MAX)
    model: ModelName = ""
    session_id: SessionId = ""
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    n: int = Field(default=1, ge=1, le=CHOICES_MAX)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    tools: list[dict[str, Any]] = Field(default=[], max_length=TOOLS_MAX)
    tool_choice: Name | dict[str, Any] = "auto"
    parallel_tool_calls: bool = Field(default=True, description="false: the first call alone")
    logprobs: bool = False
    top_logprobs: TopLogprobs = 0
    response_format: ResponseFormat = ResponseFormat(type="text")
    store: bool = Field(default=False, description="keep it, to be read and listed later")
    metadata: Metadata = Field(default={})
    user: Annotated[str, Field(max_length=512)] = ""
    safety_identifier: Annotated[str, Field(max_length=512)] = ""
    prompt_cache_key: Annotated[str, Field(max_length=512)] = ""
    prompt_cache_retention: Literal["in-memory", "in_memory", "24h"] = "in_memory"
    service_tier: Literal["auto", "default"] = "default"
    modalities: list[Literal["text"]] = Field(default=["text"], max_length=1)
    verbosity: Literal["medium"] = "medium"
    reasoning_effort: Literal["none", "minimal", "low"] = "none"
    include_reasoning: bool = True
    separate_reasoning: bool = True
    stream_reasoning: bool = True
    chat_template_kwargs: TemplateArguments = TemplateArguments()

    def asked(self) -> ChatRequest:
        """The conversation. Raises InvalidField or Unsupported, naming the field."""
        return chat_request(self.messages, self.tools, self.tool_choice)

    def options(self) -> GenerateOptions:
        """How to sample, and what the answer must look like."""
        if self.top_logprobs and not self.logprobs:
            raise InvalidField("top_logprobs: expected logprobs to be true", "top_logprobs")
        max_tokens = self.max_completion_tokens or self.max_tokens or MAX_TOKENS_DEFAULT
        return self.sampling(max_tokens, self.top_logprobs, self.response_format.schema_of())
