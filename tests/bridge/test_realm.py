"""The Realm WebSocket: its client against a running worker, with keys and without."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from flashfeed.cli.embedded_broker import free_port
from flashfeed.cli.worker_process import wait_until_ready, worker_process

from client_packages import CLIENTS, node_modules

pytestmark = [pytest.mark.model, pytest.mark.broker]

CLIENT = "realm-ws (from its README)"
KEY, SLOW_KEY = "a-key-of-acme-0123456789", "a-key-of-slow-0123456789"
FRANCE = "What is the capital of France?"
CONFIG = """
[kafka]
brokers = "{brokers}"
group = "flashfeed-realm-{name}"

[topics]
records = "realm.{name}.records"
changelog = "realm.{name}.changelog"

[bridge]
port = {port}
{keys}

[engine]
context_tokens = 1024
sessions_max = 8

[pipelines.two-steps]
description = "A question, and the answer again."

[[pipelines.two-steps.steps]]
prompt = "Say a word about {{query}}. {{context}}"
max_tokens = 6

[[pipelines.two-steps.steps]]
prompt = "Translate into French: {{previous}}"
model = "packaged"
max_tokens = 4

[pipelines.over-a-session]

[[pipelines.over-a-session.steps]]
session = "market"
prompt = "{{input}}"
max_tokens = 8
"""


@pytest.fixture(scope="module", params=["open", "keys"])
def realm(request, broker, tmp_path_factory):  # type: ignore[no-untyped-def]
    """A worker with pipelines; its URL, and the key that it wants ("" for none)."""
    home: Path = tmp_path_factory.mktemp("realm")
    keys = 'api_keys_env = "REALM_TEST_KEYS"' if request.param == "keys" else ""
    port = free_port()
    config, log = home / "worker.toml", home / "worker.log"
    config.write_text(CONFIG.format(brokers=broker, name=request.param, port=port, keys=keys))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REALM_TEST_KEYS", f"acme:{KEY},slow:{SLOW_KEY}")
        with worker_process(config, log) as process:
            wait_until_ready(port, process, log)
            yield f"127.0.0.1:{port}", KEY if keys else ""


@pytest.fixture(scope="module")
def client(realm):
    """What each method of the client gave, by its name."""
    address, key = realm
    node = subprocess.run(
        ["node", str(CLIENTS / "realm.mjs"), str(node_modules()), f"ws://{address}", "packaged"]
        + ([key] if key else []),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not node.returncode, node.stderr
    outcomes = {
        line["method"]: line["outcome"] for line in map(json.loads, node.stdout.split("\n")[:-1])
    }
    assert not {name: one for name, one in outcomes.items() if "failed" in one}
    return outcomes


@pytest.fixture
def http(realm):
    address, key = realm
    headers = {"x-api-key": key} if key else {}
    with httpx.Client(base_url=f"http://{address}", headers=headers, timeout=60) as http:
        yield http


def said(http, prompt, max_tokens):
    """The same question asked in another dialect."""
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
    }
    message = http.post("/v1/messages", json=body).json()
    return "".join(block["text"] for block in message["content"]), message["usage"]


class Socket:
    """A connection that speaks the frames themselves."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def send(self, frame: Any) -> None:
        await self.connection.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    async def read(self) -> dict[str, Any]:
        return json.loads(await asyncio.wait_for(self.connection.recv(), 60))

    async def call(self, function: str, params: Any, call_id: str = "c", **more: Any) -> list[Any]:
        """Every frame that answers a call."""
        await self.send({"id": call_id, "function": function, "params": params, **more})
        frames = [await self.read()]
        while frames[-1]["status"] == "streaming":
            frames.append(await self.read())
        return frames


@pytest.fixture
async def socket(realm):
    """A connection that has logged in."""
    address, key = realm
    async with websockets.connect(f"ws://{address}/") as connection:
        socket = Socket(connection)
        if key:
            assert (await socket.read())["type"] == "auth_required"
            await socket.send({"type": "auth", "api_key": key})
            assert (await socket.read())["type"] == "auth_success"
        assert (await socket.read())["status"] == "connected"
        yield socket


# -- the client -----------------------------------------------------------------------


@pytest.mark.client(CLIENT, "connect")
@pytest.mark.client(CLIENT, "isConnected")
@pytest.mark.client(CLIENT, "disconnect")
@pytest.mark.client(CLIENT, "on")
@pytest.mark.client(CLIENT, "off")
@pytest.mark.client(CLIENT, "getTenantId")
def test_connecting(client):
    assert client["connect"] == {"connected": True}
    assert len(client["getTenantId"]["tenant_id"]) == 36
    assert client["disconnect"] == {"connected": False, "heard": ["connected", "disconnected"]}


@pytest.mark.client(CLIENT, "generate")
def test_generate(client, http):
    text, usage = said(http, FRANCE, 8)
    result = client["generate"]
    assert "Paris" in result["text"]
    assert result["text"] == text
    assert result["tokens_generated"] == usage["output_tokens"]
    assert result["prompt_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert result["time_ms"] > 0


@pytest.mark.client(CLIENT, "generateStream")
def test_generate_stream(client):
    tokens = client["generateStream"]["tokens"]
    assert len(tokens) > 1
    assert "".join(tokens) == client["generate"]["text"]


@pytest.mark.client(CLIENT, "executePipeline")
def test_pipelines(client, http):
    result = client["executePipeline"]
    first, _ = said(http, "Say a word about Paris. {query} {previous} %s {0}", 6)
    second, _ = said(http, f"Translate into French: {first}", 4)
    assert [step["text"] for step in result["steps"]] == [first, second]
    assert [step["step"] for step in result["steps"]] == [1, 2]
    assert result["steps"][1]["model_id"] == "packaged"
    assert result["text"] == second
    unknown = client["executePipeline (unknown)"]
    assert unknown["code"] == "DISPATCH_ERROR"
    assert "over-a-session, two-steps" in unknown["message"]


@pytest.mark.client(CLIENT, "health")
def test_health(client):
    health = client["health"]
    assert health["status"] == "healthy"
    assert health["version"]
    assert health["uptime_seconds"] >= 0


@pytest.mark.client(CLIENT, "metadata")
def test_metadata(client):
    metadata = client["metadata"]
    assert [one["name"] for one in metadata["functions"]] == [
        "generate",
        "pipeline",
        "health",
        "metadata",
    ]
    assert metadata["models"]
    assert [one["name"] for one in metadata["pipelines"]] == ["over-a-session", "two-steps"]


def test_errors_reach_the_client(client):
    errors = client["generate (errors)"]
    assert errors["unknown"]["code"] == "DISPATCH_ERROR"
    assert "packaged" in errors["unknown"]["message"]
    assert errors["empty"]["code"] == "DISPATCH_ERROR"
    assert errors["function_"]["code"] == "FUNCTION_NOT_FOUND"


def test_calls_run_beside_each_other(client):
    outcome = client["several at a time"]
    assert outcome["together"] == outcome["alone"]


# -- the frames -----------------------------------------------------------------------


async def test_a_stream_is_tokens_then_the_whole(socket):
    *tokens, done = await socket.call(
        "generate", {"prompt": FRANCE, "max_tokens": 6, "temperature": 0, "stream": True}
    )
    assert [frame["data"]["index"] for frame in tokens] == list(range(len(tokens)))
    assert [frame["data"]["is_final"] for frame in tokens] == [False] * (len(tokens) - 1) + [True]
    assert done["status"] == "complete"
    assert "".join(frame["data"]["token"] for frame in tokens) == done["data"]["text"]


async def test_a_streamed_pipeline_is_its_steps_then_the_whole(socket):
    *steps, done = await socket.call(
        "pipeline",
        {"pipeline": "two-steps", "input": {"query": "tea", "context": ""}, "stream": True},
    )
    assert [frame["data"] for frame in steps] == done["data"]["steps"]
    [missing] = await socket.call("pipeline", {"pipeline": "two-steps", "input": {}})
    assert missing["error"]["code"] == "DISPATCH_ERROR"
    assert "'query'" in missing["error"]["message"]


async def test_a_session_is_asked_by_a_call_and_by_a_pipeline(socket, http):
    assert http.post("/v1/sessions", json={"id": "market"}).status_code == 200
    http.post("/v1/sessions/market/append", json={"text": "Tuesday: 4711 dollars."})
    body = {"prompt": "How many dollars?", "max_tokens": 8}
    try:
        state = http.get("/v1/sessions/market/state").json()
        assert "4711" in state["context_text"]
        greedy = body | {"temperature": 0}
        same = http.post("/v1/sessions/market/generate", json=greedy).json()["text"]
        [asked] = await socket.call("generate", greedy | {"session_id": "market"})
        piped = {"pipeline": "over-a-session", "input": body["prompt"]}
        [chained] = await socket.call("pipeline", piped, tenant_id="whoever")
    finally:
        http.delete("/v1/sessions/market")
    assert asked["data"]["text"] == same
    assert asked["data"]["prompt_tokens"] > state["n_tokens"]
    assert chained["data"]["steps"] == [{"text": same, "model_id": "market", "step": 1}]
    [gone] = await socket.call("generate", body | {"session_id": "none"})
    assert gone["error"]["code"] == "DISPATCH_ERROR"
    assert gone["error"]["details"] == {"code": "session_not_found"}


async def test_frames_that_are_wrong_are_answered(socket):
    for raw in ("{", "[]", '{"id":"x"}', b"\xff", '{"type":"auth"}'):
        await socket.send(raw)
        answer = await socket.read()
        assert (answer["status"], answer["error"]["code"]) == ("error", "DISPATCH_ERROR")
    assert (await socket.call("health", {}))[-1]["status"] == "complete"
    [told] = await socket.call("health", {"x": 1})
    assert "`x`" in told["error"]["message"]


async def test_auth_is_answered_whether_it_is_needed_or_not(socket, realm):
    _, key = realm
    await socket.send({"type": "auth", "api_key": key or "any"})
    assert (await socket.read())["type"] == "auth_success"
    if key:
        await socket.send({"type": "auth", "api_key": "somebody else's key"})
        failed = await socket.read()
        assert (failed["type"], failed["error"]["code"]) == ("auth_failed", "UNAUTHORIZED")
        with pytest.raises(websockets.ConnectionClosed):
            await socket.read()


async def test_a_stranger_gets_nothing(realm):
    address, key = realm
    if not key:
        pytest.skip("nobody is a stranger without keys")
    async with websockets.connect(f"ws://{address}/") as connection:
        socket = Socket(connection)
        assert (await socket.read())["type"] == "auth_required"
        [refused] = await socket.call("health", {})
        assert refused["error"]["code"] == "UNAUTHORIZED"
        await socket.send({"type": "auth", "api_key": "wrong"})
        failed = await socket.read()
        assert (failed["type"], failed["error"]["code"]) == ("auth_failed", "UNAUTHORIZED")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.read()
    assert closed.value.rcvd.code == 1008


async def test_a_tenant_id_that_is_none_is_refused(socket):
    params = {"prompt": "x", "max_tokens": 1}
    [done] = await socket.call("generate", params, tenant_id="tenant-one")
    assert done["status"] == "complete"
    [bad] = await socket.call("generate", params, tenant_id="no/tenant")
    assert "tenant_id" in bad["error"]["message"]
