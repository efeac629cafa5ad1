"""How OpenAI's streams begin, fail and end: data frames without names, then [DONE].

Llama Stack's clients read every frame as JSON, [DONE] too: to them the stream just ends.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from starlette.requests import Request

from flashfeed.models.errors import FlashfeedError

from .answers import event_stream
from .errors import error_body
from .sse import EventStream, frame

log = logging.getLogger(__name__)

DONE: Final = b"data: [DONE]\n\n"
_ENDS_AT_EOF: Final = ("LlamaStackClient/", "AsyncLlamaStackClient/")
_EOF_PATHS: Final = "/v1/openai/v1/"


def openai_stream(request: Request, frames: AsyncGenerator[bytes]) -> EventStream:
    """Frames as a response; an error after the first frame becomes a frame of its own."""
    return event_stream(request, _ended(frames, _end(request)))


async def _ended(frames: AsyncGenerator[bytes], end: bytes) -> AsyncGenerator[bytes, None]:
    started = False
    try:
        async with aclosing(frames):
            async for one in frames:
                started = True
                yield one
    except FlashfeedError as error:
        if not started:
            raise
        if error.status >= 500 and not error.retriable:
            log.error("a stream failed half-way", exc_info=error)
        yield frame(error_body(error.status, error.code, str(error)))
    if end:
        yield end


def _end(request: Request) -> bytes:
    agent = request.headers.get("user-agent", "")
    at_eof = agent.startswith(_ENDS_AT_EOF) or request.url.path.startswith(_EOF_PATHS)
    return b"" if at_eof else DONE
