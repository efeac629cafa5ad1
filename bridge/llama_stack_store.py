"""What is kept of agents and their sessions: three kinds of documents.

An agent's session is a session of flashfeed: what it knows is there, and here is only
what Llama Stack calls it, and the turns. A session that is gone there is gone here, also
where another dialect deleted it.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

from flashfeed.agents.service import SessionService
from flashfeed.models.errors import FlashfeedError, SessionUnknown

from .llama_stack_requests import AgentConfig
from .llama_stack_words import Words

AGENTS: Final = "llama_stack.agents"
SESSIONS: Final = "llama_stack.sessions"
TURNS: Final = "llama_stack.turns"


class AgentUnknown(FlashfeedError):
    """No such agent: never created, deleted, or so long unused that it was forgotten."""

    status = 404
    code = "agent_not_found"


class AgentExists(FlashfeedError):
    """An agent of that id is there already."""

    status = 409
    code = "already_exists"


async def add_agent(service: SessionService, agent_id: str, config: Words, now: str) -> None:
    """Keep a new agent; raises AgentExists."""
    if service.documents.get(AGENTS, agent_id) is not None:
        raise AgentExists(f"agent {agent_id} exists already; delete it first")
    await service.documents.put(AGENTS, agent_id, {"agent_config": config, "created_at": now})


def agent(service: SessionService, agent_id: str) -> Words:
    """An agent as clients read it; raises AgentUnknown."""
    kept = service.documents.get(AGENTS, agent_id)
    if kept is None:
        raise AgentUnknown(f"no agent {agent_id}; create it first")
    return {"agent_id": agent_id, **kept}


def agent_config(service: SessionService, agent_id: str) -> AgentConfig:
    """What an agent is; raises AgentUnknown."""
    return AgentConfig.model_validate(agent(service, agent_id)["agent_config"])


def agents(service: SessionService) -> list[Words]:
    """Every agent, oldest first."""
    return [{"agent_id": key, **kept} for key, kept in service.documents.list(AGENTS)]


async def delete_agent(service: SessionService, agent_id: str) -> None:
    """End an agent and its sessions; raises AgentUnknown."""
    agent(service, agent_id)
    for session_id in session_ids(service, agent_id):
        await delete_session(service, agent_id, session_id)
    await service.documents.delete(AGENTS, agent_id)


async def add_session(
    service: SessionService, agent_id: str, session_id: str, name: str, now: str
) -> None:
    """Keep what a new session of an agent is called."""
    created_ms = service.get(session_id).created_ms
    kept = {"agent_id": agent_id, "session_name": name, "started_at": now, "created_ms": created_ms}
    await service.documents.delete(TURNS, session_id)
    await service.documents.put(SESSIONS, session_id, kept)


def session(service: SessionService, agent_id: str, session_id: str) -> Words:
    """A session as clients read it, without its turns; raises SessionUnknown."""
    kept = _kept_session(service, agent_id, session_id)
    _expect_same(service, session_id, kept)
    return _words(session_id, kept)


async def sessions(service: SessionService, agent_id: str) -> list[Words]:
    """An agent's sessions, whichever worker has them, oldest first and without their turns;
    those that another dialect deleted are left out."""
    created_ms = {view.session_id: view.created_ms for view in await service.all_sessions()}
    listed = service.documents.list(SESSIONS)
    return [
        _words(session_id, kept)
        for session_id, kept in listed
        if kept["agent_id"] == agent_id and created_ms.get(session_id) == kept["created_ms"]
    ]


def session_ids(service: SessionService, agent_id: str) -> list[str]:
    """The sessions of an agent, oldest first."""
    listed = service.documents.list(SESSIONS)
    return [session_id for session_id, kept in listed if kept["agent_id"] == agent_id]


async def delete_session(service: SessionService, agent_id: str, session_id: str) -> None:
    """End a session and forget its turns. One that is gone already is only forgotten.

    Raises SessionUnknown where the agent never had it.
    """
    kept = _kept_session(service, agent_id, session_id)
    with contextlib.suppress(SessionUnknown):
        _expect_same(service, session_id, kept)
        await service.delete(session_id)
    await service.documents.delete(TURNS, session_id)
    await service.documents.delete(SESSIONS, session_id)


def turns(service: SessionService, session_id: str) -> list[Words]:
    """The records of a session's turns (llama_stack_turns.py), oldest first."""
    kept: dict[str, Any] = service.documents.get(TURNS, session_id) or {"turns": []}
    records: list[Words] = kept["turns"]
    return records


async def put_turns(service: SessionService, session_id: str, records: list[Words]) -> None:
    """Keep a session's turns; RequestError where they are too large to keep."""
    await service.documents.put(TURNS, session_id, {"turns": records})


def _kept_session(service: SessionService, agent_id: str, session_id: str) -> Words:
    kept = service.documents.get(SESSIONS, session_id)
    if kept is None or kept["agent_id"] != agent_id:
        raise SessionUnknown(f"agent {agent_id} has no session {session_id}")
    return kept


def _words(session_id: str, kept: Words) -> Words:
    name, started_at = kept["session_name"], kept["started_at"]
    return {"session_id": session_id, "session_name": name, "started_at": started_at}


def _expect_same(service: SessionService, session_id: str, kept: Words) -> None:
    """Of the same id another session may have been made since: that is not the agent's."""
    if service.get(session_id).created_ms != kept["created_ms"]:
        raise SessionUnknown(f"session {session_id} is another now; the agent's was deleted")
