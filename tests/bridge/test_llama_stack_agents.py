"""Agents, sessions and turns of llama-stack-client 0.2.12 of PyPI, against a real worker and
what the session holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from conftest import RunningWorker
from llama_stack_asked import (
    ASKED,
    GREEDY,
    INSTRUCTIONS,
    KNOWN,
    PYPI,
    asked_otherwise,
    llama_stack,
    model_id,
    push,
    state,
)
from llama_stack_client import (
    Agent,
    AgentEventLogger,
    BadRequestError,
    LlamaStackClient,
    NotFoundError,
)

QUESTION = {"role": "user", "content": ASKED}
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": [
        {"name": "city", "parameter_type": "string", "description": "Where", "required": True}
    ],
}


def runs(method: str) -> pytest.MarkDecorator:
    return pytest.mark.client(PYPI, method)


@pytest.fixture(scope="module")
def client(worker: RunningWorker) -> Iterator[LlamaStackClient]:
    with llama_stack(worker.url) as client:
        yield client


@pytest.fixture(scope="module")
def model(worker: RunningWorker) -> str:
    return model_id(worker.url)


@pytest.fixture
def agent_id(client: LlamaStackClient, model: str) -> Iterator[str]:
    """An agent; its sessions end with it."""
    config: Any = {"model": model, "instructions": INSTRUCTIONS, "sampling_params": GREEDY}
    agent_id = client.agents.create(agent_config=config).agent_id
    yield agent_id
    client.agents.delete(agent_id)


@pytest.fixture
def session_id(client: LlamaStackClient, agent_id: str) -> str:
    """A session of readings."""
    body = {"type": "iot"}
    return client.agents.session.create(agent_id, session_name="s", extra_body=body).session_id


@pytest.fixture
def weather_agent(client: LlamaStackClient, model: str) -> Iterator[str]:
    """An agent that must call its one tool first."""
    config: Any = {
        "model": model,
        "instructions": "Use the tools.",
        "sampling_params": {"strategy": {"type": "greedy"}, "max_tokens": 40},
        "client_tools": [WEATHER],
        "tool_config": {"tool_choice": "required"},
    }
    agent_id = client.agents.create(agent_config=config).agent_id
    yield agent_id
    client.agents.delete(agent_id)


# -- agents and sessions ------------------------------------------------------------


@runs("agents.create")
@runs("agents.session.create")
def test_a_session_is_a_live_session_with_the_agents_instructions(client, worker, agent_id):
    session_id = client.agents.session.create(agent_id, session_name="room 4").session_id
    held = state(worker.url, session_id)
    assert INSTRUCTIONS in held["context_text"]
    assert (held["type"], held["data_count"]) == ("event", 0)


@runs("agents.session.retrieve")
def test_a_session_tells_its_turns_or_those_that_are_named(client, agent_id, session_id):
    turns = [
        client.agents.turn.create(session_id, agent_id=agent_id, messages=[QUESTION])
        for _ in range(2)
    ]
    session = client.agents.session.retrieve(session_id, agent_id=agent_id)
    assert (session.session_id, session.session_name) == (session_id, "s")
    assert [turn.turn_id for turn in session.turns] == [turn.turn_id for turn in turns]
    assert session.started_at <= session.turns[0].started_at
    wanted = [turns[1].turn_id]
    named = client.agents.session.retrieve(session_id, agent_id=agent_id, turn_ids=wanted)
    assert named.turns == [turns[1]]


@runs("agents.session.delete")
def test_a_deleted_session_is_gone_everywhere(client, worker, agent_id, session_id):
    client.agents.session.delete(session_id, agent_id=agent_id)
    assert httpx.get(f"{worker.url}/v1/sessions/{session_id}/state").status_code == 404
    with pytest.raises(NotFoundError):
        client.agents.session.retrieve(session_id, agent_id=agent_id)


def test_a_session_that_layerscale_deletes_is_gone_here(client, worker, agent_id, session_id):
    httpx.delete(f"{worker.url}/v1/sessions/{session_id}").raise_for_status()
    with pytest.raises(NotFoundError):
        client.agents.turn.create(session_id, agent_id=agent_id, messages=[QUESTION])
    listed = httpx.get(f"{worker.url}/v1/agents/{agent_id}/sessions").json()
    assert listed["data"] == []


@runs("agents.delete")
def test_an_agents_sessions_end_with_it(client, worker, model):
    config: Any = {"model": model, "instructions": INSTRUCTIONS}
    agent_id = client.agents.create(agent_config=config).agent_id
    session_id = client.agents.session.create(agent_id, session_name="s").session_id
    client.agents.delete(agent_id)
    assert httpx.get(f"{worker.url}/v1/sessions/{session_id}/state").status_code == 404
    with pytest.raises(NotFoundError):
        client.agents.delete(agent_id)
    with pytest.raises(NotFoundError):
        client.agents.session.create(agent_id, session_name="s")


def test_an_agent_can_have_an_id_and_a_session_one_that_a_feed_knows(client, worker, model):
    config: Any = {"model": model, "instructions": INSTRUCTIONS}
    body = {"agent_id": "watcher"}
    assert client.agents.create(agent_config=config, extra_body=body).agent_id == "watcher"
    try:
        more = {"session_id": "room:4", "type": "iot", "window_size": 8}
        created = client.agents.session.create("watcher", session_name="s", extra_body=more)
        assert created.session_id == "room:4"
        push(worker.url, "room:4")
        assert state(worker.url, "room:4")["data_count"] == 1
    finally:
        client.agents.delete("watcher")


def test_another_agents_session_is_none_of_this_one(client, agent_id, session_id, weather_agent):
    with pytest.raises(NotFoundError):
        client.agents.session.retrieve(session_id, agent_id=weather_agent)
    with pytest.raises(NotFoundError):
        client.agents.session.delete(session_id, agent_id=weather_agent)
    assert client.agents.session.retrieve(session_id, agent_id=agent_id).turns == []


# -- turns --------------------------------------------------------------------------


@runs("agents.turn.create")
def test_what_is_pushed_is_what_the_agent_knows(client, worker, agent_id, session_id):
    def ask() -> str:
        turn = client.agents.turn.create(session_id, agent_id=agent_id, messages=[QUESTION])
        return str(turn.output_message.content)

    push(worker.url, session_id)
    assert "room4 31.5" in state(worker.url, session_id)["context_text"]
    first = ask()
    assert first == KNOWN
    # The next turn goes on from the first one, over what came since.
    push(worker.url, session_id, {"sid": "room4", "val": 99})
    said = [QUESTION, {"role": "assistant", "content": first}, QUESTION]
    choice = asked_otherwise(worker.url, said, session_id, max_tokens=12)
    assert ask() == choice["message"]["content"]
    # A turn leaves nothing in the session itself.
    assert KNOWN not in state(worker.url, session_id)["context_text"]


@runs("agents.turn.create")
def test_a_streamed_turn_is_the_same_turn_in_events(client, worker, agent_id, session_id):
    push(worker.url, session_id)
    create = client.agents.turn.create
    whole = create(session_id, agent_id=agent_id, messages=[QUESTION])
    again = client.agents.session.create(agent_id, session_name="o", extra_body={"type": "iot"})
    push(worker.url, again.session_id)
    chunks = create(again.session_id, agent_id=agent_id, messages=[QUESTION], stream=True)
    events = [chunk.event.payload for chunk in chunks]
    kinds = [event.event_type for event in events]
    assert kinds[:2] == ["turn_start", "step_start"]
    assert kinds[-2:] == ["step_complete", "turn_complete"]
    assert set(kinds[2:-2]) == {"step_progress"}
    text = "".join(event.delta.text for event in events if event.event_type == "step_progress")
    turn = events[-1].turn
    assert text == turn.output_message.content == whole.output_message.content
    assert events[0].turn_id == turn.turn_id
    [step] = turn.steps
    assert {event.step_id for event in events[1:-1]} == {step.step_id}
    assert events[-2].step_details == step
    assert step.api_model_response == turn.output_message
    assert turn.started_at <= step.started_at < step.completed_at <= turn.completed_at


@runs("agents.turn.retrieve")
@runs("agents.steps.retrieve")
def test_a_turn_and_its_steps_are_kept(client, agent_id, session_id):
    turn = client.agents.turn.create(session_id, agent_id=agent_id, messages=[QUESTION])
    where = {"agent_id": agent_id, "session_id": session_id}
    assert client.agents.turn.retrieve(turn.turn_id, **where) == turn
    [step] = turn.steps
    found = client.agents.steps.retrieve(step.step_id, turn_id=turn.turn_id, **where)
    assert found.step == step
    with pytest.raises(NotFoundError):
        client.agents.turn.retrieve(f"{session_id}.9", **where)
    with pytest.raises(NotFoundError):
        client.agents.steps.retrieve("none", turn_id=turn.turn_id, **where)


@runs("agents.turn.resume")
@pytest.mark.parametrize("stream", [False, True])
def test_a_turn_awaits_its_tools_and_goes_on(client, worker, weather_agent, stream):
    session_id = client.agents.session.create(weather_agent, session_name="s").session_id
    where: Any = {"agent_id": weather_agent, "session_id": session_id}
    asked = [{"role": "user", "content": "What is the weather in Rome?"}]
    events = [
        chunk.event.payload
        for chunk in client.agents.turn.create(**where, messages=asked, stream=True)
    ]
    assert events[-1].event_type == "turn_awaiting_input"
    turn = events[-1].turn
    [call] = turn.output_message.tool_calls
    assert (call.tool_name, call.arguments) == ("get_weather", {"city": "Rome"})
    assert turn.output_message.stop_reason == "end_of_message"
    deltas = [event.delta for event in events if event.event_type == "step_progress"]
    assert [delta.parse_status for delta in deltas] == ["started", "succeeded"]
    assert deltas[1].tool_call == call
    given = [{"call_id": call.call_id, "tool_name": "get_weather", "content": "sunny, 24 C"}]
    with pytest.raises(BadRequestError, match="expected one for each call"):
        wrong = [given[0] | {"call_id": "other"}]
        client.agents.turn.resume(turn.turn_id, **where, tool_responses=wrong)
    went_on = client.agents.turn.resume(turn.turn_id, **where, tool_responses=given, stream=stream)
    if stream:
        later = [chunk.event.payload for chunk in went_on]
        assert [event.event_type for event in later[:2]] == ["step_complete", "step_start"]
        assert later[0].step_type == "tool_execution"
        assert later[-1].event_type == "turn_complete"
        went_on = later[-1].turn
    assert went_on.turn_id == turn.turn_id
    assert [step.step_type for step in went_on.steps] == [
        "inference",
        "tool_execution",
        "inference",
    ]
    assert went_on.steps[1].tool_responses[0].content == "sunny, 24 C"
    # The same conversation, asked in OpenAI's words.
    function = {"name": "get_weather", "arguments": call.arguments_json}
    said = [
        *asked,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": call.call_id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": call.call_id, "content": "sunny, 24 C"},
    ]
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Where"}},
        "required": ["city"],
    }
    tool = {"name": "get_weather", "description": "The weather of a city", "parameters": parameters}
    choice = asked_otherwise(
        worker.url, said, session_id, max_tokens=40,
        tools=[{"type": "function", "function": tool}],
    )  # fmt: skip
    assert went_on.output_message.content == choice["message"]["content"]
    with pytest.raises(BadRequestError, match="awaits no tool responses"):
        client.agents.turn.resume(turn.turn_id, **where, tool_responses=given)


def test_the_clients_own_agent_runs_its_tools(client, model, capsys):
    asked_for = []

    def get_weather(city: str) -> str:
        """The weather of a city

        :param city: where
        """
        asked_for.append(city)
        return "sunny"

    agent = Agent(
        client,
        model=model,
        instructions="Use the tools.",
        tools=[get_weather],
        tool_config={"tool_choice": "get_weather"},
        sampling_params={"strategy": {"type": "greedy"}, "max_tokens": 30},
    )
    try:
        session_id = agent.create_session("s")
        asked = [{"role": "user", "content": "What is the weather in Rome?"}]
        turn = agent.create_turn(asked, session_id=session_id, stream=False)
        assert asked_for == ["Rome"]
        assert turn.steps[1].tool_responses[0].content == '"sunny"'
        for event in AgentEventLogger().log(agent.create_turn(asked, session_id=session_id)):
            event.print()
        assert "get_weather" in capsys.readouterr().out
    finally:
        client.agents.delete(agent.agent_id)


def test_the_last_answer_a_turn_may_have_ends_it(client, model):
    config: Any = {
        "model": model,
        "instructions": "Use the tools.",
        "client_tools": [WEATHER],
        "tool_choice": "required",
        "max_infer_iters": 1,
        "sampling_params": {"strategy": {"type": "greedy"}, "max_tokens": 40},
    }
    agent_id = client.agents.create(agent_config=config).agent_id
    try:
        session_id = client.agents.session.create(agent_id, session_name="s").session_id
        asked = [{"role": "user", "content": "What is the weather in Rome?"}]
        turn = client.agents.turn.create(session_id, agent_id=agent_id, messages=asked)
        assert turn.output_message.stop_reason == "end_of_turn"
        assert turn.output_message.tool_calls
    finally:
        client.agents.delete(agent_id)


def test_a_turns_documents_stand_before_its_question(client, worker, agent_id, session_id):
    turn = client.agents.turn.create(
        session_id,
        agent_id=agent_id,
        messages=[{"role": "user", "content": [{"type": "text", "text": "Which hall?"}]}],
        documents=[{"content": "Hall 7 is closed.", "mime_type": "text/plain"}],
    )
    said = [{"role": "user", "content": "Hall 7 is closed.\n\nWhich hall?"}]
    choice = asked_otherwise(worker.url, said, session_id, max_tokens=12)
    assert turn.output_message.content == choice["message"]["content"]
    assert turn.input_messages[0].content[0].text == "Which hall?"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"toolgroups": ["builtin::websearch"]}, "toolgroups"),
        ({"input_shields": ["llama_guard"]}, "input_shields"),
        ({"sampling_params": {"strategy": {"type": "greedy"}, "stop": ["x"] * 20}}, "sampling"),
        ({"response_format": {"type": "grammar", "bnf": {"a": 1}}}, "response_format.bnf"),
        ({"tool_choice": "get_time", "client_tools": [WEATHER]}, "tool_choice"),
        ({"client_tools": [{"name": "no name"}]}, "tools"),
        ({"instructions": 7}, "instructions"),
    ],
)
def test_an_agent_that_cannot_be_is_refused_when_it_is_made(client, model, change, param):
    config: Any = {"model": model, "instructions": INSTRUCTIONS} | change
    with pytest.raises(BadRequestError, match=param):
        client.agents.create(agent_config=config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, r"messages\.0\.role"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "begins with messages of the user"),
        ({"messages": [{"role": "user", "content": {"type": "image"}}]}, r"messages\.0\.content"),
        ({"messages": [{"role": "tool", "call_id": "c", "content": "x"}]}, "tool_call_id"),
        ({"documents": [{"content": {"uri": "http://x"}, "mime_type": "text/plain"}]}, "no URL"),
        ({"toolgroups": ["builtin::rag"]}, "toolgroups"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_turn_that_cannot_be_is_refused_and_not_kept(
    client, agent_id, session_id, change, message, stream
):
    body: Any = {"messages": [QUESTION]} | change
    with pytest.raises(BadRequestError, match=message):
        client.agents.turn.create(session_id, agent_id=agent_id, **body, stream=stream)
    assert client.agents.session.retrieve(session_id, agent_id=agent_id).turns == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_turn_that_does_not_fit_is_refused_and_not_kept(client, agent_id, session_id, stream):
    long: Any = {"role": "user", "content": "on and " * 3000}
    with pytest.raises(BadRequestError) as refused:
        client.agents.turn.create(session_id, agent_id=agent_id, messages=[long], stream=stream)
    assert refused.value.body["error"]["code"] == "context_length_exceeded"
    assert client.agents.session.retrieve(session_id, agent_id=agent_id).turns == []
    turn = client.agents.turn.create(session_id, agent_id=agent_id, messages=[QUESTION])
    assert turn.output_message.content
