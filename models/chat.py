"""A conversation with tools, as a chat request carries it (OpenAI's terms, flat).

The wire form nests a call's and a tool's fields under `function`; whoever reads it (a
dialect of the bridge) takes them out and joins the text parts of a content.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

MESSAGES_MAX = 512
CONTENT_CHARS_MAX = 400_000
CALLS_MAX = 32
TOOLS_MAX = 64
PARAMETERS_BYTES_MAX = 50_000
PARAMETERS_DEPTH_MAX = 32

Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]
ToolName = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
Content = Annotated[str, msgspec.Meta(max_length=CONTENT_CHARS_MAX)]
CallId = Annotated[str, msgspec.Meta(max_length=128)]


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call of a tool. `arguments` is the text of a JSON object, kept as it was written."""

    id: CallId
    name: ToolName
    arguments: Content

    def __post_init__(self) -> None:
        try:
            value = msgspec.json.decode(self.arguments)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise ValueError(f"expected arguments that are JSON, got: {error}") from None
        if not isinstance(value, dict):
            raise ValueError(f"expected arguments that are a JSON object, got {self.arguments!r}")


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One message. `tool_calls` are an assistant's; `tool_call_id` says which of them a
    tool message answers. `developer` means the same as `system`. `name` is not shown to
    the model."""

    role: Role
    content: Content = ""
    name: Annotated[str, msgspec.Meta(max_length=64)] = ""
    tool_calls: Annotated[tuple[ToolCall, ...], msgspec.Meta(max_length=CALLS_MAX)] = ()
    tool_call_id: CallId = ""

    def __post_init__(self) -> None:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"expected tool_calls in assistant messages only, got {self.role!r}")
        if bool(self.tool_call_id) != (self.role == "tool"):
            raise ValueError("expected a tool_call_id in tool messages, and in no others")


class Tool(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A function that the model may call. `parameters` is a JSON schema of its arguments,
    empty for none."""

    name: ToolName
    description: Annotated[str, msgspec.Meta(max_length=10_000)] = ""
    parameters: dict[str, object] = {}

    def __post_init__(self) -> None:
        if not _is_flat(self.parameters, PARAMETERS_DEPTH_MAX):
            raise ValueError(
                f"expected parameters nested at most {PARAMETERS_DEPTH_MAX} deep "
                f"for tool {self.name!r}"
            )
        size = len(msgspec.json.encode(self.parameters))
        if size > PARAMETERS_BYTES_MAX:
            raise ValueError(
                f"expected parameters of at most {PARAMETERS_BYTES_MAX} bytes for tool "
                f"{self.name!r}, got {size}"
            )
        kind = self.parameters.get("type", "object")
        if kind != "object":
            raise ValueError(
                f"expected parameters of type object for tool {self.name!r}, got {kind!r}"
            )


def _is_flat(value: object, depth: int) -> bool:
    """Whether nothing in the value is nested deeper than that."""
    if not isinstance(value, dict | list | tuple):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_flat(one, depth - 1) for one in inner)


class NamedTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tool choice that asks for one tool by its name."""

    name: ToolName


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedTool
"""auto: the model decides. none: the tools are not shown. required: some tool is called."""


class ChatRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A conversation to go on with. Where the last message is the assistant's, its text
    is continued."""

    messages: Annotated[
        tuple[ChatMessage, ...], msgspec.Meta(min_length=1, max_length=MESSAGES_MAX)
    ]
    tools: Annotated[tuple[Tool, ...], msgspec.Meta(max_length=TOOLS_MAX)] = ()
    tool_choice: ToolChoice = "auto"

    def __post_init__(self) -> None:
        names = [tool.name for tool in self.tools]
        if len(set(names)) != len(names):
            raise ValueError(f"expected tools with different names, got {names}")
        if self.tool_choice == "required" and not names:
            raise ValueError("expected tools where tool_choice is 'required', got none")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.name not in names:
            raise ValueError(
                f"expected tool_choice to name one of {names}, got {self.tool_choice.name!r}"
            )
