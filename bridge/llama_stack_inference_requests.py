"""What Llama Stack clients send for inference."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from flashfeed.models.chat import ChatRequest
from flashfeed.models.generation import GenerateOptions

from .bounds import Count, Description, Messages, ModelName, Name
from .errors import InvalidField, Unsupported
from .llama_stack_requests import (
    Body,
    Logprobs,
    Part,
    ResponseFormat,
    SamplingParams,
    ToolChoice,
    ToolConfig,
    choice_of,
    generate_options,
    shown,
    tool_choice,
)
from .llama_stack_words import Words, openai_messages, plain_text, tool_of_parameters
from .openai_messages import chat_request

BATCH_MAX: Final = 32
EMBEDDINGS_MAX: Final = 2048

_MODEL: Final[Words] = {
    "model_id": "packaged",
    "sampling_params": {"strategy": {"type": "greedy"}, "max_tokens": 16},
}
_MESSAGES: Final = [{"role": "user", "content": "What is the capital of France?"}]
_TEXT: Final = "The capital of France is"


class InferenceTool(Part):
    """A tool of one inference."""

    tool_name: Name
    description: Description | None = None
    parameters: dict[str, dict[str, Any]] | None = None

    def words(self) -> Words:
        """The tool in OpenAI's words."""
        return tool_of_parameters(self.tool_name, self.description or "", self.parameters or {})


class InferenceBody(Body):
    """What an inference has, with whatever it is asked. `model` is 0.0.35's name for
    `model_id`."""

    model_id: ModelName = ""
    model: ModelName = ""
    sampling_params: SamplingParams | None = None
    response_format: ResponseFormat | None = None
    logprobs: Logprobs | None = None
    stream: bool | None = None

    @property
    def model_named(self) -> str:
        """The model that is asked for."""
        if name := self.model_id or self.model:
            return name
        raise InvalidField("model_id: expected the name of a model", "model_id")

    def options(self) -> GenerateOptions:
        """How it is answered."""
        return generate_options(self.sampling_params, self.response_format, self.logprobs)


class ToolsBody(InferenceBody):
    """The tools of an inference."""

    tools: list[InferenceTool] | None = Field(default=None, max_length=64)
    tool_choice: ToolChoice | None = None
    tool_config: ToolConfig | None = None
    tool_prompt_format: Name | None = None

    def request(self, messages: list[dict[str, Any]], where: str = "messages") -> ChatRequest:
        """The conversation as the service takes it."""
        tools = [tool.words() for tool in self.tools or ()]
        choice = tool_choice(tools, choice_of(self.tool_config), self.tool_choice)
        return chat_request(openai_messages(messages, where), tools, choice)


class ChatBody(ToolsBody):
    """A conversation to go on with."""

    model_config = shown({**_MODEL, "messages": _MESSAGES})

    messages: list[dict[str, Any]] = Field(min_length=1, max_length=512)


class ChatBatchBody(ToolsBody):
    """Several conversations."""

    model_config = shown({**_MODEL, "messages_batch": [_MESSAGES]})

    messages_batch: list[Messages] = Field(min_length=1, max_length=BATCH_MAX)


class CompletionBody(InferenceBody):
    """A text to go on with."""

    model_config = shown({**_MODEL, "content": _TEXT})

    content: Any


class CompletionBatchBody(InferenceBody):
    """Several texts."""

    model_config = shown({**_MODEL, "content_batch": [_TEXT]})

    content_batch: list[Any] = Field(min_length=1, max_length=BATCH_MAX)


class EmbeddingsBody(Body):
    """Texts to embed. `task_type` is for models that tell questions from answers, which
    the ones here do not. `model` is 0.0.35's name for `model_id`."""

    model_config = shown({"model_id": "my-bert", "contents": ["The trend is up."]})

    model_id: ModelName = ""
    model: ModelName = ""
    contents: list[Any] = Field(min_length=1, max_length=EMBEDDINGS_MAX)
    output_dimension: Count | None = Field(default=None, ge=1)
    task_type: Literal["query", "document"] | None = None
    text_truncation: Literal["none", "start", "end"] | None = None

    def texts(self) -> list[str]:
        """The texts. Raises InvalidField or Unsupported."""
        if self.text_truncation not in (None, "none"):
            message = "text_truncation: texts are taken whole, or refused where they are too long"
            raise Unsupported(message, "text_truncation")
        return [plain_text(one, f"contents.{place}") for place, one in enumerate(self.contents)]

    def check_length(self, length: int) -> None:
        """Raises Unsupported where vectors of another length were asked for."""
        if self.output_dimension not in (None, length):
            message = f"output_dimension: this model gives {length}, and is not cut short"
            raise Unsupported(message, "output_dimension")
