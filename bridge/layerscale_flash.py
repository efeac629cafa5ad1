"""LayerScale's flash queries: questions that are answered again after every update."""

from __future__ import annotations

from fastapi import APIRouter

from . import layerscale_answer_bodies as bodies
from . import layerscale_answer_shapes as shapes
from . import layerscale_examples as examples
from . import layerscale_requests as requests
from .caller import Sessions
from .errors import QueryUnknown
from .layerscale_examples import answers

router = APIRouter(prefix="/sessions/{session_id}/flash", tags=["flash queries"])


@router.post("", responses=answers(examples.FLASH_ADDED))
async def add(
    session_id: str, body: requests.AddFlashBody, sessions: Sessions
) -> shapes.FlashAdded:
    """Add a standing question, 20 a session at most; it is answered at once where there is
    data. 409 where the same one is there already."""
    query = await sessions.add_query(session_id, body.flash_query(""))
    total = len(sessions.queries(session_id))
    return bodies.flash_added(query, sessions.get(session_id).version, total)


@router.get("", responses=answers(examples.FLASH_LIST))
async def list_queries(session_id: str, sessions: Sessions) -> shapes.FlashList:
    """The standing questions with their latest answers."""
    return bodies.flash_list(sessions.queries(session_id), sessions.get(session_id).version)


@router.delete("/{query_id}", responses=answers(examples.FLASH_REMOVED))
async def remove(session_id: str, query_id: int, sessions: Sessions) -> shapes.FlashRemoved:
    """Remove a standing question."""
    if all(view.query.id != query_id for view in sessions.queries(session_id)):
        raise QueryUnknown(f"session {session_id} has no flash query {query_id}")
    return bodies.flash_removed(query_id, await sessions.remove_query(session_id, query_id))
