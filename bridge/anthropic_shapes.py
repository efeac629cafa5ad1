"""What an Anthropic client gets, in its own shapes: a message, or the events of one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec
from typing_extensions import TypedDict

from flashfeed.models.chat import ToolCall
from flashfeed.models.generation import GeneratedPiece

StopReason: TypeAlias = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
]


class Usage(TypedDict):
    """Tokens. What was read is `input_tokens` and `cache_read_input_tokens` together."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class TextBlock(TypedDict):
    """What the model said."""

    type: Literal["text"]
    text: str


class ToolUseBlock(TypedDict):
    """A call of a tool."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class Message(TypedDict):
    """An answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlock | ToolUseBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: Usage


class TokensCount(TypedDict):
    """How many tokens the model would read."""

    input_tokens: int


def usage(piece: GeneratedPiece) -> Usage:
    """The tokens up to and with a piece. Nothing is written to a cache that is paid for."""
    return {
        "input_tokens": piece.prompt_tokens - piece.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": piece.cached_tokens,
        "output_tokens": piece.n_tokens,
    }


def stop_reason(last: GeneratedPiece, max_tokens: int) -> StopReason:
    """Why an answer ended, by its last piece."""
    if last.finish_reason == "tool_calls":
        return "tool_use"
    if last.finish_reason == "length":
        return "max_tokens" if last.n_tokens >= max_tokens else "model_context_window_exceeded"
    return "stop_sequence" if last.stop else "end_turn"


def message(
    message_id: str, model: str, pieces: Sequence[GeneratedPiece], max_tokens: int
) -> Message:
    """A whole answer."""
    last = pieces[-1]
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": _blocks(pieces),
        "stop_reason": stop_reason(last, max_tokens),
        "stop_sequence": last.stop or None,
        "usage": usage(last),
    }


class MessageEvents:
    """The events of an answer as its pieces come: `start`, `add` for each, `end`.

    Blocks are opened when there is something to put into them, and numbered as they
    open. A call's input comes whole, in one delta.
    """

    def __init__(self, message_id: str, model: str, max_tokens: int) -> None:
        self._id: Final = message_id
        self._model: Final = model
        self._max_tokens: Final = max_tokens
        self._n_blocks = 0
        self._in_text = False

    def start(self, first: GeneratedPiece) -> dict[str, Any]:
        """The event that opens the message: what was read is known, nothing is written."""
        opened: Message = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage(first) | {"output_tokens": 0},
        }
        return {"type": "message_start", "message": opened}

    def add(self, piece: GeneratedPiece) -> Iterator[dict[str, Any]]:
        """The events of a piece."""
        if piece.text:
            if not self._in_text:
                yield self._open({"type": "text", "text": ""})
                self._in_text = True
            yield self._delta({"type": "text_delta", "text": piece.text})
        for call in piece.tool_calls:
            yield from self._close_text()
            yield self._open(_tool_use(call) | {"input": {}})
            yield self._delta({"type": "input_json_delta", "partial_json": call.arguments})
            yield self._close()

    def end(self, last: GeneratedPiece) -> Iterator[dict[str, Any]]:
        """The events after the last piece."""
        yield from self._close_text()
        delta = {
            "stop_reason": stop_reason(last, self._max_tokens),
            "stop_sequence": last.stop or None,
        }
        yield {"type": "message_delta", "delta": delta, "usage": usage(last)}
        yield {"type": "message_stop"}

    def _open(self, block: Any) -> dict[str, Any]:
        self._n_blocks += 1
        return {
            "type": "content_block_start",
            "index": self._n_blocks - 1,
            "content_block": block,
        }

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._n_blocks - 1, "delta": delta}

    def _close(self) -> dict[str, Any]:
        return {"type": "content_block_stop", "index": self._n_blocks - 1}

    def _close_text(self) -> Iterator[dict[str, Any]]:
        if self._in_text:
            self._in_text = False
            yield self._close()


def _blocks(pieces: Iterable[GeneratedPiece]) -> list[TextBlock | ToolUseBlock]:
    blocks: list[TextBlock | ToolUseBlock] = []
    for piece in pieces:
        if piece.text:
            if blocks and blocks[-1]["type"] == "text":
                blocks[-1]["text"] += piece.text
            else:
                blocks.append({"type": "text", "text": piece.text})
        blocks += [_tool_use(call) for call in piece.tool_calls]
    return blocks


def _tool_use(call: ToolCall) -> ToolUseBlock:
    return {
        "type": "tool_use",
        "id": call.id,
        "name": call.name,
        "input": msgspec.json.decode(call.arguments),
    }
