"""A conversation in Anthropic's words as the service takes it. Pure.

Anthropic's messages are lists of blocks. A user's `tool_result` blocks are messages of
their own here, before the rest of what the user says; an assistant's `tool_use` blocks
are its calls. Turns of the same role in a row are one turn, as Anthropic has it, and the
blocks of a turn are paragraphs. Thinking of earlier turns is not shown to the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from flashfeed.models.chat import ChatRequest

from .errors import InvalidField, Unsupported

BLOCKS_MAX: Final = 1000

_FLAT_PLACE = re.compile(r"messages\[(\d+)\]")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_ERROR_PREFIX = "Error: "
_THEIR_WORDS = (
    ("parameters", "input_schema"),
    ("tool_call_id", "tool_use_id"),
    ("tool_calls", "tool_use"),
    ("arguments", "input"),
    ("[", "."),
    ("]", ""),
)


class _Flat(NamedTuple):
    """A message as the service takes it, and where it stood."""

    where: str
    message: dict[str, Any]


def conversation(
    messages: Sequence[Mapping[str, Any]],
    system: str | Sequence[Any] | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    choice: str = "auto",
    choice_name: str | None = None,
) -> ChatRequest:
    """Raises InvalidField or Unsupported, naming the field (`messages.2.content.0`)."""
    flat: list[_Flat] = []
    if text := _text(system, "system"):
        flat.append(_Flat("system", {"role": "system", "content": text}))
    for place, message in enumerate(messages):
        for one in _messages(message, f"messages.{place}"):
            if flat and _same_turn(flat[-1].message, one.message):
                _join(flat[-1].message, one.message)
            else:
                flat.append(one)
    if choice == "tool" and not choice_name:
        raise InvalidField("tool_choice.name: expected the tool's name", "tool_choice.name")
    asked = {
        "messages": [one.message for one in flat],
        "tools": [_tool(tool, f"tools.{place}") for place, tool in enumerate(tools)],
        "tool_choice": {"name": choice_name} if choice == "tool" else _CHOICES[choice],
    }
    _expect_no_strict(tools, choice)
    try:
        return msgspec.convert(asked, ChatRequest)
    except msgspec.ValidationError as error:
        raise _named(error, flat) from None


def _same_turn(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return before["role"] in ("user", "assistant") and bool(before["role"] == after["role"])


def _join(before: dict[str, Any], after: Mapping[str, Any]) -> None:
    before["content"] = "\n\n".join(text for text in (before["content"], after["content"]) if text)
    if calls := (*before.get("tool_calls", ()), *after.get("tool_calls", ())):
        before["tool_calls"] = calls


def _messages(message: Mapping[str, Any], where: str) -> list[_Flat]:
    role, content = message.get("role"), message.get("content")
    if unknown := set(message) - {"role", "content"}:
        at = f"{where}.{min(unknown)}"
        raise Unsupported(f"{at}: this field of a message is not known here", at)
    if role == "system":
        return [_Flat(where, {"role": role, "content": _text(content, f"{where}.content")})]
    if role not in ("user", "assistant"):
        message_ = f"{where}.role: expected user, assistant or system, got {role!r}"
        raise InvalidField(message_, f"{where}.role")
    if content is None:
        raise InvalidField(f"{where}.content: expected a string or blocks", f"{where}.content")
    if isinstance(content, str):
        return [_Flat(where, {"role": role, "content": content})]
    blocks = _blocks(content, f"{where}.content")
    return _user(blocks, where) if role == "user" else [_assistant(blocks, where)]


def _user(blocks: Sequence[tuple[str, Mapping[str, Any]]], where: str) -> list[_Flat]:
    results: list[_Flat] = []
    texts: list[str] = []
    for at, block in blocks:
        if block["type"] == "tool_result":
            if texts:
                raise InvalidField(f"{at}: tool_result blocks come first in their message", at)
            results.append(_Flat(at, _tool_result(block, at)))
        else:
            texts.append(_block_text(block, at))
    if texts or not results:
        results.append(_Flat(where, {"role": "user", "content": "\n\n".join(filter(None, texts))}))
    return results


def _tool_result(block: Mapping[str, Any], at: str) -> dict[str, Any]:
    text = _text(block.get("content"), f"{at}.content")
    if block.get("is_error"):
        text = _ERROR_PREFIX + text
    return {"role": "tool", "tool_call_id": block.get("tool_use_id", ""), "content": text}


def _assistant(blocks: Sequence[tuple[str, Mapping[str, Any]]], where: str) -> _Flat:
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for at, block in blocks:
        if block["type"] == "tool_use":
            calls.append(_call(block, at))
        elif block["type"] not in ("thinking", "redacted_thinking"):
            texts.append(_block_text(block, at))
    message = {"role": "assistant", "content": "\n\n".join(filter(None, texts))}
    return _Flat(where, message | ({"tool_calls": tuple(calls)} if calls else {}))


def _call(block: Mapping[str, Any], at: str) -> dict[str, Any]:
    given = block.get("input", {})
    if not isinstance(given, Mapping):
        raise InvalidField(f"{at}.input: expected an object", f"{at}.input")
    # As models write it, so that the call that comes back is the tokens that were written.
    arguments = json.dumps(given, ensure_ascii=False)
    return {"id": block.get("id", ""), "name": block.get("name"), "arguments": arguments}


def _text(content: Any, where: str) -> str:
    """The text of a string or of text blocks."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = [_block_text(block, at) for at, block in _blocks(content, where)]
    return "\n\n".join(filter(None, texts))


def _blocks(content: Any, where: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Blocks, each with its place."""
    if not isinstance(content, list):
        raise InvalidField(f"{where}: expected a string or a list of blocks", where)
    if len(content) > BLOCKS_MAX:
        message = f"{where}: expected at most {BLOCKS_MAX} blocks, got {len(content)}"
        raise InvalidField(message, where)
    placed = []
    for place, block in enumerate(content):
        at = f"{where}.{place}"
        if not isinstance(block, Mapping) or not isinstance(block.get("type"), str):
            raise InvalidField(f"{at}: expected an object with a type", at)
        placed.append((at, block))
    return placed


def _block_text(block: Mapping[str, Any], at: str) -> str:
    if block["type"] != "text":
        raise Unsupported(f"{at}.type: {block['type']!r} cannot be read here", f"{at}.type")
    text = block.get("text")
    if not isinstance(text, str):
        raise InvalidField(f"{at}.text: expected a string", f"{at}.text")
    return text


def _tool(tool: Mapping[str, Any], where: str) -> dict[str, Any]:
    if tool.get("type") not in (None, "custom"):
        message = f"{where}.type: only tools of the caller's own, got {tool['type']!r}"
        raise Unsupported(message, f"{where}.type")
    schema = tool.get("input_schema")
    if not isinstance(schema, Mapping):
        at = f"{where}.input_schema"
        raise InvalidField(f"{at}: expected a JSON schema of type object", at)
    return {
        "name": tool.get("name"),
        "description": tool.get("description") or "",
        "parameters": schema,
    }


def _expect_no_strict(tools: Sequence[Mapping[str, Any]], choice: str) -> None:
    """A call that the model must make follows its schema; one that it may make need not."""
    for place, tool in enumerate(tools):
        if tool.get("strict") and choice == "auto":
            at = f"tools.{place}.strict"
            raise Unsupported(f"{at}: only with a tool_choice of any or tool", at)


def _named(error: msgspec.ValidationError, flat: Sequence[_Flat]) -> InvalidField:
    """The error with the field as the client knows it."""
    message, _, path = str(error).partition(" - at `")
    path = path.rstrip("`").removeprefix("$").removeprefix(".") or "messages"
    if found := _FLAT_PLACE.match(path):
        path = flat[int(found[1])].where + path[found.end() :]
    for ours, theirs in _THEIR_WORDS:
        path = path.replace(ours, theirs)
    return InvalidField(f"{path}: {message}", path)
