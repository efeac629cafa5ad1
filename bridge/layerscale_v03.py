"""The LayerScale 0.3 dialect: health, models and everything under /v1/sessions.

Each route turns a request into one call of the session service and the result into
the client's words. Requests: layerscale_v03_requests.py; answers:
layerscale_v03_bodies.py; the WebSocket: layerscale_v03_socket.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket

from flashfeed.agents.service import SessionService
from flashfeed.models.errors import FlashfeedError, RequestError, Unavailable, WriteUncertain
from flashfeed.models.views import SessionView

from . import layerscale_v03_bodies as bodies
from . import layerscale_v03_requests as requests
from . import layerscale_v03_shapes as shapes
from .errors import InvalidField, QueryUnknown
from .layerscale_v03_generate import answer_frames, fresh_answer, generate, generate_frames
from .layerscale_v03_socket import serve_socket
from .sse import EventStream, disconnected, frame, run_until
from .stats import StreamStats, stream_stats

log = logging.getLogger(__name__)

IDEMPOTENCY_KEY_CHARS_MAX = 200
CLIENT_CLOSED_REQUEST = 499


def layerscale_v03(
    service: SessionService, heartbeat_s: float, closing: asyncio.Event
) -> APIRouter:
    """The dialect's routes. `closing` ends the event streams when the server stops."""
    # The gate checks keys, for WebSockets too; this only describes them in OpenAPI.
    described = HTTPBearer(auto_error=False, description="needed where API keys are set")
    router = APIRouter(prefix="/v1")
    http = APIRouter(dependencies=[Depends(described)])
    _add_server_routes(http, service)
    _add_session_routes(http, service)
    _add_data_routes(http, service)
    _add_flash_routes(http, service)
    _add_answer_routes(http, service, heartbeat_s, closing)
    router.include_router(http)

    @router.websocket("/sessions/{session_id}/ws")
    async def session_socket(websocket: WebSocket, session_id: str) -> None:
        await serve_socket(websocket, service, session_id, closing)

    return router


def health_response(service: SessionService) -> Response:
    """200 where the worker serves its sessions, else 503."""
    if service.ready:
        return JSONResponse({"status": "ok", "model": service.model_id})
    return JSONResponse({"status": "unavailable"}, 503, {"Retry-After": "1"})


def _add_server_routes(http: APIRouter, service: SessionService) -> None:
    started_s = int(time.time())

    @http.get("/health", tags=["server"], responses={503: {"description": "not ready"}})
    async def health() -> Response:
        """Whether the worker owns its partitions and has rebuilt their sessions."""
        return health_response(service)

    @http.get("/models", tags=["server"])
    async def models() -> shapes.ModelList:
        """The model that the worker runs."""
        model: shapes.Model = {
            "id": service.model_id,
            "object": "model",
            "created": started_s,
            "owned_by": "flashfeed",
        }
        return {"object": "list", "data": [model]}


def _add_session_routes(http: APIRouter, service: SessionService) -> None:
    @http.post("/sessions/init", tags=["sessions"])
    async def create(body: requests.CreateBody) -> shapes.Created:
        """A new session, with a system prompt and standing questions."""
        view = await service.create(body.session_spec())
        if body.mark_prefix:
            view = await _mark_new(service, view)
        return bodies.created(view)

    @http.get("/sessions", tags=["sessions"])
    async def sessions() -> shapes.SessionList:
        """Every session, of this worker and all others."""
        views = await service.all_sessions()
        return {
            "sessions": [bodies.summary(view) for view in views],
            "count": len(views),
            "max_sessions": service.sessions_max,
        }

    @http.get("/sessions/{session_id}/state", tags=["sessions"])
    async def state(session_id: str) -> shapes.State:
        """A session with its context as text."""
        return bodies.state(await service.inspect(session_id))

    @http.delete("/sessions/{session_id}", tags=["sessions"])
    async def delete(session_id: str) -> shapes.Deleted:
        """End a session."""
        await service.delete(session_id)
        return {"success": True, "session_id": session_id}

    @http.post("/sessions/{session_id}/append", tags=["sessions"])
    async def append(session_id: str, body: requests.AppendBody) -> shapes.Appended:
        """Add text to the context."""
        return bodies.appended(await service.append(session_id, body.text))

    @http.post("/sessions/{session_id}/mark_prefix", tags=["sessions"])
    async def mark_prefix(
        session_id: str, body: requests.MarkPrefixBody | None = None
    ) -> shapes.PrefixMarked:
        """Make what the session holds now its prefix."""
        return bodies.prefix_marked(await service.mark_prefix(session_id))


async def _mark_new(service: SessionService, view: SessionView) -> SessionView:
    """Mark a new session's prefix. Where that fails the session goes again: the client
    will repeat the whole create."""
    try:
        return await service.mark_prefix(view.session_id)
    except FlashfeedError:
        try:
            await service.delete(view.session_id)
        except FlashfeedError as error:
            log.warning("session %s stays, half created: %s", view.session_id, error)
        raise


def _add_data_routes(http: APIRouter, service: SessionService) -> None:
    @http.post(
        "/sessions/{session_id}/stream/push", tags=["data"], openapi_extra=requests.PUSH_OPENAPI
    )
    async def push(session_id: str, request: Request) -> shapes.Pushed:
        """Write records for a session; answered when Kafka has them.

        429 and 503 say that nothing was written.
        """
        key = _idempotency_key(request)
        _expect_json(request)
        records = requests.read_push(await request.body())
        try:
            ack = await service.push(session_id, records, idempotency_key=key)
        except Exception as error:
            raise _push_failure(error, key) from error
        return bodies.pushed(ack)

    @http.get("/sessions/{session_id}/stream/status", tags=["data"])
    async def stream_status(session_id: str) -> shapes.StreamStatus:
        """A session's queue and counters."""
        return bodies.stream_status(service.get(session_id))

    @http.get("/sessions/{session_id}/stats", tags=["data"])
    async def stats(session_id: str) -> StreamStats:
        """Statistics over the records in the context."""
        view = service.get(session_id)
        return stream_stats(view.spec.type, service.items(session_id))


def _push_failure(error: Exception, key: str) -> Exception:
    """What a failed push is to its client.

    A refusal is passed on: it is of before the write. Anything else may have been
    written; with a key the client may well repeat it (500), without one it must not.
    """
    refused = isinstance(error, FlashfeedError) and error.status < 500
    if refused or isinstance(error, Unavailable) or key:
        return error
    log.error("a push failed", exc_info=error)
    return WriteUncertain(
        "the push failed and may have been written all the same; look at the stream's "
        "status before pushing again, and send an Idempotency-Key to make repeats safe"
    )


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if len(key) > IDEMPOTENCY_KEY_CHARS_MAX or not key.isprintable():
        message = f"expected an Idempotency-Key of at most {IDEMPOTENCY_KEY_CHARS_MAX} characters"
        raise InvalidField(message, "Idempotency-Key")
    return key


def _expect_json(request: Request) -> None:
    """Refuse other content types: a form or plain text is what a foreign page can send."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(f"expected content-type application/json, got {kind or 'none'}")


def _add_flash_routes(http: APIRouter, service: SessionService) -> None:
    @http.post("/sessions/{session_id}/flash", tags=["flash queries"])
    async def add_flash(session_id: str, body: requests.FlashBody) -> shapes.FlashAdded:
        """Add a standing question; it is answered at once."""
        view = await service.add_query(session_id, body.flash_query(""))
        total = len(service.queries(session_id))
        return {**bodies.flash_entry(view), "total_flash_queries": total}

    @http.get("/sessions/{session_id}/flash", tags=["flash queries"])
    async def list_flash(session_id: str) -> shapes.FlashList:
        """The standing questions with their latest answers."""
        entries = [bodies.flash_entry(view) for view in service.queries(session_id)]
        version = service.get(session_id).version
        return {
            "flash_queries": entries,
            "count": len(entries),
            "current_data_version": version,
        }

    @http.delete("/sessions/{session_id}/flash/{query_id}", tags=["flash queries"])
    async def remove_flash(session_id: str, query_id: int) -> shapes.FlashRemoved:
        """Remove a standing question."""
        if all(view.query.id != query_id for view in service.queries(session_id)):
            raise QueryUnknown(f"session {session_id} has no flash query {query_id}")
        return {"success": True, "remaining": await service.remove_query(session_id, query_id)}


def _add_answer_routes(
    http: APIRouter, service: SessionService, heartbeat_s: float, closing: asyncio.Event
) -> None:
    @http.post("/sessions/{session_id}/generate", tags=["answers"], response_model=shapes.Generated)
    async def generate_text(
        session_id: str, body: requests.GenerateBody, request: Request
    ) -> shapes.Generated | Response:
        """Generate over the session's data; with `stream` as server-sent events."""
        options = body.options()
        if body.fast_answer:
            answer = fresh_answer(service, session_id, body.prompt)
            if answer is not None and body.stream:
                return EventStream(answer_frames(answer), heartbeat_s, closing)
            if answer is not None:
                return answer
        if body.stream:
            frames = generate_frames(service, session_id, body.prompt, options)
            return EventStream(frames, heartbeat_s, closing)
        whole = generate(service, session_id, body.prompt, options)
        result = await run_until(whole, disconnected(request.receive), closing.wait())
        if result is not None:
            return result
        if closing.is_set():
            raise Unavailable("the worker is stopping; try again")
        # Nobody reads this: the client is gone.
        raise HTTPException(CLIENT_CLOSED_REQUEST)

    @http.get(
        "/sessions/{session_id}/events",
        tags=["answers"],
        response_class=Response,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def events(session_id: str) -> EventStream:
        """The session's events as server-sent events: connected, flash_ready, data_updated."""
        return EventStream(_event_frames(service, session_id), heartbeat_s, closing)


async def _event_frames(service: SessionService, session_id: str) -> AsyncGenerator[bytes, None]:
    async with service.events(session_id) as events:
        view = service.get(session_id)
        n_queries = len(service.queries(session_id))
        yield frame(bodies.connected(view, n_queries), "connected")
        async for event in events:
            name, data = bodies.session_event(event)
            yield frame(data, name)
