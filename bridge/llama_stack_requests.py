"""What Llama Stack clients send, as models that check it and describe it.

One model reads all versions of the client, whose fields differ by name and never by
meaning. As with Llama Stack itself a field that is not here is passed over; what is
known and cannot be done is refused by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from flashfeed.models.chat import ChatRequest
from flashfeed.models.errors import RequestError
from flashfeed.models.generation import REPETITION_PENALTY_MAX, GenerateOptions
from flashfeed.models.records import StreamType
from flashfeed.models.session import WINDOW_ITEMS_MAX

from .bounds import (
    NAMES_MAX,
    Count,
    Description,
    Grammar,
    Messages,
    ModelName,
    Name,
    Names,
    Seed,
    StopTexts,
)
from .errors import InvalidField, Unsupported
from .llama_stack_words import Words, expect_none, openai_messages, tool_of_list, tool_of_parameters
from .openai_messages import chat_request

ID: Final = r"^[A-Za-z0-9_.:-]{1,128}$"
BATCH_MAX: Final = 32
INFER_ITERS_MAX: Final = 100
TOP_P_DEFAULT: Final = 0.95
MAX_TOKENS_DEFAULT: Final = 1024

ToolChoice: TypeAlias = Name


class Body(BaseModel):
    """What every request has: strict types; what is not known is passed over."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Strategy(Body):
    """How the next token is drawn."""

    type: Literal["greedy", "top_p", "top_k"]
    temperature: float | None = Field(default=None, ge=0, le=5)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: Count | None = Field(default=None, ge=0)


class SamplingParams(Body):
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


class Logprobs(Body):
    """How many of the likeliest tokens to report for each place."""

    top_k: int | None = Field(default=None, ge=0, le=20)


class ResponseFormat(Body):
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


class ToolConfig(Body):
    """Whether tools are called. How a call is written is the model's own affair."""

    tool_choice: ToolChoice | None = None
    tool_prompt_format: Name | None = None
    system_message_behavior: Name | None = None


class ToolDef(Body):
    """A tool that the client runs."""

    name: Name
    description: Description | None = None
    parameters: list[dict[str, Any]] | None = Field(default=None, max_length=100)

    def words(self) -> Words:
        """The tool in OpenAI's words."""
        return tool_of_list(self.name, self.description or "", self.parameters or [])


class FunctionTool(Body):
    """A tool in 0.0.35's words, where a tool's kind may also be one that a server runs."""

    type: Name
    function_name: Name | None = None
    description: Description | None = None
    parameters: dict[str, dict[str, Any]] | None = None

    def words(self, where: str) -> Words:
        """The tool in OpenAI's words; raises Unsupported where a server would run it."""
        if self.type != "function_call":
            message = f"{where}.type: flashfeed runs no tools; expected function_call, which "
            raise Unsupported(f"{message}the client runs, got {self.type!r}", where)
        return tool_of_parameters(self.function_name, self.description or "", self.parameters or {})


class InferenceTool(Body):
    """A tool of one inference."""

    tool_name: Name
    description: Description | None = None
    parameters: dict[str, dict[str, Any]] | None = None

    def words(self) -> Words:
        """The tool in OpenAI's words."""
        return tool_of_parameters(self.tool_name, self.description or "", self.parameters or {})


class ToolGroup(Body):
    """A group of tools that a server runs."""

    name: Name
    args: dict[str, Any] = {}


class AgentConfig(Body):
    """What an agent is."""

    model: str = Field(max_length=200)
    instructions: str = Field(max_length=20_000)
    name: str | None = Field(default=None, max_length=200)
    sampling_params: SamplingParams | None = None
    client_tools: list[ToolDef] | None = Field(default=None, max_length=64)
    tools: list[FunctionTool] | None = Field(default=None, max_length=64)
    toolgroups: list[Name | ToolGroup] | None = Field(default=None, max_length=NAMES_MAX)
    tool_choice: ToolChoice | None = None
    tool_config: ToolConfig | None = None
    tool_prompt_format: Name | None = None
    response_format: ResponseFormat | None = None
    max_infer_iters: int | None = Field(default=None, ge=0, le=INFER_ITERS_MAX)
    input_shields: Names | None = None
    output_shields: Names | None = None
    enable_session_persistence: bool | None = Field(
        default=None, description="turns are always kept"
    )

    @property
    def infer_iters_max(self) -> int:
        """How many answers of the model a turn has at most, those after tools included."""
        return self.max_infer_iters or 10

    @property
    def tool_choices(self) -> tuple[ToolChoice | None, ...]:
        """What it says of calling tools; the first that is set holds."""
        return (choice_of(self.tool_config), self.tool_choice)

    def tool_words(self) -> list[Words]:
        """Its tools in OpenAI's words."""
        tools = [tool.words() for tool in self.client_tools or ()]
        return tools + [
            tool.words(f"agent_config.tools.{place}") for place, tool in enumerate(self.tools or ())
        ]

    def options(self) -> GenerateOptions:
        """How it answers. Raises InvalidField or Unsupported."""
        return generate_options(
            self.sampling_params, self.response_format, None, where="agent_config."
        )

    def check(self) -> None:
        """Raises InvalidField or Unsupported for what no turn of this agent could do."""
        where = "agent_config."
        expect_none(self.toolgroups, f"{where}toolgroups", NO_TOOLGROUPS)
        expect_none(self.input_shields, f"{where}input_shields", NO_SHIELDS)
        expect_none(self.output_shields, f"{where}output_shields", NO_SHIELDS)
        self.options()
        tools = self.tool_words()
        example = [{"role": "user", "content": ""}]
        chat_request(example, tools, tool_choice(tools, *self.tool_choices))


NO_TOOLGROUPS: Final = "flashfeed runs no tools; give the ones that you run as client_tools"
NO_SHIELDS: Final = "flashfeed has no shields; leave this out"


class AgentBody(Body):
    """A new agent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "agent_config": {
                        "model": "SmolLM2-135M-Instruct",
                        "instructions": "You watch a server room. Answer in one sentence.",
                        "sampling_params": {"strategy": {"type": "greedy"}, "max_tokens": 64},
                    }
                }
            ]
        }
    )

    agent_config: AgentConfig
    agent_id: str | None = Field(
        default=None, pattern=ID, description="an id of one's own; goes beyond the client's fields"
    )


class AgentIdBody(Body):
    """Which agent."""

    agent_id: Name


class SessionBody(Body):
    """A new session of an agent. All but the name goes beyond the client's fields: the
    records that the session takes, how many of them it keeps, and an id of one's own,
    by which a feed reaches it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"session_name": "room 4", "type": "iot"}]}
    )

    session_name: str = Field(max_length=200)
    type: StreamType = "event"
    window_size: int | None = Field(default=None, ge=1, le=WINDOW_ITEMS_MAX)
    session_id: str | None = Field(default=None, pattern=ID)


class OldSessionBody(SessionBody):
    """A new session, in 0.0.35's words."""

    agent_id: Name


class TurnIdsBody(Body):
    """Which turns of a session to show; all where none is named."""

    turn_ids: Annotated[list[Name], Field(max_length=1000)] | None = None


class SessionIdBody(Body):
    """Which session of which agent."""

    agent_id: Name
    session_id: Name


class Document(Body):
    """A text that a turn may look at."""

    content: Any
    mime_type: Name


class TurnBody(Body):
    """What an agent is asked."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"messages": [{"role": "user", "content": "Is the room too hot?"}], "stream": True}
            ]
        }
    )

    messages: list[dict[str, Any]] = Field(min_length=1, max_length=512)
    stream: bool | None = None
    documents: list[Document] | None = Field(default=None, max_length=32)
    attachments: list[Document] | None = Field(default=None, max_length=32)
    tool_config: ToolConfig | None = None
    toolgroups: list[Name | ToolGroup] | None = Field(default=None, max_length=NAMES_MAX)


class OldTurnBody(TurnBody):
    """What an agent is asked, in 0.0.35's words."""

    agent_id: Name
    session_id: Name


class ResumeBody(Body):
    """What the client's tools gave."""

    tool_responses: list[dict[str, Any]] = Field(min_length=1, max_length=32)
    stream: bool | None = None


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

    messages: list[dict[str, Any]] = Field(min_length=1, max_length=512)


class ChatBatchBody(ToolsBody):
    """Several conversations."""

    messages_batch: list[Messages] = Field(min_length=1, max_length=BATCH_MAX)


class CompletionBody(InferenceBody):
    """A text to go on with."""

    content: Any


class CompletionBatchBody(InferenceBody):
    """Several texts."""

    content_batch: list[Any] = Field(min_length=1, max_length=BATCH_MAX)


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
