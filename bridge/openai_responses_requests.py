"""What a response is asked with, as a model that checks it and describes it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from flashfeed.models.chat import CONTENT_CHARS_MAX, MESSAGES_MAX, TOOLS_MAX
from flashfeed.models.generation import GenerateOptions

from .bounds import Count, Name
from .openai_chat_requests import ANY_OBJECT
from .openai_fields import (
    Body,
    MaxTokens,
    Metadata,
    ModelName,
    SamplingBody,
    SessionId,
    TopLogprobs,
)

MAX_TOKENS_DEFAULT: Final = 1024
LOGPROBS_INCLUDED: Final = "message.output_text.logprobs"

DocumentId = Annotated[str, Field(max_length=256)]
Included = Literal["message.output_text.logprobs", "reasoning.encrypted_content"]
InputItems = Annotated[list[dict[str, Any]], Field(max_length=MESSAGES_MAX)]


class TextFormat(Body):
    """What the text must look like."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = Field(default="", max_length=64)
    description: str = Field(default="", max_length=10_000)
    schema_: dict[str, Any] = Field(default=ANY_OBJECT, alias="schema")
    strict: bool = True


class TextOptions(Body):
    """How the answer's text is written."""

    format: TextFormat = TextFormat()
    verbosity: Literal["medium"] = "medium"


class Reasoning(Body):
    """No model thinks aloud here: turning it off is granted, turning it on refused."""

    effort: Literal["none", "minimal", "low"] = "none"


class ConversationReference(Body):
    """A conversation by its id."""

    id: DocumentId


class ResponseStreamOptions(Body):
    """Events are never padded here, so that it changes nothing."""

    include_obfuscation: bool = False


class ResponseBody(SamplingBody):
    """Items to answer. With `previous_response_id` or `conversation` they go on from what
    is kept there; a previous response's session is asked again unless another is named."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"input": "Is the trend up?", "max_output_tokens": 16}]}
    )

    input: Annotated[str, Field(max_length=CONTENT_CHARS_MAX)] | InputItems = Field(default=[])
    instructions: str = Field(default="", max_length=CONTENT_CHARS_MAX)
    model: ModelName = ""
    session_id: SessionId = ""
    previous_response_id: DocumentId = ""
    conversation: DocumentId | ConversationReference = ""
    max_output_tokens: MaxTokens | None = None
    tools: list[dict[str, Any]] = Field(default=[], max_length=TOOLS_MAX)
    tool_choice: Name | dict[str, Any] = "auto"
    parallel_tool_calls: bool = Field(default=True, description="false: the first call alone")
    max_tool_calls: Count | None = Field(default=None, ge=1, description="of tools built in: none")
    text: TextOptions = TextOptions()
    include: list[Included] = Field(default=[], max_length=8)
    top_logprobs: TopLogprobs = 0
    store: bool = Field(default=True, description="keep it, to be read and gone on from")
    stream: bool = False
    stream_options: ResponseStreamOptions = ResponseStreamOptions()
    metadata: Metadata = Field(default={})
    truncation: Literal["disabled"] = "disabled"
    background: Literal[False] = False
    reasoning: Reasoning = Reasoning()
    user: Annotated[str, Field(max_length=512)] = ""
    safety_identifier: Annotated[str, Field(max_length=512)] = ""
    prompt_cache_key: Annotated[str, Field(max_length=512)] = ""
    prompt_cache_retention: Literal["in-memory", "in_memory", "24h"] = "in_memory"
    service_tier: Literal["auto", "default"] = "default"

    @property
    def conversation_id(self) -> str:
        """The conversation's id, "" without one."""
        given = self.conversation
        return given if isinstance(given, str) else given.id

    @property
    def logprobs(self) -> bool:
        """Whether the answer's tokens are shown with their log-probabilities."""
        return bool(self.top_logprobs) or LOGPROBS_INCLUDED in self.include

    def options(self) -> GenerateOptions:
        """How to sample, and what the answer must look like."""
        form = self.text.format
        schema = {"text": None, "json_object": ANY_OBJECT, "json_schema": form.schema_}[form.type]
        max_tokens = self.max_output_tokens or MAX_TOKENS_DEFAULT
        return self.sampling(max_tokens, self.top_logprobs, schema)
