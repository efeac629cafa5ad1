"""OpenAI's responses: whole or as events, kept, and gone on from."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from flashfeed.models.errors import FlashfeedError, RequestError
from flashfeed.models.generation import GeneratedPiece

from .answers import event_stream, whole_answer
from .caller import Sessions
from .errors import Unsupported
from .openai_asker import Asker, SessionHeader, asker
from .openai_bodies import Head, Json, new_id
from .openai_items import chat_of, items_of
from .openai_pages import After, Limit, Order, page
from .openai_responses_bodies import begun, ended, failed
from .openai_responses_kept import RESPONSE, before, keep_response, kept_response
from .openai_responses_output import Output
from .openai_responses_requests import ResponseBody
from .sse import frame

log = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/responses", tags=["OpenAI"])


@router.post("", response_model=None, responses={200: {"content": {"text/event-stream": {}}}})
async def create_response(
    asked: ResponseBody, request: Request, sessions: Sessions, session: SessionHeader = ""
) -> dict[str, Any] | Response:
    """Answer items; with `session_id` over a live session's data."""
    items = items_of(asked.input, "input")
    earlier = before(sessions.documents, asked)
    session_id = asked.session_id or ("" if session else earlier.session_id)
    who = asker(sessions, session_id, session, asked.model)
    chat = chat_of(earlier.items + items, asked.instructions, asked.tools, asked.tool_choice)
    writing = _Writing(asked, who, items)
    pieces = who.pieces(chat, asked.options())
    if asked.stream:
        return event_stream(request, writing.frames(pieces))
    answer = await whole_answer(request, pieces)
    for piece in answer.pieces:
        writing.output.add(piece)
    return await writing.end(answer.last)


@router.post("/input_tokens")
async def count_input_tokens(asked: ResponseBody, sessions: Sessions) -> dict[str, Any]:
    """How many tokens a model would read of a request, without a session's data."""
    if asked.session_id:
        raise Unsupported("session_id: counted are requests without a session", "session_id")
    items = before(sessions.documents, asked).items + items_of(asked.input, "input")
    chat = chat_of(items, asked.instructions, asked.tools, asked.tool_choice)
    who = asker(sessions, "", "", asked.model)
    count = await sessions.count_prompt(chat, who.reference)
    return {"object": "response.input_tokens", "input_tokens": count}


@router.get("")
async def list_responses(
    sessions: Sessions,
    after: After = "",
    limit: Limit = 20,
    order: Order = "desc",
    model: str | None = None,
) -> dict[str, Any]:
    """The responses that are kept, each with its input. Llama Stack's clients ask so; the
    API of OpenAI has no such list."""
    kept = [
        {**one["response"], "input": one["input"]}
        for _, one in sessions.documents.list(RESPONSE)
        if model in (None, one["response"]["model"])
    ]
    return page(kept, after, limit, order)


@router.get("/{response_id}")
async def retrieve_response(
    response_id: str, sessions: Sessions, stream: bool = False
) -> dict[str, Any]:
    """A response that was kept."""
    if stream:
        raise Unsupported("stream: a response that has ended is read whole", "stream")
    response: Json = kept_response(sessions.documents, response_id)["response"]
    return response


@router.delete("/{response_id}")
async def delete_response(response_id: str, sessions: Sessions) -> dict[str, Any]:
    """Forget a response; what went on from it cannot go on any more."""
    kept_response(sessions.documents, response_id)
    await sessions.documents.delete(RESPONSE, response_id)
    return {"id": response_id, "object": "response", "deleted": True}


@router.post("/{response_id}/cancel", response_class=Response, response_model=None)
async def cancel_response(response_id: str, sessions: Sessions) -> dict[str, Any]:
    """Refused: only what runs in the background could be cancelled so."""
    kept_response(sessions.documents, response_id)
    raise RequestError(
        f"response {response_id!r} has ended; to stop one that is written, close its stream"
    )


@router.get("/{response_id}/input_items")
async def list_input_items(
    response_id: str,
    sessions: Sessions,
    after: After = "",
    limit: Limit = 20,
    order: Order = "desc",
) -> dict[str, Any]:
    """What a kept response was asked with, without what came before."""
    items = kept_response(sessions.documents, response_id)["input"]
    return page(items, after, limit, order)


class _Writing:
    """One response while it is written, and its end."""

    def __init__(self, asked: ResponseBody, who: Asker, items: list[Json]) -> None:
        self._who = who
        self._items = items
        self._response = begun(Head(new_id("resp_"), who.model), asked)
        self._events = 0
        self.output = Output(asked.logprobs, not asked.parallel_tool_calls)

    async def frames(self, pieces: AsyncGenerator[GeneratedPiece]) -> AsyncGenerator[bytes, None]:
        """The events. The first one waits for the first piece, so that an error before it
        is an ordinary HTTP error."""
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    if not self._events:
                        yield self._of("response.created")
                        yield self._of("response.in_progress")
                    for event in self.output.add(piece):
                        yield self._frame(event)
            response = await self.end(piece)
        except FlashfeedError as error:
            if not self._events:
                raise
            if error.status >= 500 and not error.retriable:
                log.error("a response failed half-way", exc_info=error)
            self._response = failed(self._response, error)
            yield self._of("response.failed")
            return
        yield self._of(f"response.{response['status']}")

    async def end(self, last: GeneratedPiece) -> Json:
        """The whole response; kept where the request says so."""
        self._response = ended(self._response, self.output.items, last, int(time.time()))
        documents, session_id = self._who.sessions.documents, self._who.session_id
        await keep_response(documents, self._response, self._items, session_id)
        return self._response

    def _of(self, kind: str) -> bytes:
        return self._frame({"type": kind, "response": self._response})

    def _frame(self, event: Json) -> bytes:
        self._events += 1
        return frame(event | {"sequence_number": self._events - 1}, event["type"])
