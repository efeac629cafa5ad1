"""flashfeed's own event stream: what the output topics carry, as server-sent events.

CloudEvents in the manner of the topics: `id:` is ce_id, `event:` is ce_type, `data:` is
the Kafka value. flashfeed.client reads it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from flashfeed.agents.service import SessionService
from flashfeed.models.events import event_identity, event_type
from flashfeed.models.views import SessionEvent

from .answers import event_stream
from .caller import Sessions
from .sse import EncodedOnce, EventStream, frame

router = APIRouter(prefix="/flashfeed/v1", tags=["events"])

_frames: EncodedOnce[SessionEvent] = EncodedOnce(
    lambda event: frame(msgspec.to_builtins(event), event_type(event), event_identity(event))
)


@router.get(
    "/sessions/{session_id}/events",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def session_events(session_id: str, request: Request, sessions: Sessions) -> EventStream:
    """A session's events: `connected` with the number of events of the version that stands,
    these events as they were published, then every event from now on."""
    return event_stream(request, _event_frames(sessions, session_id))


async def _event_frames(service: SessionService, session_id: str) -> AsyncGenerator[bytes, None]:
    async with service.events(session_id) as events:
        standing = service.standing(session_id)
        hello = {"session_id": session_id, "standing": len(standing)}
        yield frame(hello, "connected")
        for event in standing:
            yield _frames(event)
        async for event in events:
            yield _frames(event)
