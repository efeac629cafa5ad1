"""Llama Stack's words for messages, tools and calls, and ours. Pure.

Clients of all versions are read alike: `ipython` of 0.0.35 is `tool` of the later ones,
arguments are an object or its JSON, and content is a string, an item, or a list of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import orjson

from flashfeed.models.chat import ToolCall
from flashfeed.models.generation import Finish, GeneratedPiece

from .errors import InvalidField, Unsupported
from .openai_messages import content_text

Words: TypeAlias = dict[str, Any]
StopReason: TypeAlias = Literal["end_of_turn", "end_of_message", "out_of_tokens"]

_ROLES: Final = {"ipython": "tool"}
_STOP_REASONS: Final[Mapping[Finish, StopReason]] = {
    "stop": "end_of_turn",
    "cancelled": "end_of_turn",
    "length": "out_of_tokens",
    "tool_calls": "end_of_message",
}
_SCHEMA_TYPES: Final = {
    "str": "string",
    "string": "string",
    "int": "integer",
    "integer": "integer",
    "float": "number",
    "number": "number",
    "bool": "boolean",
    "boolean": "boolean",
    "list": "array",
    "array": "array",
    "dict": "object",
    "object": "object",
}


def openai_messages(messages: Sequence[Mapping[str, Any]], where: str = "messages") -> list[Words]:
    """The messages in OpenAI's words. Raises InvalidField or Unsupported, naming the field."""
    return [_message(message, f"{where}.{place}") for place, message in enumerate(messages)]


def plain_text(content: Any, where: str) -> str:
    """The text of a content; raises InvalidField or Unsupported where it is none."""
    if isinstance(content, Mapping):
        content = [content]
    if isinstance(content, list):
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else part for part in content
        ]
    return content_text(content, where)


def tool_result(response: Mapping[str, Any], where: str) -> Words:
    """What a tool gave for a call, as a message."""
    call_id = response.get("call_id")
    if not isinstance(call_id, str) or not call_id:
        raise InvalidField(f"{where}.call_id: expected the id of a call", f"{where}.call_id")
    text = plain_text(response.get("content"), f"{where}.content")
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def assistant_message(message: Mapping[str, Any], where: str) -> Words:
    """What the model said earlier, its calls included."""
    words: Words = {
        "role": "assistant",
        "content": plain_text(message.get("content"), f"{where}.content"),
    }
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise InvalidField(f"{where}.tool_calls: expected a list", f"{where}.tool_calls")
    if calls:
        words["tool_calls"] = [
            _openai_call(call, f"{where}.tool_calls.{place}") for place, call in enumerate(calls)
        ]
    return words


def tool_of_parameters(name: Any, description: str, parameters: Mapping[str, Any]) -> Words:
    """A tool whose parameters are `{name: {param_type, description, required}}`."""
    listed = [
        {"name": key, "parameter_type": one.get("param_type"), **one}
        for key, one in parameters.items()
    ]
    return tool_of_list(name, description, listed)


def tool_of_list(name: Any, description: str, parameters: Sequence[Mapping[str, Any]]) -> Words:
    """A tool whose parameters are `[{name, parameter_type, description, required}]`."""
    properties: dict[str, Words] = {}
    for one in parameters:
        schema: Words = {}
        if kind := _SCHEMA_TYPES.get(str(one.get("parameter_type"))):
            schema["type"] = kind
        if one.get("description"):
            schema["description"] = one["description"]
        if one.get("default") is not None:
            schema["default"] = one["default"]
        properties[str(one.get("name"))] = schema
    required = [
        str(one.get("name"))
        for one in parameters
        if one.get("required") is not False and one.get("default") is None
    ]
    schema = {"type": "object", "properties": properties, "required": required}
    return {"name": name, "description": description, "parameters": schema}


def completion_message(text: str, finish: Finish, calls: Sequence[ToolCall]) -> Words:
    """What the model said, as every version of the client reads it."""
    return {
        "role": "assistant",
        "content": text,
        "stop_reason": stop_reason(finish),
        "tool_calls": [tool_call(call) for call in calls],
    }


def stop_reason(finish: Finish) -> StopReason:
    """Why the model stopped; end_of_message says that it waits for a tool."""
    return _STOP_REASONS[finish]


def tool_call(call: ToolCall) -> Words:
    """A call of a tool, its arguments as an object and as its text."""
    return {
        "call_id": call.id,
        "tool_name": call.name,
        "arguments": orjson.loads(call.arguments),
        "arguments_json": call.arguments,
    }


def text_delta(text: str) -> Words:
    """A piece of text in a stream."""
    return {"type": "text", "text": text}


def call_deltas(call: ToolCall) -> list[Words]:
    """A call in a stream: that one begins, and the whole of it."""
    return [
        {"type": "tool_call", "parse_status": "started", "tool_call": ""},
        {"type": "tool_call", "parse_status": "succeeded", "tool_call": tool_call(call)},
    ]


def old_delta(delta: Words) -> str | Words:
    """A delta as 0.0.35 reads it: the text itself, or the call."""
    if delta["type"] == "text":
        return str(delta["text"])
    status = "success" if delta["parse_status"] == "succeeded" else delta["parse_status"]
    return {"content": delta["tool_call"], "parse_status": status}


def token_log_probs(piece: GeneratedPiece) -> Words:
    """The likeliest tokens at a piece's place: {text: log-probability}."""
    return {"logprobs_by_token": {one.text: one.log_probability for one in piece.top}}


def _message(message: Any, where: str) -> Words:
    if not isinstance(message, Mapping):
        raise InvalidField(f"{where}: expected an object with a role", where)
    role = _ROLES.get(str(message.get("role")), message.get("role"))
    if role == "tool":
        return tool_result(message, where)
    if role == "assistant":
        return assistant_message(message, where)
    if role not in ("user", "system"):
        at = f"{where}.role"
        raise InvalidField(f"{at}: expected user, system, assistant or tool, got {role!r}", at)
    text = plain_text(message.get("content"), f"{where}.content")
    if message.get("context") is not None:
        text = f"{text}\n{plain_text(message['context'], f'{where}.context')}"
    return {"role": role, "content": text}


def _openai_call(call: Any, where: str) -> Words:
    if not isinstance(call, Mapping):
        raise InvalidField(f"{where}: expected an object", where)
    arguments = call.get("arguments_json") or call.get("arguments") or {}
    if not isinstance(arguments, str):
        try:
            arguments = orjson.dumps(arguments).decode()
        except TypeError as error:
            raise InvalidField(f"{where}.arguments: {error}", f"{where}.arguments") from None
    function = {"name": call.get("tool_name"), "arguments": arguments}
    return {"id": call.get("call_id") or "", "type": "function", "function": function}


def expect_none(value: Sequence[Any] | None, where: str, why: str) -> None:
    """Refuse a list of what flashfeed does not have; an empty one is as good as none."""
    if value:
        raise Unsupported(f"{where}: {why}", where)
