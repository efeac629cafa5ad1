"""LayerScale's data: push records and texts, a session's queue, statistics."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request

from flashfeed.models.errors import FlashfeedError, RequestError, Unavailable, WriteUncertain

from . import layerscale_bodies as bodies
from . import layerscale_examples as examples
from . import layerscale_requests as requests
from . import layerscale_shapes as shapes
from .caller import Sessions
from .errors import InvalidField
from .layerscale_examples import answers
from .stats import StreamStats, stream_stats

log = logging.getLogger(__name__)

router = APIRouter(prefix="/sessions/{session_id}", tags=["data"])


@router.post(
    "/stream/push",
    openapi_extra=requests.push_openapi(requests.PUSH_EXAMPLE),
    responses=answers(examples.PUSHED),
)
async def push_records(session_id: str, request: Request, sessions: Sessions) -> shapes.Pushed:
    """Write records (or texts) for a session; answered when Kafka has them.

    429 and 503 say that nothing was written.
    """
    return await _push(session_id, request, sessions)


@router.post(
    "/push",
    openapi_extra=requests.push_openapi(requests.TEXTS_EXAMPLE),
    responses=answers(examples.PUSHED),
)
async def push_texts(session_id: str, request: Request, sessions: Sessions) -> shapes.Pushed:
    """Write texts (or records) for a session, one at least; each becomes an item of its
    window, in their order. Answered when Kafka has them.

    429 and 503 say that nothing was written.
    """
    return await _push(session_id, request, sessions, at_least=1)


async def _push(
    session_id: str, request: Request, sessions: Sessions, at_least: int = 0
) -> shapes.Pushed:
    key = _idempotency_key(request)
    _expect_json(request)
    data = requests.read_push(await request.body())
    if len(data) < at_least:
        raise InvalidField("data: expected one text at least, got none", "data")
    try:
        ack = await sessions.push(session_id, data, idempotency_key=key)
    except Exception as error:
        raise _push_failure(error, key) from error
    return bodies.pushed(ack)


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
    if len(key) > requests.IDEMPOTENCY_KEY_CHARS_MAX or not key.isprintable():
        message = (
            "expected an Idempotency-Key of at most "
            f"{requests.IDEMPOTENCY_KEY_CHARS_MAX} characters"
        )
        raise InvalidField(message, "Idempotency-Key")
    return key


def _expect_json(request: Request) -> None:
    """Refuse other content types: a form or plain text is what a foreign page can send."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(f"expected content-type application/json, got {kind or 'none'}")


@router.get("/stream/status", responses=answers(examples.STREAM_STATUS))
async def stream_status(session_id: str, sessions: Sessions) -> shapes.StreamStatus:
    """A session's queue and counters."""
    return bodies.stream_status(sessions.get(session_id))


@router.get("/stats", responses=answers(examples.STATS))
async def stats(session_id: str, sessions: Sessions) -> StreamStats:
    """Statistics over the records in the session's window, one shape a type; texts do not
    count."""
    view = sessions.get(session_id)
    return stream_stats(view.spec.type, sessions.items(session_id))
