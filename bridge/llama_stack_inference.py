"""Llama Stack's inference: chats and completions without a session, single and in batches.

/v1/inference/... and 0.0.35's /inference/... and /batch_inference/... take the same
requests; their answers differ in few words.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from flashfeed.agents.service import SessionService
from flashfeed.models.errors import FlashfeedError
from flashfeed.models.generation import Continuation, GeneratedPiece, PlainPrompt

from . import llama_stack_inference_requests as requests
from .answers import WholeAnswer, event_stream, read_whole, until_gone, whole_answer
from .caller import Sessions
from .errors import error_body
from .llama_stack_turns import Version
from .llama_stack_words import (
    Words,
    call_deltas,
    completion_message,
    old_delta,
    plain_text,
    stop_reason,
    text_delta,
    token_log_probs,
)
from .sse import frame

STREAMED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/event-stream": {}, "application/json": {}}}
}

router = APIRouter(tags=["llama stack inference"])


@router.post("/v1/inference/chat-completion", responses=STREAMED, response_model=None)
async def chat_completion(
    body: requests.ChatBody, request: Request, sessions: Sessions
) -> dict[str, Any] | Response:
    """Answer a conversation; with `stream` as server-sent events."""
    return await _chat(body, request, sessions, "0.1")


@router.post("/inference/chat_completion", response_model=None)
async def chat_completion_named(
    body: requests.ChatBody, request: Request, sessions: Sessions
) -> dict[str, Any] | Response:
    """Answer a conversation, in 0.0.35's words."""
    return await _chat(body, request, sessions, "0.0.35")


@router.post("/v1/inference/completion", responses=STREAMED, response_model=None)
async def completion(
    body: requests.CompletionBody, request: Request, sessions: Sessions
) -> dict[str, Any] | Response:
    """Go on with a text; with `stream` as server-sent events."""
    pieces = _continue(body, sessions)
    if body.stream:
        return event_stream(request, _text_frames(pieces, bool(body.logprobs)))
    return _completion(await whole_answer(request, pieces), bool(body.logprobs))


@router.post("/inference/completion", response_model=None)
async def completion_named(
    body: requests.CompletionBody, request: Request, sessions: Sessions
) -> dict[str, Any] | Response:
    """Go on with a text, in 0.0.35's words: its answer is a message too."""
    pieces = _continue(body, sessions)
    if body.stream:
        return event_stream(request, _text_frames(pieces, bool(body.logprobs)))
    return _chat_answer(await whole_answer(request, pieces), bool(body.logprobs))


@router.post("/v1/inference/batch-chat-completion")
async def batch_chat_completion(
    body: requests.ChatBatchBody, request: Request, sessions: Sessions
) -> dict[str, Any]:
    """Answer several conversations."""
    answers = await until_gone(request, _batch(sessions, body, _chats(body)))
    return {"batch": [_chat_answer(answer, bool(body.logprobs)) for answer in answers]}


@router.post("/v1/inference/batch-completion")
async def batch_completion(
    body: requests.CompletionBatchBody, request: Request, sessions: Sessions
) -> dict[str, Any]:
    """Go on with several texts."""
    answers = await until_gone(request, _batch(sessions, body, _texts(body)))
    return {"batch": [_completion(answer, bool(body.logprobs)) for answer in answers]}


@router.post("/batch_inference/chat_completion")
async def batch_chat_completion_named(
    body: requests.ChatBatchBody, request: Request, sessions: Sessions
) -> dict[str, Any]:
    """Answer several conversations, in 0.0.35's words."""
    answers = await until_gone(request, _batch(sessions, body, _chats(body)))
    return {"completion_message_batch": [_message(answer) for answer in answers]}


@router.post("/batch_inference/completion")
async def batch_completion_named(
    body: requests.CompletionBatchBody, request: Request, sessions: Sessions
) -> dict[str, Any]:
    """Go on with several texts, in 0.0.35's words."""
    answers = await until_gone(request, _batch(sessions, body, _texts(body)))
    return {"completion_message_batch": [_message(answer) for answer in answers]}


@router.post("/v1/inference/embeddings")
@router.post("/inference/embeddings")
async def embeddings(body: requests.EmbeddingsBody, sessions: Sessions) -> dict[str, Any]:
    """Texts as vectors."""
    embedded = await sessions.embed(body.texts(), body.model_id or body.model)
    body.check_length(len(embedded.vectors[0]))
    return {"embeddings": embedded.vectors}


async def _chat(
    body: requests.ChatBody, request: Request, service: SessionService, version: Version
) -> dict[str, Any] | Response:
    model = _model(service, body)
    pieces = service.chat(body.request(body.messages), body.options(), model)
    if body.stream:
        return event_stream(request, _chat_frames(pieces, version, bool(body.logprobs)))
    return _chat_answer(await whole_answer(request, pieces), bool(body.logprobs))


def _continue(
    body: requests.CompletionBody, service: SessionService
) -> AsyncGenerator[GeneratedPiece]:
    asked = Continuation(plain_text(body.content, "content"))
    return service.chat(asked, body.options(), _model(service, body))


def _chats(body: requests.ChatBatchBody) -> list[PlainPrompt]:
    return [
        body.request(messages, f"messages_batch.{place}")
        for place, messages in enumerate(body.messages_batch)
    ]


def _texts(body: requests.CompletionBatchBody) -> list[PlainPrompt]:
    return [
        Continuation(plain_text(content, f"content_batch.{place}"))
        for place, content in enumerate(body.content_batch)
    ]


async def _batch(
    service: SessionService, body: requests.InferenceBody, asked: list[PlainPrompt]
) -> list[WholeAnswer]:
    """One after the other: a batch is no way past the bound of chats that run at once."""
    options, model = body.options(), _model(service, body)
    return [await read_whole(service.chat(one, options, model)) for one in asked]


def _model(service: SessionService, body: requests.InferenceBody) -> str:
    return "" if body.model_named == service.model_id else body.model_named


def _message(answer: WholeAnswer) -> Words:
    return completion_message(answer.text, answer.finish_reason, answer.tool_calls)


def _chat_answer(answer: WholeAnswer, logprobs: bool) -> Words:
    words = {"completion_message": _message(answer), "metrics": _metrics(answer.last)}
    return words | _logprobs(answer.pieces, logprobs)


def _completion(answer: WholeAnswer, logprobs: bool) -> Words:
    words = {
        "content": answer.text,
        "stop_reason": stop_reason(answer.finish_reason),
        "metrics": _metrics(answer.last),
    }
    return words | _logprobs(answer.pieces, logprobs)


def _logprobs(pieces: tuple[GeneratedPiece, ...], wanted: bool) -> Words:
    return {"logprobs": [token_log_probs(piece) for piece in pieces if piece.top]} if wanted else {}


def _metrics(last: GeneratedPiece) -> list[Words]:
    counts = {
        "prompt_tokens": last.prompt_tokens,
        "completion_tokens": last.n_tokens,
        "total_tokens": last.prompt_tokens + last.n_tokens,
    }
    return [{"metric": name, "value": count, "unit": "tokens"} for name, count in counts.items()]


async def _chat_frames(
    pieces: AsyncGenerator[GeneratedPiece], version: Version, logprobs: bool
) -> AsyncGenerator[bytes]:
    def event(kind: str, delta: Words, **more: Any) -> Words:
        shown = delta if version != "0.0.35" else old_delta(delta)
        return {"event": {"event_type": kind, "delta": shown, **more}}

    async def chunks() -> AsyncGenerator[Words]:
        begun = False
        async for piece in pieces:
            if not begun:
                begun = True
                yield event("start", text_delta(""))
            deltas = [text_delta(piece.text)] if piece.text or (logprobs and piece.top) else []
            for call in piece.tool_calls:
                deltas += call_deltas(call)
            for delta in deltas:
                shown = delta["type"] == "text"
                yield event("progress", delta, **_logprobs((piece,), logprobs and shown))
            if piece.finish_reason is not None:
                reason = stop_reason(piece.finish_reason)
                last = event("complete", text_delta(""), stop_reason=reason)
                yield last | {"metrics": _metrics(piece)}

    async with aclosing(pieces):
        async for one in _framed(chunks()):
            yield one


async def _text_frames(
    pieces: AsyncGenerator[GeneratedPiece], logprobs: bool
) -> AsyncGenerator[bytes]:
    """Each chunk has its text twice: `delta` is what 0.0.35 reads, `content` the others."""

    async def chunks() -> AsyncGenerator[Words]:
        async for piece in pieces:
            reason = None if piece.finish_reason is None else stop_reason(piece.finish_reason)
            chunk: Words = {"delta": piece.text, "content": piece.text, "stop_reason": reason}
            if reason is not None:
                chunk |= {"metrics": _metrics(piece)}
            if piece.text or reason or (logprobs and piece.top):
                yield chunk | _logprobs((piece,), logprobs)

    async with aclosing(pieces):
        async for one in _framed(chunks()):
            yield one


async def _framed(chunks: AsyncGenerator[Words]) -> AsyncGenerator[bytes]:
    """The chunks as frames. An error before the first is raised, for an ordinary HTTP
    error; later it becomes a frame."""
    begun = False
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                begun = True
                yield frame(chunk)
        except FlashfeedError as error:
            if not begun:
                raise
            yield frame(error_body(error.status, error.code, str(error)))
