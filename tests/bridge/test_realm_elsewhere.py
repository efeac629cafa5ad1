"""A Realm client at one worker asks sessions of another: by a call, a stream, a pipeline."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
import websockets

from cluster import CLUSTER, group_of

pytestmark = [pytest.mark.model, pytest.mark.broker]

SESSIONS = [f"s{number}" for number in range(12)]
PIPELINES = CLUSTER + "".join(
    f"""
[[pipelines.of-{session}.steps]]
session = "{session}"
prompt = "{{input}}"
max_tokens = 6
"""
    for session in SESSIONS
)
PROMPT = "How many dollars?"


@pytest.fixture(scope="module")
def group(broker, tmp_path_factory):  # type: ignore[no-untyped-def]
    with group_of(broker, tmp_path_factory.mktemp("realmfar"), more=PIPELINES) as group:
        yield group


async def call(socket, function, params):  # type: ignore[no-untyped-def]
    """The frames that answer a call."""
    await socket.send(json.dumps({"id": "1", "function": function, "params": params}))
    frames = []
    while not frames or frames[-1]["status"] == "streaming":
        frames.append(json.loads(await asyncio.wait_for(socket.recv(), 60)))
    return frames


async def test_a_session_of_another_worker_is_asked(group):
    first, second = group.members
    owners = await asyncio.to_thread(lambda: {one: group.owner_of(one) for one in SESSIONS[:6]})
    session = next(one for one, url in owners.items() if url == second.url)
    async with httpx.AsyncClient(base_url=second.url, timeout=60) as http:
        made = await http.post("/v1/sessions", json={"id": session})
        assert made.status_code == 200
        await http.post(f"/v1/sessions/{session}/append", json={"text": "Tuesday: 4711 dollars."})
        asked = {"prompt": PROMPT, "max_tokens": 6, "temperature": 0}
        same = (await http.post(f"/v1/sessions/{session}/generate", json=asked)).json()["text"]
        held = (await http.get(f"/v1/sessions/{session}/state")).json()["n_tokens"]
    async with websockets.connect(f"ws{first.url.removeprefix('http')}/") as socket:
        assert json.loads(await socket.recv())["status"] == "connected"
        [whole] = await call(socket, "generate", asked | {"session_id": session})
        *tokens, done = await call(
            socket, "generate", asked | {"session_id": session, "stream": True}
        )
        pipeline = {"pipeline": f"of-{session}", "input": PROMPT}
        [chained] = await call(socket, "pipeline", pipeline)
        [gone] = await call(socket, "generate", asked | {"session_id": f"{session}-none"})
        [refused] = await call(socket, "generate", asked | {"session_id": session, "top_k": -1})
    assert whole["data"]["text"] == done["data"]["text"] == same
    assert whole["data"]["prompt_tokens"] > held
    assert 0 < whole["data"]["tokens_generated"] <= 6
    assert "".join(frame["data"]["token"] for frame in tokens) == same
    assert [frame["data"]["is_final"] for frame in tokens] == [False] * (len(tokens) - 1) + [True]
    assert chained["data"]["steps"] == [{"text": same, "model_id": session, "step": 1}]
    assert gone["error"]["details"] == {"code": "session_not_found"}
    assert gone["error"]["code"] == refused["error"]["code"] == "DISPATCH_ERROR"


async def test_an_unknown_session_is_the_same_answer_wherever_it_would_be(group):
    for member in group.members:
        async with websockets.connect(f"ws{member.url.removeprefix('http')}/") as socket:
            await socket.recv()
            for session in SESSIONS[6:]:
                [answer] = await call(socket, "generate", {"prompt": PROMPT, "session_id": session})
                assert answer["error"]["details"] == {"code": "session_not_found"}
                assert answer["error"]["message"] == f"no session {session}"
