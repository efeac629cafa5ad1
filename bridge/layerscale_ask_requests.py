"""What LayerScale clients ask of a session, as models that check it and describe it.

Of clients 0.3 and 0.8, which ask on the same paths: a field of either is taken.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, JsonValue

from flashfeed.models.chat import ChatRequest
from flashfeed.models.generation import MAX_TOKENS_MAX, TEMPERATURE_MAX, GenerateOptions
from flashfeed.models.session import CHOICES_MAX

from .bounds import Messages, Name, Object, Seed, StopText, StopTexts, Text, Tools
from .errors import InvalidField, Unsupported
from .layerscale_requests import Body
from .openai_messages import chat_request

TOKENS_DEFAULT = 256
GAP_DEFAULT = 2.0
GAP_MAX = 1000.0
Choice = Annotated[str, Field(max_length=2000)]
THINKING_EFFORTS = ("medium", "high", "xhigh", "max")

TOOL_EXAMPLE: Final[dict[str, JsonValue]] = {
    "type": "function",
    "function": {
        "name": "get_price",
        "description": "The price of a symbol now",
        "parameters": {"type": "object", "properties": {"symbol": {"type": "string"}}},
    },
}


class _Turn(Body):
    """What shapes the prompt of a chat's turn."""

    messages: Messages | None = Field(
        default=None, description="a conversation in the shape of chat completions"
    )
    tools: Tools | None = Field(default=None, description="that it may call")
    tool_choice: Name | Object | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        Field(default=None, description="models answer without thinking here: low at most")
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        default=None,
        description="enable_thinking false, add_generation_prompt true and "
        "tools_in_user_message true are what is done anyhow",
    )

    def expect_no_thinking(self) -> None:
        """Raises Unsupported, naming the field, for what a template is never told here."""
        if self.reasoning_effort in THINKING_EFFORTS:
            raise Unsupported(
                "reasoning_effort: models answer without thinking here; expected none, "
                f"minimal or low, got {self.reasoning_effort}",
                "reasoning_effort",
            )
        done = {
            "enable_thinking": False,
            "add_generation_prompt": True,
            "tools_in_user_message": True,
        }
        for name, value in (self.chat_template_kwargs or {}).items():
            param = f"chat_template_kwargs.{name}"
            if name not in done:
                raise Unsupported(f"{param}: a template is given no such value here", param)
            if value is not done[name]:
                expected = str(done[name]).lower()
                raise Unsupported(f"{param}: only {expected} is done here, got {value!r}", param)


class WarmBody(_Turn):
    """A conversation to decode ahead of its next turn, of which it is the request: the
    sampling options that a turn may have do not belong here. `tool_choice` is not read."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"messages": [{"role": "user", "content": "What moved today?"}]}]
        }
    )

    def asked(self) -> ChatRequest:
        """The conversation. Raises InvalidField or Unsupported."""
        self.expect_no_thinking()
        if not self.messages:
            raise InvalidField("messages: expected one at least", "messages")
        return chat_request(self.messages, self.tools)


class GenerateBody(_Turn):
    """A generation over the session's data. It leaves no trace in the session, unless
    `clear_after` is 0: then prompt and answer become an item of its window."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "What's the trend over the last hour?", "max_tokens": 200},
                {"prompt": "Up or down?", "fast_answer": ["up", "down"], "gap_threshold": 0.5},
                {
                    "messages": [{"role": "user", "content": "What does AAPL cost?"}],
                    "tools": [TOOL_EXAMPLE],
                },
            ]
        }
    )

    prompt: Text | None = Field(default=None, description="text, or `messages` instead")
    max_tokens: int | None = Field(
        default=None, ge=1, le=MAX_TOKENS_MAX, description=f"{TOKENS_DEFAULT} by default"
    )
    max_completion_tokens: int | None = Field(
        default=None, ge=1, le=MAX_TOKENS_MAX, description="where max_tokens is not given"
    )
    fast_answer: bool | Annotated[list[Choice], Field(max_length=CHOICES_MAX)] | None = Field(
        default=None,
        description="true: a fresh answer of the standing question of that text, if there is "
        "one; a list: such an answer, or else the likeliest of these",
    )
    gap_threshold: float = Field(
        default=GAP_DEFAULT,
        ge=0,
        le=GAP_MAX,
        description="how far ahead of the second the likeliest of `fast_answer` must be, as a "
        "difference of log-probabilities; where it is not, the model answers freely",
    )
    clear_after: bool | Annotated[int, Field(ge=0, le=1)] | None = Field(
        default=None, description="0: prompt and answer stay in the session's context"
    )
    stop: StopText | StopTexts | None = None
    stream: bool = Field(default=False, description="as server-sent events")
    temperature: float = Field(default=0.0, ge=0, le=TEMPERATURE_MAX)
    top_p: float = Field(default=1.0, ge=0, le=1)
    seed: Seed | None = None
    ignore_eos: bool = Field(default=False, description="go on where the model would end")

    @property
    def text(self) -> str:
        """The prompt, "" without one."""
        return self.prompt or ""

    def asked(self) -> str | ChatRequest:
        """The prompt, or the conversation. Raises InvalidField or Unsupported."""
        self.expect_no_thinking()
        if self.messages is not None and self.prompt:
            raise InvalidField("prompt: expected a prompt or messages, got both", "prompt")
        if self.messages is not None and self.fast_answer:
            message = "fast_answer: expected a prompt beside it, got messages"
            raise InvalidField(message, "fast_answer")
        if self.messages is not None:
            return chat_request(self.messages, self.tools, self.tool_choice)
        if self.tools:
            question = {"role": "user", "content": self.text}
            return chat_request([question], self.tools, self.tool_choice)
        return self.text

    def options(self) -> GenerateOptions:
        """How to sample."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return GenerateOptions(
            max_tokens=self.max_tokens or self.max_completion_tokens or TOKENS_DEFAULT,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=tuple(text for text in stop if text),
            ignore_eos=self.ignore_eos,
            clear_after=self.clear_after is None or bool(self.clear_after),
        )
