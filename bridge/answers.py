"""A generation as a route needs it: whole, or piece by piece; ended when its client goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from flashfeed.models.chat import ToolCall
from flashfeed.models.errors import Unavailable
from flashfeed.models.generation import Finish, GeneratedPiece

from .sse import EventStream, disconnected, run_until

CLIENT_CLOSED_REQUEST = 499

T = TypeVar("T")


@dataclass(frozen=True)
class WholeAnswer:
    """A generation that has ended."""

    text: str
    finish_reason: Finish
    tool_calls: tuple[ToolCall, ...]
    pieces: tuple[GeneratedPiece, ...]

    @classmethod
    def of(cls, pieces: Sequence[GeneratedPiece]) -> WholeAnswer:
        """The pieces of a generation to its end."""
        assert pieces, "a generation has a last piece"
        return cls(
            text="".join(piece.text for piece in pieces),
            finish_reason=pieces[-1].finish_reason or "stop",
            tool_calls=tuple(call for piece in pieces for call in piece.tool_calls),
            pieces=tuple(pieces),
        )

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
    return WholeAnswer.of(read)


async def whole_answer(request: Request, pieces: AsyncGenerator[GeneratedPiece]) -> WholeAnswer:
    """The whole generation for a client that waits for it; stopped as soon as it is gone."""
    return await until_gone(request, read_whole(pieces))


async def until_gone(request: Request, main: Coroutine[Any, Any, T]) -> T:
    """What a client waits for; cancelled as soon as it is gone or the server stops."""
    closing = closing_of(request)
    result = await run_until(main, disconnected(request.receive), closing.wait())
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
