"""The items of OpenAI's responses and conversations: messages, calls and their results. Pure.

Items from outside are brought into one form, the one in which they are kept and shown,
and get ids of their own. What a model reads are messages, made of the items when it is
asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from flashfeed.models.chat import ChatRequest

from .errors import InvalidField, Unsupported
from .openai_bodies import Json, new_id
from .openai_messages import chat_request, content_text

_ROLES: Final = ("user", "assistant", "system", "developer")
_FORMS: Final = "message, function_call or function_call_output"


def items_of(given: str | Sequence[Mapping[str, Any]], where: str) -> list[Json]:
    """Items from outside in the kept form; a text is one user's message.

    Raises InvalidField or Unsupported, naming the field (`input.2.content`).
    """
    if isinstance(given, str):
        return [_message("user", given, where)]
    return [_item(one, f"{where}.{place}") for place, one in enumerate(given)]


def chat_of(
    items: Sequence[Json],
    instructions: str = "",
    tools: Sequence[Mapping[str, Any]] | None = None,
    tool_choice: str | Mapping[str, Any] | None = None,
) -> ChatRequest:
    """What the model reads of the items: calls belong to the assistant's message before
    them. Raises InvalidField or Unsupported."""
    messages: list[Json] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    for item in items:
        if item["type"] == "message":
            text = content_text(item["content"], "content")
            messages.append({"role": item["role"], "content": text})
        elif item["type"] == "function_call":
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": ""})
            function = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": function}
            messages[-1].setdefault("tool_calls", []).append(call)
        else:
            text = content_text(item["output"], "output")
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": text})
    if not messages:
        raise InvalidField("input: expected a text or at least one item, got none", "input")
    try:
        return chat_request(messages, tools, tool_choice)
    except InvalidField as error:
        if not error.param.startswith("messages"):
            raise
        # The messages are made of the items and are not the caller's to count.
        raise InvalidField(f"input: read as {error}", "input") from None


def _item(given: Mapping[str, Any], where: str) -> Json:
    kind = given.get("type", "message")
    if kind == "message":
        role = given.get("role")
        if role not in _ROLES:
            param = f"{where}.role"
            raise InvalidField(f"{param}: expected one of {', '.join(_ROLES)}", param)
        return _message(role, given.get("content"), where)
    if kind == "function_call":
        return {
            "id": new_id("fc_"),
            "type": "function_call",
            "call_id": _text(given, "call_id", where),
            "name": _text(given, "name", where),
            "arguments": _text(given, "arguments", where),
            "status": "completed",
        }
    if kind == "function_call_output":
        content_text(given.get("output"), f"{where}.output")
        return {
            "id": new_id("fco_"),
            "type": "function_call_output",
            "call_id": _text(given, "call_id", where),
            "output": given.get("output"),
            "status": "completed",
        }
    raise Unsupported(f"{where}.type: expected {_FORMS}, got {kind!r}", f"{where}.type")


def _message(role: str, content: Any, where: str) -> Json:
    content_text(content, f"{where}.content")  # or it is refused here, by its place
    parts = [{"text": content}] if isinstance(content, str) else content or []
    return {
        "id": new_id("msg_"),
        "type": "message",
        "role": role,
        "status": "completed",
        "content": [_part(role, part) for part in parts],
    }


def _part(role: str, part: Mapping[str, Any]) -> Json:
    if part.get("type") == "refusal":
        return {"type": "refusal", "refusal": part["refusal"]}
    if role == "assistant":
        return {"type": "output_text", "text": part["text"], "annotations": []}
    return {"type": "input_text", "text": part["text"]}


def _text(given: Mapping[str, Any], name: str, where: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise InvalidField(f"{where}.{name}: expected a string", f"{where}.{name}")
    return value
