"""LayerScale's sessions: create, list, look at, extend, end."""

from __future__ import annotations

import logging

from fastapi import APIRouter

from flashfeed.agents.service import SessionService
from flashfeed.models.errors import FlashfeedError
from flashfeed.models.views import SessionView

from . import layerscale_bodies as bodies
from . import layerscale_examples as examples
from . import layerscale_requests as requests
from . import layerscale_shapes as shapes
from .caller import Sessions
from .layerscale_examples import answers

log = logging.getLogger(__name__)

router = APIRouter(prefix="/sessions", tags=["sessions"])


@router.post("/init", responses=answers(examples.CREATED))
async def create(body: requests.CreateBody, sessions: Sessions) -> shapes.Created:
    """A new session of one type of records, with a system prompt and standing questions."""
    view = await sessions.create(body.session_spec())
    if body.mark_prefix:
        view = await _mark_new(sessions, view)
    return bodies.created(view)


async def _mark_new(service: SessionService, view: SessionView) -> SessionView:
    """Mark a new session's prefix. Where that fails the session goes again: the client
    will repeat the whole create."""
    try:
        return await service.mark_prefix(view.session_id)
    except FlashfeedError:
        try:
            await service.delete(view.session_id)
        except FlashfeedError as error:
            where = {"session": view.session_id}
            log.warning("session %s stays, half created: %s", view.session_id, error, extra=where)
        raise


@router.post("", responses=answers(examples.SESSION))
async def create_text(body: requests.CreateTextBody, sessions: Sessions) -> shapes.Session:
    """A new session of texts. 409 where one of that id is there already."""
    return bodies.session(await sessions.create(body.session_spec(), body.id))


@router.get("", responses=answers(examples.SESSIONS))
async def list_sessions(sessions: Sessions) -> shapes.SessionList:
    """Every session that the caller may use, the oldest first."""
    return bodies.session_list(await sessions.all_sessions(), sessions.sessions_max)


@router.get("/{session_id}", responses=answers(examples.SESSION))
async def get(session_id: str, sessions: Sessions) -> shapes.Session:
    """A session: what it holds, and what waits to be applied to it."""
    return bodies.session(sessions.get(session_id))


@router.get("/{session_id}/state", responses=answers(examples.STATE))
async def state(session_id: str, sessions: Sessions) -> shapes.State:
    """A session with its context as text."""
    return bodies.state(await sessions.inspect(session_id))


@router.delete("/{session_id}", responses=answers(examples.DELETED))
async def delete(session_id: str, sessions: Sessions) -> shapes.Deleted:
    """End a session; what is generated of it and who listens to it ends with it."""
    await sessions.delete(session_id)
    return bodies.deleted(session_id)


@router.post("/{session_id}/append", responses=answers(examples.APPENDED))
async def append(session_id: str, body: requests.AppendBody, sessions: Sessions) -> shapes.Appended:
    """Add text to the context; answered when it is there."""
    return bodies.appended(await sessions.append(session_id, body.text))


@router.post("/{session_id}/mark_prefix", responses=answers(examples.PREFIX_MARKED))
async def mark_prefix(
    session_id: str, sessions: Sessions, body: requests.MarkPrefixBody | None = None
) -> shapes.PrefixMarked:
    """Make what the session holds now its prefix, which never slides out of the window."""
    return bodies.prefix_marked(await sessions.mark_prefix(session_id))
