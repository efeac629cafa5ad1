"""Llama Stack's agents and their sessions: /v1/agents, and 0.0.35's /agents/...

An agent is its configuration. A session of it is a session of flashfeed with the agent's
instructions as its prompt: what is pushed to it, by whatever dialect or feed, is what
the agent knows. Turns: llama_stack_turn_routes.py.
"""

from __future__ import annotations

import datetime
import uuid
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic import Field

from flashfeed.agents.service import SessionService
from flashfeed.models.session import SessionSpec, WindowSpec

from . import llama_stack_agent_requests as requests
from . import llama_stack_store as store
from .caller import Sessions
from .llama_stack_words import Words

PAGE_MAX: Final = 1000

router = APIRouter(tags=["llama stack agents"])

StartIndex = Annotated[int, Query(ge=0)]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]
TurnIds = Annotated[list[Annotated[str, Field(max_length=200)]] | None, Query(max_length=PAGE_MAX)]


def now_iso() -> str:
    """The time as clients read it."""
    return datetime.datetime.now(datetime.UTC).isoformat()


@router.post("/v1/agents")
@router.post("/agents/create")
async def create_agent(body: requests.AgentBody, sessions: Sessions) -> dict[str, str]:
    """A new agent. What it is asked for and cannot be is refused here, not in its turns."""
    body.agent_config.check()
    agent_id = body.agent_id or str(uuid.uuid4())
    config = body.agent_config.model_dump(exclude_unset=True)
    await store.add_agent(sessions, agent_id, config, now_iso())
    return {"agent_id": agent_id}


@router.get("/v1/agents")
async def list_agents(
    sessions: Sessions, start_index: StartIndex = 0, limit: Limit = PAGE_MAX
) -> dict[str, Any]:
    """Every agent, oldest first."""
    return _page(store.agents(sessions), start_index, limit, "/v1/agents")


@router.get("/v1/agents/{agent_id}")
async def retrieve_agent(agent_id: str, sessions: Sessions) -> dict[str, Any]:
    """An agent's configuration."""
    return store.agent(sessions, agent_id)


@router.delete("/v1/agents/{agent_id}", status_code=204)
async def delete_agent(agent_id: str, sessions: Sessions) -> None:
    """End an agent with its sessions and turns."""
    await store.delete_agent(sessions, agent_id)


@router.post("/agents/delete", response_class=Response)
async def delete_agent_named(body: requests.AgentIdBody, sessions: Sessions) -> Response:
    """End an agent, as 0.0.35 asks for it."""
    await store.delete_agent(sessions, body.agent_id)
    return Response()


@router.post("/v1/agents/{agent_id}/session")
@router.post("/v1alpha/agents/{agent_id}/session", include_in_schema=False)
async def create_session(
    agent_id: str, body: requests.SessionBody, sessions: Sessions
) -> dict[str, str]:
    """A new session of an agent."""
    config = store.agent_config(sessions, agent_id)
    spec = SessionSpec(
        type=body.type,
        prompt=config.instructions,
        window=WindowSpec("exact", body.window_size) if body.window_size else WindowSpec(),
        model="" if config.model == sessions.model_id else config.model,
        overflow="drop_oldest",
    )
    view = await sessions.create(spec, body.session_id)
    await store.add_session(sessions, agent_id, view.session_id, body.session_name, now_iso())
    return {"session_id": view.session_id}


@router.post("/agents/session/create")
async def create_session_named(body: requests.OldSessionBody, sessions: Sessions) -> dict[str, str]:
    """A new session, as 0.0.35 asks for it."""
    return await create_session(body.agent_id, body, sessions)


@router.get("/v1/agents/{agent_id}/session/{session_id}")
async def retrieve_session(
    agent_id: str, session_id: str, sessions: Sessions, turn_ids: TurnIds = None
) -> dict[str, Any]:
    """A session with its turns, or those that are named."""
    # Clients send a list with commas, or the name again for each.
    wanted = [one for part in turn_ids or () for one in part.split(",") if one]
    return _session(sessions, agent_id, session_id, wanted)


@router.get("/agents/session/get")
@router.post("/agents/session/get")
async def retrieve_session_named(
    agent_id: str, session_id: str, sessions: Sessions, body: requests.TurnIdsBody | None = None
) -> dict[str, Any]:
    """A session with its turns, as 0.0.35 asks for it."""
    return _session(sessions, agent_id, session_id, (body and body.turn_ids) or [])


@router.get("/v1/agents/{agent_id}/sessions")
async def list_sessions(
    agent_id: str, sessions: Sessions, start_index: StartIndex = 0, limit: Limit = PAGE_MAX
) -> dict[str, Any]:
    """An agent's sessions with their turns, oldest first."""
    store.agent(sessions, agent_id)
    listed = await store.sessions(sessions, agent_id)
    page = _page(listed, start_index, limit, f"/v1/agents/{agent_id}/sessions")
    page["data"] = [_with_turns(sessions, found, []) for found in page["data"]]
    return page


@router.delete("/v1/agents/{agent_id}/session/{session_id}", status_code=204)
async def delete_session(agent_id: str, session_id: str, sessions: Sessions) -> None:
    """End a session with its turns."""
    await store.delete_session(sessions, agent_id, session_id)


@router.post("/agents/session/delete", response_class=Response)
async def delete_session_named(body: requests.SessionIdBody, sessions: Sessions) -> Response:
    """End a session, as 0.0.35 asks for it."""
    await delete_session(body.agent_id, body.session_id, sessions)
    return Response()


def _session(service: SessionService, agent_id: str, session_id: str, wanted: list[str]) -> Words:
    return _with_turns(service, store.session(service, agent_id, session_id), wanted)


def _with_turns(service: SessionService, found: Words, wanted: list[str]) -> Words:
    turns = [record["turn"] for record in store.turns(service, found["session_id"])]
    return found | {"turns": [turn for turn in turns if not wanted or turn["turn_id"] in wanted]}


def _page(listed: list[Words], start_index: int, limit: int, url: str) -> dict[str, Any]:
    end = start_index + limit
    return {"data": listed[start_index:end], "has_more": end < len(listed), "url": url}
