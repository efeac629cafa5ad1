"""OpenAI's chat completions: one answer or several, whole or streamed, over a session's
data or without any.

Several answers are written one after the other: each reads the prompt that the first one
has decoded. The kept ones are openai_chat_store.py.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from flashfeed.models.chat import ChatRequest
from flashfeed.models.generation import GeneratedPiece, GenerateOptions

from .answers import whole_answer
from .caller import Sessions
from .openai_asker import Asker, SessionHeader, asker, options_of
from .openai_bodies import Head, Json, chat_logprobs, new_id
from .openai_chat_bodies import call_deltas, chunk, completion, usage_chunk
from .openai_chat_requests import ChatBody
from .openai_chat_store import keep_completion
from .openai_stream import openai_stream
from .sse import frame

router = APIRouter(prefix="/v1", tags=["OpenAI"])


@router.post(
    "/chat/completions",
    response_model=None,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def create_chat_completion(
    body: ChatBody, request: Request, sessions: Sessions, session: SessionHeader = ""
) -> dict[str, Any] | Response:
    """Answer a conversation; with `session_id` over a live session's data."""
    who = asker(sessions, body.session_id, session, body.model)
    head = Head(new_id("chatcmpl-"), who.model)
    asked, options = body.asked(), body.options()
    if body.stream:
        return openai_stream(request, _frames(body, who, head, asked, options))
    choices = []
    for choice in range(body.n):
        pieces = who.pieces(asked, options_of(options, choice))
        choices.append((await whole_answer(request, pieces)).pieces)
    return await _ended(body, who, head, choices)


async def _frames(
    body: ChatBody, who: Asker, head: Head, asked: ChatRequest, options: GenerateOptions
) -> AsyncGenerator[bytes]:
    # With include_usage every chunk names it, and the last one has it.
    usage: Json = {"usage": None} if body.stream_options.include_usage else {}
    choices: list[list[GeneratedPiece]] = []
    for index in range(body.n):
        choices.append(read := [])
        deltas = _Deltas(head, index, body)
        async with aclosing(who.pieces(asked, options_of(options, index))) as pieces:
            async for piece in pieces:
                read.append(piece)
                for one in deltas.of(piece):
                    yield frame(one | usage)
    await _ended(body, who, head, choices)
    if usage:
        yield frame(usage_chunk(head, [read[-1] for read in choices]))


async def _ended(body: ChatBody, who: Asker, head: Head, choices: list[Any]) -> Json:
    """The whole completion; kept where the request says so."""
    whole = completion(head, choices, body.logprobs, not body.parallel_tool_calls)
    if body.store:
        await keep_completion(who.sessions.documents, whole, body.messages, body.metadata)
    return whole


class _Deltas:
    """The chunks of one choice, piece by piece. The first has the role; it waits for the
    first piece, so that an error before it is an ordinary HTTP error."""

    def __init__(self, head: Head, index: int, body: ChatBody) -> None:
        self._head = head
        self._index = index
        self._logprobs = body.logprobs
        self._calls_max = None if body.parallel_tool_calls else 1
        self._calls = 0
        self._begun = False

    def of(self, piece: GeneratedPiece) -> list[Json]:
        """The chunks that a piece makes; none where it has nothing to say."""
        chunks = []
        if not self._begun:
            self._begun = True
            opening = {"role": "assistant", "content": "", "refusal": None}
            chunks.append(chunk(self._head, self._index, opening))
        token = self._logprobs and piece.finish_reason is None
        if piece.text or token:
            logprobs = chat_logprobs([piece]) if token else None
            chunks.append(chunk(self._head, self._index, {"content": piece.text}, logprobs))
        calls = piece.tool_calls
        if self._calls_max is not None:
            calls = calls[: self._calls_max - self._calls]
        if calls:
            deltas = call_deltas(calls, self._calls)
            self._calls += len(calls)
            chunks.append(chunk(self._head, self._index, {"tool_calls": deltas}))
        if piece.finish_reason is not None:
            chunks.append(chunk(self._head, self._index, {}, None, piece.finish_reason))
        return chunks
