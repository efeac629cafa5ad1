"""LayerScale's answers: generate, warm turns, a session's events, its WebSocket."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from flashfeed.agents.service import SessionService
from flashfeed.models.events import FlashReady
from flashfeed.models.views import SessionEvent

from . import layerscale_answer_bodies as bodies
from . import layerscale_answer_shapes as shapes
from . import layerscale_examples as examples
from .answers import event_stream, whole_answer
from .caller import Sessions, service_of
from .errors import error_response
from .layerscale_ask_requests import GenerateBody, WarmBody
from .layerscale_examples import answers, frames
from .layerscale_generate import answer_frames, fast_answer, generate_frames, generated
from .layerscale_socket import serve_socket
from .sse import EncodedOnce, EventStream, frame

SESSION_ID_CHARS_MAX = 512

router = APIRouter(prefix="/sessions/{session_id}", tags=["answers"])
sockets = APIRouter()


@router.post("/generate", response_model=shapes.Generated, responses=answers(examples.GENERATED))
async def generate(
    session_id: str, body: GenerateBody, request: Request, sessions: Sessions
) -> shapes.Generated | Response:
    """Generate over the session's data. With `stream` as server-sent events: frames
    {"text", "token", "pos"}, and a last one with "done": true and the whole result."""
    asked, options = body.asked(), body.options()
    view = sessions.get(session_id)
    quick = await fast_answer(sessions, view, body)
    if quick is not None:
        return event_stream(request, answer_frames(quick)) if body.stream else quick
    pieces = sessions.generate(session_id, asked, options)
    if body.stream:
        return event_stream(request, generate_frames(sessions, view, pieces))
    return generated(sessions, view, await whole_answer(request, pieces))


@router.post("/warm", responses=answers(examples.WARMED))
async def warm(session_id: str, body: WarmBody, sessions: Sessions) -> shapes.WarmedTurn:
    """Decode a conversation over the session's data ahead of its next turn, which then
    goes on from there. 409 while a generation of the session is under way."""
    return bodies.warmed_turn(session_id, await sessions.warm(session_id, body.asked()))


@router.get("/events", response_class=Response, responses=frames(examples.EVENTS))
async def events(session_id: str, request: Request, sessions: Sessions) -> EventStream:
    """The session's events as server-sent events: connected, flash_ready, data_updated.
    To LayerScale's client 0.8 the latest answers come again after `connected`."""
    replay = replays(request.headers.get("user-agent", ""))
    return event_stream(request, _event_frames(sessions, session_id, replay))


def replays(user_agent: str) -> bool:
    """Whether a client expects the latest answers when it connects: LayerScale's own Python
    client from 0.8 on does, 0.3 would take them for new ones."""
    named = re.match(r"layerscale-python/(\d+)\.(\d+)", user_agent)
    return named is not None and (int(named[1]), int(named[2])) >= (0, 8)


def _frame_of(event: SessionEvent) -> bytes:
    name, data = bodies.session_event(event)
    return frame(data, name)


_frames: EncodedOnce[SessionEvent] = EncodedOnce(_frame_of)


async def _event_frames(
    service: SessionService, session_id: str, replay: bool
) -> AsyncGenerator[bytes, None]:
    async with service.events(session_id) as events:
        view, queries = service.get(session_id), service.queries(session_id)
        yield frame(bodies.connected(view, len(queries)), "connected")
        for event in service.standing(session_id) if replay else ():
            if isinstance(event, FlashReady):
                yield _frames(event)
        async for event in events:
            yield _frames(event)


@sockets.websocket("/sessions/{session_id}/ws")
async def session_socket(websocket: WebSocket, session_id: str) -> None:
    """Push and events on one connection (layerscale_socket.py)."""
    if len(session_id) > SESSION_ID_CHARS_MAX or not session_id.isprintable():
        message = f"expected a session id of at most {SESSION_ID_CHARS_MAX} printable characters"
        refusal = error_response(400, "invalid_request_error", message, "session_id")
        await websocket.send_denial_response(refusal)
        return
    closing = websocket.app.state.closing
    await serve_socket(websocket, service_of(websocket), session_id, closing)
