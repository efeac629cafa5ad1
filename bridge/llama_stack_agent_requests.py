"""What Llama Stack clients send about agents, their sessions and their turns."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from flashfeed.models.generation import GenerateOptions
from flashfeed.models.records import StreamType
from flashfeed.models.session import WINDOW_ITEMS_MAX

from .bounds import NAMES_MAX, Description, Name, Names
from .errors import Unsupported
from .llama_stack_requests import (
    Body,
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
from .llama_stack_words import Words, expect_none, tool_of_list, tool_of_parameters
from .openai_messages import chat_request

ID: Final = r"^[A-Za-z0-9_.:-]{1,128}$"
INFER_ITERS_DEFAULT: Final = 10
INFER_ITERS_MAX: Final = 100
NO_TOOLGROUPS: Final = "flashfeed runs no tools; give the ones that you run as client_tools"
NO_SHIELDS: Final = "flashfeed has no shields; leave this out"

_AGENT_ID: Final = "1f0c3a52-6a4e-4d0e-9c1b-0d4e7a5b2c11"
_SESSION_ID: Final = "9d13796cf5904ebbb47e9695b1b8b3bb"
_CONFIG: Final = {
    "model": "packaged",
    "instructions": "You watch a server room. Answer in one sentence.",
    "sampling_params": {"strategy": {"type": "greedy"}, "max_tokens": 64},
}
_QUESTION: Final = {"role": "user", "content": "Is the room too hot?"}


class ToolDef(Part):
    """A tool that the client runs."""

    name: Name
    description: Description | None = None
    parameters: list[dict[str, Any]] | None = Field(default=None, max_length=100)

    def words(self) -> Words:
        """The tool in OpenAI's words."""
        return tool_of_list(self.name, self.description or "", self.parameters or [])


class FunctionTool(Part):
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


class ToolGroup(Part):
    """A group of tools that a server runs."""

    name: Name


class AgentConfig(Part):
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
        return self.max_infer_iters or INFER_ITERS_DEFAULT

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


class AgentBody(Body):
    """A new agent."""

    model_config = shown({"agent_config": _CONFIG})

    agent_config: AgentConfig
    agent_id: str | None = Field(
        default=None, pattern=ID, description="an id of one's own; goes beyond the client's fields"
    )


class AgentIdBody(Body):
    """Which agent."""

    model_config = shown({"agent_id": _AGENT_ID})

    agent_id: Name


class SessionBody(Body):
    """A new session of an agent. All but the name goes beyond the client's fields: the
    records that the session takes, how many of them it keeps, and an id of one's own,
    by which a feed reaches it."""

    model_config = shown({"session_name": "room 4", "type": "iot"})

    session_name: str = Field(max_length=200)
    type: StreamType = "event"
    window_size: int | None = Field(default=None, ge=1, le=WINDOW_ITEMS_MAX)
    session_id: str | None = Field(default=None, pattern=ID)


class OldSessionBody(SessionBody):
    """A new session, in 0.0.35's words."""

    model_config = shown({"agent_id": _AGENT_ID, "session_name": "room 4"})

    agent_id: Name


class TurnIdsBody(Body):
    """Which turns of a session to show; all where none is named."""

    model_config = shown({"turn_ids": [f"{_SESSION_ID}.1"]})

    turn_ids: Annotated[list[Name], Field(max_length=1000)] | None = None


class SessionIdBody(Body):
    """Which session of which agent."""

    model_config = shown({"agent_id": _AGENT_ID, "session_id": _SESSION_ID})

    agent_id: Name
    session_id: Name


class Document(Part):
    """A text that a turn may look at."""

    content: Any
    mime_type: Name


class TurnBody(Body):
    """What an agent is asked."""

    model_config = shown({"messages": [_QUESTION], "stream": True})

    messages: list[dict[str, Any]] = Field(min_length=1, max_length=512)
    stream: bool | None = None
    documents: list[Document] | None = Field(default=None, max_length=32)
    attachments: list[Document] | None = Field(default=None, max_length=32)
    tool_config: ToolConfig | None = None
    toolgroups: list[Name | ToolGroup] | None = Field(default=None, max_length=NAMES_MAX)


class OldTurnBody(TurnBody):
    """What an agent is asked, in 0.0.35's words."""

    model_config = shown(
        {"agent_id": _AGENT_ID, "session_id": _SESSION_ID, "messages": [_QUESTION]}
    )

    agent_id: Name
    session_id: Name


class ResumeBody(Body):
    """What the client's tools gave."""

    model_config = shown(
        {"tool_responses": [{"call_id": "call_1", "tool_name": "get_limit", "content": "30"}]}
    )

    tool_responses: list[dict[str, Any]] = Field(min_length=1, max_length=32)
    stream: bool | None = None
