"""A generation as a route needs it: whole, or piece by piece; ended when its client goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from flashfeed.models.chat import ToolCall
from flashfeed.models.errors import Unavailable
from flashfeed.models.generation import Finish, GeneratedPiece

from .sse import EventStream, disconnected, run_until

CLIENT_CLOSED_REQUEST = 499


@dataclass(frozen=True)
class WholeAnswer:
    """A generation that has ended."""

    text: str
    finish_reason: Finish
    tool_calls: tuple[ToolCall, ...]
    pieces: tuple[GeneratedPiece, ...]

    @property
    def last(self) -> GeneratedPiece:
        """The last piece, which has the reason and all the tokens."""
        return self.pieces[-1]


async def read_whole(pieces: AsyncGenerator[GeneratedPiece]) -> WholeAnswer:
    """Every piece of a generation."""
    read: list[GeneratedPiece] = []
    async with aclosing(pieces):
        async for piece in pieces:
            read.append(piece)
    assert read, "a generation has a last piece"
    return WholeAnswer(
        text="".join(piece.text for piece in read),
        finish_reason=read[-1].finish_reason or "stop",
        tool_calls=tuple(call for piece in read for call in piece.tool_calls),
        pieces=tuple(read),
    )


async def whole_answer(request: Request, pieces: AsyncGenerator[GeneratedPiece]) -> WholeAnswer:
    """The whole generation for a client that waits for it; stopped as soon as it is gone."""
    closing = closing_of(request)
    result = await run_until(read_whole(pieces), disconnected(request.receive), closing.wait())
    if result is not None:
        return result
    if closing.is_set():
        raise Unavailable("the worker is stopping; try again")
    # Nobody reads this: the client is gone.
    raise HTTPException(CLIENT_CLOSED_REQUEST)


def event_stream(request: Request, frames: AsyncGenerator[bytes, None]) -> EventStream:
    """Frames as the response to a request."""
    return EventStream(frames, request.app.state.heartbeat_s, closing_of(request))


def closing_of(connection: HTTPConnection) -> asyncio.Event:
    """The event that ends everything when the server stops."""
    closing: asyncio.Event = connection.app.state.closing
    return closing
