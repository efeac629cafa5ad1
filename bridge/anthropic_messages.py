"""Anthropic's Messages API: /v1/messages, stream and not, and its count of tokens.

With a session, named in the body or in the header x-layerscale-session-id, the answer is
over the session's data; without one it is a plain chat. Requests:
anthropic_requests.py; the conversation: anthropic_conversation.py; answers:
anthropic_shapes.py.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from flashfeed.agents.service import SessionService
from flashfeed.models.errors import FlashfeedError, SessionUnknown
from flashfeed.models.generation import GeneratedPiece

from . import anthropic_shapes as shapes
from .answers import event_stream, whole_answer
from .anthropic_requests import SESSION_ID_CHARACTERS_MAX, CountBody, MessagesBody
from .caller import Sessions
from .errors import InvalidField, error_body
from .sse import frame

router = APIRouter(prefix="/v1/messages", tags=["anthropic"])

_STREAM: dict[str, Any] = {"content": {"text/event-stream": {}}}


SessionHeader = Annotated[
    str,
    Header(
        alias="x-layerscale-session-id",
        max_length=SESSION_ID_CHARACTERS_MAX,
        description="ask this live session's data, as `session_id` in the body does",
    ),
]


@router.post("", response_model=shapes.Message, responses={200: _STREAM})
async def create(
    body: MessagesBody,
    request: Request,
    sessions: Sessions,
    session: SessionHeader = "",
) -> shapes.Message | Response:
    """Answer a conversation; with `stream` as server-sent events."""
    session_id = _session_id(body, session)
    model = sessions.get(session_id).model if session_id else body.model or sessions.model_id
    pieces = _pieces(sessions, body, session_id)
    message_id = f"msg_{uuid.uuid4().hex}"
    if body.stream:
        events = shapes.MessageEvents(message_id, model, body.max_tokens)
        return event_stream(request, _frames(pieces, events))
    answer = await whole_answer(request, pieces)
    return shapes.message(message_id, model, answer.pieces, body.max_tokens)


@router.post("/count_tokens")
async def count_tokens(body: CountBody, sessions: Sessions) -> shapes.TokensCount:
    """How many tokens of prompt the same request would have, without a session."""
    return {"input_tokens": await sessions.count_prompt(body.chat_request(), body.model)}


def _session_id(body: MessagesBody, header: str) -> str:
    """The session that is asked, "" for none. Raises InvalidField where there are two."""
    if body.session_id and header and body.session_id != header:
        message = "session_id: expected the session of x-layerscale-session-id, got another"
        raise InvalidField(message, "session_id")
    return body.session_id or header


async def _pieces(
    sessions: SessionService, body: MessagesBody, session_id: str
) -> AsyncGenerator[GeneratedPiece]:
    """The answer's pieces, to its end or to its first call where only one is wanted."""
    asked, options = body.chat_request(), body.options()
    pieces = (
        sessions.generate(session_id, asked, options)
        if session_id
        else sessions.chat(asked, options, body.model)
    )
    async with aclosing(pieces):
        async for piece in pieces:
            if piece.finish_reason == "cancelled":
                raise SessionUnknown("the session ended while it answered")
            if piece.tool_calls and body.one_call:
                first = piece.tool_calls[:1]
                yield msgspec.structs.replace(piece, tool_calls=first, finish_reason="tool_calls")
                return
            yield piece


async def _frames(
    pieces: AsyncGenerator[GeneratedPiece], events: shapes.MessageEvents
) -> AsyncGenerator[bytes, None]:
    """The events as frames. An error before the first is raised, for an ordinary HTTP
    error; later there is only a frame to say it in."""
    last: GeneratedPiece | None = None
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                if last is None:
                    yield _frame(events.start(piece))
                last = piece
                for event in events.add(piece):
                    yield _frame(event)
    except FlashfeedError as error:
        if last is None:
            raise
        yield frame(error_body(error.status, error.code, str(error)), "error")
        return
    assert last is not None, "a generation has a last piece"
    for event in events.end(last):
        yield _frame(event)


def _frame(event: dict[str, object]) -> bytes:
    return frame(event, str(event["type"]))
