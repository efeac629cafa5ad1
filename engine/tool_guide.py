"""How the model is told of tools, and how calls and their results are written to it.

The form is that of Hermes, which Qwen, SmolLM2 and many others were trained with, and
which a model without such training can follow from the guide:

    <tool_call>
    {"name": "price", "arguments": {"symbol": "AAPL"}}
    </tool_call>

Templates have a way of their own to list tools (`tools`), and it is not used: it puts
them into the system turn, which a session decoded long ago, before its data. The guide
stands after the data instead, first in the chat, so that all chats with the same tools
begin with the same tokens and it is decoded once. The frame is ours and counts as the
template's; names, schemas, arguments and results come from outside and stay text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from flashfeed.models.chat import NamedTool, Tool, ToolCall, ToolChoice
from flashfeed.models.errors import RequestError

from .chat import Segment

CALL_OPEN: Final = "<tool_call>"
CALL_CLOSE: Final = "</tool_call>"
CALL_PREFIX: Final = f"{CALL_OPEN}\n"
"""What an answer that must be a call begins with; the prompt ends with it then."""

RESULT_OPEN: Final = "<tool_response>\n"
RESULT_CLOSE: Final = "\n</tool_response>"

_HEAD: Final = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
_FOOT: Final = (
    "\n</tools>\n\nFor each function call, return a json object with function name and "
    f"arguments within {CALL_OPEN}{CALL_CLOSE} XML tags:\n{CALL_PREFIX}"
    '{"name": <function-name>, "arguments": <args-json-object>}\n'
    f"{CALL_CLOSE}\n\n"
)


def offered(tools: Sequence[Tool], choice: ToolChoice) -> tuple[Tool, ...]:
    """The tools that the model is shown and may call: none where the choice is "none".

    Raises RequestError where the choice asks for a tool that is not there.
    """
    if choice == "none":
        return ()
    names = [tool.name for tool in tools]
    if choice == "required" and not names:
        raise RequestError("expected tools where tool_choice is 'required', got none")
    if isinstance(choice, NamedTool) and choice.name not in names:
        raise RequestError(f"expected tool_choice to name one of {names}, got {choice.name!r}")
    return tuple(tools)


def must_call(choice: ToolChoice) -> bool:
    """Whether the answer has to be a call."""
    return choice == "required" or isinstance(choice, NamedTool)


def guide(tools: Sequence[Tool]) -> tuple[Segment, ...]:
    """The text that lists the tools and says how to call them; nothing without tools."""
    if not tools:
        return ()
    listed = "\n".join(json.dumps(_signature(tool), ensure_ascii=False) for tool in tools)
    return Segment(_HEAD, True), Segment(listed, False), Segment(_FOOT, True)


def written_call(call: ToolCall) -> tuple[Segment, ...]:
    """A call as the model wrote it, or would have."""
    name = json.dumps(call.name, ensure_ascii=False)
    body = f'{{"name": {name}, "arguments": {call.arguments}}}'
    return Segment(CALL_PREFIX, True), Segment(body, False), Segment(f"\n{CALL_CLOSE}", True)


def call_schema(tools: Sequence[Tool], choice: ToolChoice) -> dict[str, Any]:
    """The JSON schema of one call, for an answer that begins with CALL_PREFIX.

    `choice` is "required" (any of the tools) or a named tool. What the tools' own schemas
    refer to in themselves (`#/$defs/...`) stands under the schema's `$defs`. Raises
    RequestError for a reference to nowhere.
    """
    definitions: dict[str, Any] = {}
    calls = []
    for number, tool in enumerate(offered(tools, choice)):
        if isinstance(choice, NamedTool) and tool.name != choice.name:
            continue
        arguments = {"type": "object", **tool.parameters}
        calls.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool.name},
                    "arguments": _References(tool, number, definitions).moved(arguments),
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    if not calls:
        raise RequestError(f"expected tools to call, got none with tool_choice {choice!r}")
    return {"oneOf": calls, "$defs": definitions}


def _signature(tool: Tool) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.name, "description": tool.description}
    function["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


class _References:
    """Moves what a tool's schema refers to into the definitions of the whole.

    Named by number: grammar compilers make rule names of definitions, and two tools may
    each have their own `#/$defs/Point`.
    """

    def __init__(self, tool: Tool, number: int, definitions: dict[str, Any]) -> None:
        self._tool: Final = tool
        self._number: Final = number
        self._definitions: Final = definitions
        self._names: Final[dict[str, str]] = {}

    def moved(self, schema: Any) -> Any:
        """The schema with its references pointing at the definitions."""
        if isinstance(schema, dict):
            return {
                key: self._move(value)
                if key == "$ref" and isinstance(value, str)
                else self.moved(value)
                for key, value in schema.items()
            }
        if isinstance(schema, list | tuple):
            return [self.moved(one) for one in schema]
        return schema

    def _move(self, reference: str) -> str:
        name = self._names.get(reference)
        if name is None:
            name = f"tool-{self._number}-part-{len(self._names)}"
            self._names[reference] = name
            self._definitions[name] = self.moved(self._find(reference))
        return f"#/$defs/{name}"

    def _find(self, reference: str) -> Any:
        found: Any = self._tool.parameters
        root, *keys = reference.split("/")
        for key in keys:
            found = found.get(_unescaped(key)) if isinstance(found, dict) else None
        if root != "#" or not isinstance(found, dict):
            raise RequestError(
                f"expected references inside the parameters of tool {self._tool.name!r}, "
                f"got {reference!r}"
            )
        return found


def _unescaped(key: str) -> str:
    return key.replace("~1", "/").replace("~0", "~")
