"""What a completion (OpenAI's older way: a text to go on with) is asked with."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from flashfeed.models.chat import CONTENT_CHARS_MAX
from flashfeed.models.generation import Continuation, GenerateOptions

from .bounds import Text
from .errors import InvalidField, Unsupported
from .openai_fields import (
    CHOICES_MAX,
    MaxTokens,
    ModelName,
    SamplingBody,
    SessionId,
    StreamOptions,
    TopLogprobs,
)

PROMPTS_MAX: Final = 64
MAX_TOKENS_DEFAULT: Final = 16


class CompletionBody(SamplingBody):
    """One text or several to go on with. With `session_id` each is a question that the
    session answers over its data."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "The capital of France is", "max_tokens": 4}]}
    )

    prompt: Text | Annotated[list[Any], Field(max_length=PROMPTS_MAX)] = Field(
        description="a text, or a list of texts"
    )
    model: ModelName = ""
    session_id: SessionId = ""
    max_tokens: MaxTokens = MAX_TOKENS_DEFAULT
    n: int = Field(default=1, ge=1, le=CHOICES_MAX)
    best_of: int = Field(default=1, ge=1, le=CHOICES_MAX, description="not more than n")
    echo: bool = Field(default=False, description="the answer begins with its prompt")
    logprobs: TopLogprobs | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: Annotated[str, Field(max_length=512)] = ""

    def prompts(self) -> list[Continuation]:
        """The texts. Raises InvalidField, or Unsupported for what is only OpenAI's."""
        if self.best_of > self.n:
            message = "best_of: choosing among more answers than n is not supported"
            raise Unsupported(message, "best_of")
        if self.echo and self.logprobs is not None:
            message = "echo: the log-probabilities of a prompt are not supported; leave one out"
            raise Unsupported(message, "echo")
        given = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        if not 1 <= len(given) <= PROMPTS_MAX:
            message = f"prompt: expected 1 to {PROMPTS_MAX} texts, got {len(given)}"
            raise InvalidField(message, "prompt")
        for place, text in enumerate(given):
            param = "prompt" if isinstance(self.prompt, str) else f"prompt.{place}"
            if not isinstance(text, str):
                raise Unsupported(f"{param}: expected a text; tokens are not supported", param)
            if not 1 <= len(text) <= CONTENT_CHARS_MAX:
                message = f"{param}: expected 1 to {CONTENT_CHARS_MAX} characters, got {len(text)}"
                raise InvalidField(message, param)
        return [Continuation(text) for text in given]

    def options(self) -> GenerateOptions:
        """How to sample."""
        return self.sampling(self.max_tokens, self.logprobs or 0)
