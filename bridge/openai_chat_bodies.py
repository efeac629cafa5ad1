"""Chat completions in OpenAI's words: the whole one, and its chunks. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from flashfeed.models.chat import ToolCall
from flashfeed.models.generation import Finish, GeneratedPiece

from .openai_bodies import Head, Json, chat_logprobs, usage


def completion(
    head: Head, choices: Sequence[Sequence[GeneratedPiece]], logprobs: bool, one_call: bool
) -> Json:
    """A whole chat completion; each choice as the pieces it came in. `one_call`: of the
    tool calls only the first is given."""
    return {
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": [
            _choice(index, pieces, logprobs, one_call) for index, pieces in enumerate(choices)
        ],
        "usage": usage([pieces[-1] for pieces in choices]),
    }


def chunk(
    head: Head,
    index: int,
    delta: Json,
    logprobs: Json | None = None,
    finish_reason: Finish | None = None,
) -> Json:
    """A chunk of one choice."""
    choice = {
        "index": index,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": finish_reason,
    }
    return {**_chunk_head(head), "choices": [choice]}


def usage_chunk(head: Head, ends: Sequence[GeneratedPiece]) -> Json:
    """The chunk after the last choice's, with the counts."""
    return {**_chunk_head(head), "choices": [], "usage": usage(ends)}


def call_deltas(calls: Sequence[ToolCall], first: int) -> list[Json]:
    """Tool calls as a chunk has them, each whole; `first` is the first one's index."""
    return [{"index": index, **_call(call)} for index, call in enumerate(calls, start=first)]


def _chunk_head(head: Head) -> Json:
    return {
        "id": head.id,
        "object": "chat.completion.chunk",
        "created": head.created,
        "model": head.model,
    }


def _choice(index: int, pieces: Sequence[GeneratedPiece], logprobs: bool, one_call: bool) -> Json:
    text = "".join(piece.text for piece in pieces)
    calls = [call for piece in pieces for call in piece.tool_calls]
    message: Json = {"role": "assistant", "content": text, "refusal": None}
    if calls:
        message["content"] = text or None
        message["tool_calls"] = [_call(call) for call in (calls[:1] if one_call else calls)]
    return {
        "index": index,
        "message": message,
        "logprobs": chat_logprobs(pieces) if logprobs else None,
        "finish_reason": pieces[-1].finish_reason,
    }


def _call(call: ToolCall) -> Json:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}
