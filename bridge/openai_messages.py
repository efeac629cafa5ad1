"""A conversation in OpenAI's words as the service takes it. Pure.

Several dialects carry it: chat completions, LayerScale's generate and warm, Llama Stack.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from flashfeed.models.chat import ChatRequest

from .errors import InvalidField, Unsupported


def chat_request(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    tool_choice: str | Mapping[str, Any] | None = None,
) -> ChatRequest:
    """Raises InvalidField or Unsupported, naming the field (`messages.2.content`)."""
    flat: dict[str, Any] = {
        "messages": [_message(message, f"messages.{i}") for i, message in enumerate(messages)],
        "tools": [_tool(tool, f"tools.{i}") for i, tool in enumerate(tools or ())],
        "tool_choice": _choice(tool_choice),
    }
    try:
        return msgspec.convert(flat, ChatRequest)
    except UnicodeEncodeError:  # msgspec, of a name that it compares
        message = "messages: expected text, got half of a surrogate pair"
        raise InvalidField(message, "messages") from None
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        place = re.sub(r"\[(\d+)\]", r".\1", path.rstrip("`").removeprefix("$"))
        param = place.removeprefix(".") or "messages"
        raise InvalidField(f"{param}: {message}", param) from None


def content_text(content: Any, where: str) -> str:
    """The text of a message's content: a string, or text parts, which are joined."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidField(f"{where}: expected a string or a list of parts", where)
    texts = []
    for place, part in enumerate(content):
        at = f"{where}.{place}"
        if not isinstance(part, Mapping):
            raise InvalidField(f"{at}: expected an object with a type", at)
        if part.get("type") not in ("text", "input_text", "output_text", "refusal"):
            raise Unsupported(f"{at}.type: only text can be read, got {part.get('type')!r}", at)
        text = part.get("refusal" if part["type"] == "refusal" else "text")
        if not isinstance(text, str):
            raise InvalidField(f"{at}.text: expected a string", f"{at}.text")
        texts.append(text)
    return "".join(texts)


def _message(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    role = message.get("role")
    if message.get("function_call") or role == "function":
        raise Unsupported(f"{where}: function calls are called tools now; use those", where)
    flat: dict[str, Any] = {
        "role": role,
        "content": content_text(message.get("content"), f"{where}.content"),
    }
    if isinstance(name := message.get("name"), str) and role != "tool":
        flat["name"] = name
    if message.get("tool_call_id") is not None:
        flat["tool_call_id"] = message["tool_call_id"]
    if calls := message.get("tool_calls"):
        if not isinstance(calls, list):
            raise InvalidField(f"{where}.tool_calls: expected a list", f"{where}.tool_calls")
        flat["tool_calls"] = [
            _call(call, f"{where}.tool_calls.{place}") for place, call in enumerate(calls)
        ]
    return flat


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise InvalidField(f"{where}.function: expected an object", f"{where}.function")
    arguments = function.get("arguments", "{}") or "{}"
    return {"id": call.get("id", ""), "name": function.get("name"), "arguments": arguments}


def _tool(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, Mapping):
        raise InvalidField(f"{where}: expected an object", where)
    if tool.get("type", "function") != "function":
        raise Unsupported(f"{where}.type: only function tools, got {tool.get('type')!r}", where)
    function = tool.get("function", tool)  # the Responses API has the fields without a nest
    if not isinstance(function, Mapping):
        raise InvalidField(f"{where}.function: expected an object", f"{where}.function")
    return {
        "name": function.get("name"),
        "description": function.get("description") or "",
        "parameters": function.get("parameters") or {},
    }


def _choice(choice: str | Mapping[str, Any] | None) -> Any:
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        return choice
    function = choice.get("function", choice)
    return {"name": function.get("name") if isinstance(function, Mapping) else None}
