"""Turns that do not go as they should: two at once, a client that leaves, a model that
fails, a session that is another by now. Over the service in memory, which does so on demand."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import msgspec
import pytest
from llama_stack_client import AsyncLlamaStackClient, InternalServerError, NotFoundError

from flashfeed.agents.documents import DOCUMENT_BYTES_MAX
from flashfeed.models.errors import Unavailable
from flashfeed.models.session import SessionSpec

QUESTION: Any = {"role": "user", "content": "Is it up?"}
JSON = {"content-type": "application/json"}
ANSWER = "The trend is \u2028up"


async def wait_for(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def client(bridge: str):
    async with AsyncLlamaStackClient(base_url=bridge, max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
async def agent_id(client) -> str:
    config: Any = {
        "model": "memory",
        "instructions": "Answer briefly.",
        "sampling_params": {
            "strategy": {"type": "top_p", "temperature": 0.5, "top_p": 0.9},
            "max_tokens": 7,
            "stop": ["x"],
            "repetition_penalty": 1.5,
        },
    }
    return (await client.agents.create(agent_config=config)).agent_id


@pytest.fixture
async def session_id(client, agent_id) -> str:
    return (await client.agents.session.create(agent_id, session_name="s")).session_id


@pytest.fixture
def path(agent_id, session_id) -> str:
    return f"/v1/agents/{agent_id}/session/{session_id}/turn"


async def kept(client, agent_id, session_id) -> list[Any]:
    session = await client.agents.session.retrieve(session_id, agent_id=agent_id)
    return session.turns


async def test_a_turn_is_asked_with_all_before_it_and_as_its_agent_says(
    client, memory, agent_id, session_id
):
    for content in ("one", [{"type": "text", "text": "two"}]):
        turn = await client.agents.turn.create(
            session_id, agent_id=agent_id, messages=[{"role": "user", "content": content}]
        )
        assert turn.output_message.content == ANSWER
    (first, options), (second, _) = memory.prompts
    said = [(message.role, message.content) for message in second.messages]
    assert said == [("user", "one"), ("assistant", ANSWER), ("user", "two")]
    assert first.messages == second.messages[:1]
    assert (options.max_tokens, options.temperature, options.top_p) == (7, 0.5, 0.9)
    assert (options.stop, options.repetition_penalty) == (("x",), 1.5)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_second_of_two_turns_at_once_comes_again(
    bridge, client, memory, agent_id, session_id, path, stream
):
    memory.piece_gate = asyncio.Event()
    body = {"messages": [QUESTION], "stream": stream}
    async with httpx.AsyncClient(base_url=bridge, timeout=20) as http:
        first = asyncio.create_task(http.post(path, json=body))
        await wait_for(lambda: memory.generating == 1)
        second = await http.post(path, json=body)
        assert (second.status_code, second.headers["retry-after"]) == (409, "1")
        assert second.json()["error"]["code"] == "turn_running"
        memory.piece_gate.set()
        assert (await first).status_code == 200
    again = client.with_options(max_retries=2).agents.turn.create
    await again(session_id, agent_id=agent_id, messages=[QUESTION])
    assert len(await kept(client, agent_id, session_id)) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_its_turn_and_nothing_of_it_stays(
    bridge, client, memory, agent_id, session_id, path, stream
):
    memory.piece_gate = asyncio.Event()
    async with httpx.AsyncClient(base_url=bridge) as http:
        body = {"messages": [QUESTION], "stream": stream}
        asking = asyncio.create_task(http.post(path, json=body, timeout=20))
        await wait_for(lambda: memory.generating == 1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await wait_for(lambda: memory.generating == 0)
    memory.piece_gate = None
    assert await kept(client, agent_id, session_id) == []
    turn = await client.agents.turn.create(session_id, agent_id=agent_id, messages=[QUESTION])
    assert await kept(client, agent_id, session_id) == [turn]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_that_fails_at_once_is_a_plain_error(
    client, memory, agent_id, session_id, stream
):
    memory.fails_after = 1
    with pytest.raises(InternalServerError, match="the engine is gone"):
        await client.agents.turn.create(
            session_id, agent_id=agent_id, messages=[QUESTION], stream=stream
        )
    assert await kept(client, agent_id, session_id) == []


async def test_a_turn_that_fails_later_ends_with_an_error_and_is_not_kept(
    bridge, client, memory, agent_id, session_id, path
):
    memory.fails_after = 3
    async with httpx.AsyncClient(base_url=bridge) as http:
        response = await http.post(path, json={"messages": [QUESTION], "stream": True})
    assert response.content.isascii()
    *events, last = [json.loads(part[6:]) for part in response.text.split("\n\n") if part]
    kinds = [event["event"]["payload"]["event_type"] for event in events]
    assert kinds == ["turn_start", "step_start", "step_progress", "step_progress"]
    assert last["error"]["message"] == "the engine is gone"
    assert await kept(client, agent_id, session_id) == []


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("chat-completion", {"messages": [QUESTION]}),
        ("completion", {"content": "Once"}),
    ],
)
async def test_an_inference_that_fails_says_so(bridge, memory, route, body):
    asked = {"model_id": "memory", "stream": True, **body}
    async with httpx.AsyncClient(base_url=f"{bridge}/v1/inference") as http:
        memory.fails_after = 1
        assert (await http.post(route, json=asked)).status_code == 500
        memory.fails_after = 3
        response = await http.post(route, json=asked)
    *_, last = [json.loads(part[6:]) for part in response.text.split("\n\n") if part]
    assert last["error"]["message"] == "the engine is gone"


async def test_a_session_of_the_same_id_is_not_the_agents(
    client, memory, agent_id, session_id, monkeypatch
):
    await memory.delete(session_id)
    await memory.create(SessionSpec(type="iot"), session_id)
    other = memory.get

    def younger(one: str) -> Any:
        return msgspec.structs.replace(other(one), created_ms=1)

    monkeypatch.setattr(memory, "get", younger)
    with pytest.raises(NotFoundError, match="is another now"):
        await client.agents.turn.create(session_id, agent_id=agent_id, messages=[QUESTION])
    await client.agents.session.delete(session_id, agent_id=agent_id)
    assert session_id in memory.held


async def test_a_conversation_too_long_to_keep_is_refused(
    bridge, client, agent_id, session_id, path
):
    long = {"role": "user", "content": "x" * 390_000}
    async with httpx.AsyncClient(base_url=bridge, timeout=20) as http:
        assert (await http.post(path, json={"messages": [long]})).status_code == 200
        response = await http.post(path, json={"messages": [long]})
    assert response.status_code == 400
    assert f"at most {DOCUMENT_BYTES_MAX} bytes" in response.json()["message"]
    assert len(await kept(client, agent_id, session_id)) == 1


async def test_pages_of_agents_and_sessions(bridge, client, agent_id, session_id):
    other = await client.agents.session.create(agent_id, session_name="o")
    async with httpx.AsyncClient(base_url=bridge) as http:
        listed = (await http.get("/v1/agents", params={"limit": 1})).json()
        assert [one["agent_id"] for one in listed["data"]] == [agent_id]
        assert (listed["has_more"], listed["url"]) == (False, "/v1/agents")
        base = f"/v1/agents/{agent_id}"
        pages = [
            await http.get(f"{base}/sessions", params={"limit": 1, "start_index": start})
            for start in (0, 1, 2)
        ]
        shown = [[one["session_id"] for one in page.json()["data"]] for page in pages]
        assert shown == [[session_id], [other.session_id], []]
        assert [page.json()["has_more"] for page in pages] == [True, False, False]
        refused = await http.get("/v1/agents", params={"limit": 0})
        assert refused.status_code == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/agents", {}),
        ("/v1/agents", {"agent_config": {"model": "m"}}),
        ("/v1/agents", {"agent_config": {"model": "m", "instructions": ""}, "agent_id": "a b"}),
        ("/agents/create", {"agent_config": {"model": "m", "instructions": "", "tools": [{}]}}),
        ("/agents/session/create", {"agent_id": "a"}),
        ("/agents/turn/create", {"agent_id": "a", "session_id": "s", "messages": "x"}),
        ("/v1/inference/chat-completion", {"model_id": "m", "messages": [7]}),
        ("/v1/inference/chat-completion", {"messages": [QUESTION]}),
        ("/v1/inference/chat-completion", {"model_id": "m", "messages": [{"role": {}}]}),
        ("/v1/inference/completion", {"model_id": "m", "content": {"type": "image"}}),
        ("/v1/inference/completion", {"model_id": "m", "content": [None]}),
        ("/v1/inference/batch-completion", {"model_id": "m", "content_batch": []}),
    ],
)
async def test_what_cannot_be_read_is_a_bad_request_that_names_it(bridge, path, body):
    async with httpx.AsyncClient(base_url=bridge) as http:
        response = await http.post(path, json=body)
    assert response.status_code == 400, response.text
    assert response.json()["message"]
    assert response.json()["error"]["param"]


@pytest.mark.parametrize("written", [r'"\ud800"', str(2**64), "1e999e"])
async def test_what_cannot_be_written_again_is_refused(bridge, path, written):
    body = f'{{"messages": [{{"role": "user", "content": "x", "more": {written}}}]}}'
    async with httpx.AsyncClient(base_url=bridge) as http:
        response = await http.post(path, content=body, headers=JSON)
    assert response.status_code == 400
    assert "JSON" in response.json()["message"]


async def test_an_agent_stays_until_each_of_its_sessions_is_ended(
    client, memory, agent_id, session_id, monkeypatch
):
    other = (await client.agents.session.create(agent_id, session_name="o")).session_id
    get = memory.get

    def rebuilt(one: str) -> Any:
        if one == session_id:
            raise Unavailable("its partition is being rebuilt")
        return get(one)

    with monkeypatch.context() as patch:
        patch.setattr(memory, "get", rebuilt)
        with pytest.raises(InternalServerError, match="being rebuilt"):
            await client.agents.delete(agent_id)
    assert list(memory.held) == [session_id]
    assert await kept(client, agent_id, session_id) == []
    await client.agents.delete(agent_id)
    assert not memory.held
    with pytest.raises(NotFoundError):
        await client.agents.session.retrieve(other, agent_id=agent_id)
