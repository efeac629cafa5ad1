"""Turns of a Llama Stack agent: asked, streamed, resumed after its tools, and read again.

A turn is a generation over the agent's session, whose data the model reads before the
conversation. Only a turn that has ended is kept: where the client leaves before that, or
the model fails, it is as if it had not been asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from flashfeed.agents.service import SessionService
from flashfeed.models.errors import FlashfeedError

from . import llama_stack_agent_requests as requests
from . import llama_stack_store as store
from . import llama_stack_turns as turns
from .answers import event_stream, until_gone
from .caller import Sessions, tenant_of
from .errors import error_body
from .llama_stack_agents import now_iso
from .llama_stack_requests import choice_of, tool_choice
from .llama_stack_words import Words, expect_none
from .openai_messages import chat_request
from .sse import frame

TURN: Final = "/v1/agents/{agent_id}/session/{session_id}/turn"
STREAMED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/event-stream": {}, "application/json": {}}}
}

router = APIRouter(tags=["llama stack turns"])

Add = Callable[[list[Words]], Words]
"""Puts a new turn at the end of a session's records, or resumes one; gives its record."""


@router.post(TURN, responses=STREAMED, response_model=None)
async def create_turn(
    agent_id: str, session_id: str, body: requests.TurnBody, request: Request, sessions: Sessions
) -> dict[str, Any] | Response:
    """Ask an agent; with `stream` as server-sent events."""
    config = _agent_of(sessions, agent_id, session_id)
    events = _answer(request, sessions, session_id, config, _add(session_id, body), "0.1")
    if body.stream:
        return event_stream(request, _frames(events))
    turn: Words = (await until_gone(request, _last(events)))["turn"]
    return turn


@router.post("/agents/turn/create", response_model=None)
async def create_turn_named(
    body: requests.OldTurnBody, request: Request, sessions: Sessions
) -> dict[str, Any] | Response:
    """Ask an agent, as 0.0.35 does: without `stream` the answer is the last event."""
    config = _agent_of(sessions, body.agent_id, body.session_id)
    add = _add(body.session_id, body)
    events = _answer(request, sessions, body.session_id, config, add, "0.0.35")
    if body.stream:
        return event_stream(request, _frames(events))
    return _chunk(await until_gone(request, _last(events)))


@router.post(TURN + "/{turn_id}/resume", responses=STREAMED, response_model=None)
async def resume_turn(
    agent_id: str,
    session_id: str,
    turn_id: str,
    body: requests.ResumeBody,
    request: Request,
    sessions: Sessions,
) -> dict[str, Any] | Response:
    """Go on with a turn that awaits what the client's tools give."""
    config = _agent_of(sessions, agent_id, session_id)
    turns.find_turn(store.turns(sessions, session_id), turn_id)

    def add(records: list[Words]) -> Words:
        record = turns.find_turn(records[-1:], turn_id)
        turns.resume(record, body.tool_responses, now_iso())
        return record

    events = _answer(request, sessions, session_id, config, add, "0.1")
    if body.stream:
        return event_stream(request, _frames(events))
    turn: Words = (await until_gone(request, _last(events)))["turn"]
    return turn


@router.get(TURN + "/{turn_id}")
async def retrieve_turn(
    agent_id: str, session_id: str, turn_id: str, sessions: Sessions
) -> dict[str, Any]:
    """A turn that has ended, or awaits input."""
    return _turn(sessions, agent_id, session_id, turn_id)["turn"]  # type: ignore[no-any-return]


@router.get("/agents/turn/get")
async def retrieve_turn_named(agent_id: str, turn_id: str, sessions: Sessions) -> dict[str, Any]:
    """A turn, as 0.0.35 asks for it."""
    return await retrieve_turn(agent_id, turns.session_of_turn(turn_id), turn_id, sessions)


@router.get(TURN + "/{turn_id}/step/{step_id}")
async def retrieve_step(
    agent_id: str, session_id: str, turn_id: str, step_id: str, sessions: Sessions
) -> dict[str, Any]:
    """A step of a turn."""
    return {"step": turns.find_step(_turn(sessions, agent_id, session_id, turn_id), step_id)}


@router.get("/agents/step/get")
async def retrieve_step_named(
    agent_id: str, turn_id: str, step_id: str, sessions: Sessions
) -> dict[str, Any]:
    """A step of a turn, as 0.0.35 asks for it."""
    session_id = turns.session_of_turn(turn_id)
    return await retrieve_step(agent_id, session_id, turn_id, step_id, sessions)


def _agent_of(service: SessionService, agent_id: str, session_id: str) -> requests.AgentConfig:
    store.session(service, agent_id, session_id)
    return store.agent_config(service, agent_id)


def _turn(service: SessionService, agent_id: str, session_id: str, turn_id: str) -> Words:
    store.session(service, agent_id, session_id)
    return turns.find_turn(store.turns(service, session_id), turn_id)


def _add(session_id: str, body: requests.TurnBody) -> Add:
    expect_none(body.toolgroups, "toolgroups", requests.NO_TOOLGROUPS)
    documents = [*(body.documents or ()), *(body.attachments or ())]
    choice = choice_of(body.tool_config)

    def add(records: list[Words]) -> Words:
        place = len(records) + 1
        record = turns.new_record(session_id, place, body.messages, documents, choice, now_iso())
        records.append(record)
        return record

    return add


async def _answer(
    request: Request,
    service: SessionService,
    session_id: str,
    config: requests.AgentConfig,
    add: Add,
    version: turns.Version,
) -> AsyncGenerator[Words]:
    """The events of a turn. The last comes when the turn is kept; closing this drops it."""
    with _only_turn(request, session_id):
        records = store.turns(service, session_id)
        record = add(records)
        tools = config.tool_words()
        # Once its tools have answered the model is free: it would call them for ever.
        forced = () if record["turn"]["steps"] else (record["tool_choice"], *config.tool_choices)
        choice = tool_choice(tools, *forced)
        asked = chat_request(turns.conversation(records), tools, choice)
        running = turns.RunningTurn(record, version, config.infer_iters_max, now_iso())
        opened = False
        async with aclosing(service.generate(session_id, asked, config.options())) as pieces:
            async for piece in pieces:
                if not opened:
                    opened = True
                    for event in running.opening():
                        yield event
                for event in running.progress(piece):
                    yield event
        ending = running.close(now_iso())
        await store.put_turns(service, session_id, records)
    for event in ending:
        yield event


@contextlib.contextmanager
def _only_turn(request: Request, session_id: str) -> Generator[None]:
    """One turn a session at a time: the next one's conversation holds its answer."""
    state = request.app.state
    if not hasattr(state, "llama_stack_running"):
        state.llama_stack_running = set()
    running: set[tuple[str, str]] = state.llama_stack_running
    key = (tenant_of(request), session_id)
    if key in running:
        raise turns.TurnRunning(f"session {session_id} answers a turn; try again after it")
    running.add(key)
    try:
        yield
    finally:
        running.discard(key)


async def _last(events: AsyncGenerator[Words]) -> Words:
    last: Words = {}
    async with aclosing(events):
        async for event in events:
            last = event
    return last


async def _frames(events: AsyncGenerator[Words]) -> AsyncGenerator[bytes]:
    begun = False
    async with aclosing(events):
        try:
            async for event in events:
                begun = True
                yield frame(_chunk(event))
        except FlashfeedError as error:
            if not begun:
                raise
            yield frame(error_body(error.status, error.code, str(error)))


def _chunk(event: Words) -> Words:
    return {"event": {"payload": event}}
