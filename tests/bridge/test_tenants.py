"""Two tenants on one worker: what one has, the other cannot see, touch, guess or exhaust.

Every route of the bridge that names something of a tenant (in its path, its body or a
header) is asked three ways: by the owner, who gets it; by another tenant; and by that
tenant for what nobody has. The last two answers are the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import httpx
import orjson
import pytest
from aiokafka import AIOKafkaProducer
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from flashfeed.agents.service import SessionService
from flashfeed.bridge.app import create_app
from flashfeed.bridge.keys import new_key, written_hash
from flashfeed.cli.embedded_broker import free_port
from flashfeed.cli.worker_process import start_worker, stop_worker, wait_until_ready

CONFIG = """
[kafka]
brokers = "{brokers}"
group = "flashfeed-tenants-{port}"

[bridge]
port = {port}
keys_file = "{keys}"
api_keys_env = "TENANTS_TEST_KEYS"

[bridge.limits]
sessions = 2
tokens_per_minute = 40

[topics]
records = "tenants.records"
changelog = "tenants.changelog"
dead_letters = "tenants.dead_letters"
flash_ready = "tenants.flash_ready"
data_updated = "tenants.data_updated"
answers = "tenants.answers"
owners = "tenants.owners"
documents = "tenants.documents"
control = "tenants.control"
replies = "tenants.replies"

[engine]
context_tokens = 2048
sessions_max = 16

[feeds.sensors]
topics = ["tenants-sensors"]
template = "sensor"
model = "iot"
key = "{{id}}"
map = {{ sid = "id", val = "v" }}

[templates.sensor]
type = "iot"
tenant = "ann"
"""
KEYS = """
[tenant.ann]
keys = ["{ann}"]
limits = {{ sessions = 0, requests_per_s = 0, tokens_per_minute = 0 }}

[tenant.bob]
keys = ["{bob}"]
limits = {{ sessions = 0, requests_per_s = 0, tokens_per_minute = 0 }}

[tenant.few]
keys = ["{few}"]
limits = {{ sessions = 1, connections = 2, requests_per_s = 0, tokens_per_minute = 0 }}
"""
ABSENT = ("model_id", "provider_id")
"""Path parameters that name nothing of a tenant."""

TEXT = "hello"
MESSAGES = [{"role": "user", "content": TEXT}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/agents/{agent_id}/session": {"session_name": TEXT},
    "/v1/agents/{agent_id}/session/{session_id}/turn": {"messages": MESSAGES, "stream": False},
    "/v1/agents/{agent_id}/session/{session_id}/turn/{turn_id}/resume": {
        "tool_responses": [{"call_id": "1", "tool_name": "x", "content": "y"}],
        "stream": False,
    },
    "/v1/sessions/{session_id}/append": {"text": TEXT},
    "/flashfeed/v1/sessions/{session_id}/outcomes": {
        "query": 1,
        "label": "yes",
        "data_version": 1,
    },
    "/v1/sessions/{session_id}/mark_prefix": {},
    "/v1/sessions/{session_id}/stream/push": {"data": [{"sid": TEXT, "val": 1.0}]},
    "/v1/sessions/{session_id}/push": {"data": [TEXT]},
    "/v1/sessions/{session_id}/flash": {"query": f"Is it a {TEXT}?", "max_tokens": 1},
    "/v1/sessions/{session_id}/generate": {"prompt": TEXT, "max_tokens": 2},
    "/v1/sessions/{session_id}/warm": {"messages": MESSAGES},
    "/v1/messages": {"model": "packaged", "messages": MESSAGES, "max_tokens": 2},
    "/v1/messages/count_tokens": {"model": "packaged", "messages": MESSAGES},
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 2, "store": True},
    "/v1/chat/completions/{completion_id}": {"metadata": {"a": TEXT}},
    "/v1/completions": {"prompt": TEXT, "max_tokens": 2},
    "/v1/conversations/{conversation_id}": {"metadata": {"a": TEXT}},
    "/v1/conversations/{conversation_id}/items": {
        "items": [{"type": "message", "role": "user", "content": TEXT}]
    },
    "/v1/responses": {"input": TEXT, "max_output_tokens": 2},
    "/v1/responses/input_tokens": {"input": TEXT},
}
REFERENCES = {
    "session_id": "session_id",
    "previous_response_id": "response_id",
    "conversation": "conversation_id",
}
"""Fields of a body that name something of a tenant, and what."""

HEADER = "x-layerscale-session-id"

NEW_IDS = {("POST /v1/agents/{agent_id}/session", "session_id")}
"""Fields that name what is to be made: an id that another tenant has is as good as any."""

PASSED_OVER = {("POST /v1/messages/count_tokens", "session_id")}
"""Fields that are known to clients and change nothing there."""

REFUSED_TO_OWNER = {
    "POST /v1/agents/{agent_id}/session/{session_id}/turn/{turn_id}/resume": "it awaits no tool",
    "POST /v1/responses/{response_id}/cancel": "it has ended",
    "POST /flashfeed/v1/sessions/{session_id}/outcomes": "its question does not learn",
}


class Workplace(NamedTuple):
    """A worker with keys, and the keys."""

    brokers: str
    url: str
    log: Path
    keys: dict[str, str]

    def of(self, tenant: str) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.keys[tenant]}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)


@pytest.fixture(scope="module")
def workplace(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    home, port = tmp_path_factory.mktemp("tenants"), free_port()
    keys = {tenant: new_key() for tenant in ("ann", "bob", "few", "env")}
    files = [home / name for name in ("worker.toml", "keys.toml", "worker.log")]
    config, keys_file, log = files
    keys_file.write_text(KEYS.format(**{name: written_hash(key) for name, key in keys.items()}))
    config.write_text(CONFIG.format(brokers=broker, port=port, keys=keys_file))
    os.environ["TENANTS_TEST_KEYS"] = f"env:{keys['env']}"
    process = start_worker(config, log)
    del os.environ["TENANTS_TEST_KEYS"]
    try:
        wait_until_ready(port, process, log)
        yield Workplace(broker, f"http://127.0.0.1:{port}", log, keys)
    finally:
        stop_worker(process)


def made_by(http: httpx.Client, word: str) -> dict[str, str]:
    """One of everything, with the word in it; ids by the name that paths have for them."""

    def post(path: str, body: dict[str, Any]) -> Any:
        answer = http.post(path, json=body)
        assert answer.status_code == 200, (path, answer.text)
        return answer.json()

    messages = [{"role": "user", "content": word}]
    session = post("/v1/sessions/init", {"type": "iot", "prompt": f"You see a {word}."})
    sid = session["session_id"]
    flash = post(f"/v1/sessions/{sid}/flash", {"query": f"{word}?", "choices": ["yes", "no"]})
    config = {"model": "packaged", "instructions": word, "sampling_params": {"max_tokens": 2}}
    agent = post("/v1/agents", {"agent_config": config})["agent_id"]
    stack = post(f"/v1/agents/{agent}/session", {"session_name": word})["session_id"]
    turn_path = f"/v1/agents/{agent}/session/{stack}/turn"
    turn = post(turn_path, {"messages": messages, "stream": False})
    chat = {"model": "packaged", "messages": messages, "max_tokens": 2, "store": True}
    conversation = post("/v1/conversations", {"metadata": {"a": word}})["id"]
    items = {"items": [{"type": "message", "role": "user", "content": word}]}
    item = post(f"/v1/conversations/{conversation}/items", items)
    response = {"model": "packaged", "input": word, "max_output_tokens": 16}
    return {
        "session_id": sid,
        "query_id": str(flash["id"]),
        "agent_id": agent,
        "stack_session_id": stack,
        "turn_id": turn["turn_id"],
        "step_id": turn["steps"][0]["step_id"],
        "completion_id": post("/v1/chat/completions", chat)["id"],
        "conversation_id": conversation,
        "item_id": item["data"][0]["id"],
        "response_id": post("/v1/responses", response)["id"],
    }


def nobodys(ids: dict[str, str]) -> dict[str, str]:
    """Ids of the same form that nobody has."""
    other = {name: re.sub(r"[0-9a-f]{8}", "0" * 8, one, count=1) for name, one in ids.items()}
    assert all(other[name] != ids[name] for name in ids if name != "query_id")
    return other


class Route(NamedTuple):
    """A route, and what of a tenant's it names: in its path, in fields of its body, in a
    header; `by_name`: it wants all ids in query or body (Llama Stack's of 0.0.35)."""

    method: str
    path: str
    names: tuple[str, ...]
    fields: tuple[str, ...] = ()
    by_name: bool = False
    documented: bool = True

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def ask(self, http: httpx.Client, ids: dict[str, str], field: str = "") -> httpx.Response:
        """Ask it for these; with `field` also there. Of an endless answer the head alone."""
        stack = self.by_name or "agent_id" in self.names
        named = ids | ({"session_id": ids["stack_session_id"]} if stack else {})
        path = re.sub(r"{(\w+)}", lambda one: named.get(one[1], "packaged"), self.path)
        body = BODIES.get(re.sub("^(/v1/openai/v1|/v1alpha)/", "/v1/", self.path))
        more: dict[str, Any] = {"headers": {}}
        if self.by_name:
            more["params"] = named
            body = {**named, "messages": MESSAGES, "session_name": TEXT, "stream": False}
        if field == HEADER:
            more["headers"] = {HEADER: ids["session_id"]}
        elif field:
            body = (body or {}) | {field: ids[REFERENCES[field]]}
        if self.method == "POST" and body is not None:
            more["json"] = body
        with http.stream(self.method, path, **more) as answer:
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                answer.read()
            else:
                answer._content = b""
            return answer


def unserved() -> FastAPI:
    """The bridge's app, to look at its routes."""
    return create_app(cast(SessionService, None))


def routes() -> list[Route]:
    """Every route of the bridge, those that end something last."""
    app = unserved()
    document = app.openapi()
    found = []
    for one in iter_route_contexts(app.routes):
        names = tuple(name for name in re.findall(r"{(\w+)}", one.path) if name not in ABSENT)
        for method in set(one.methods or ()) - {"HEAD"}:
            operation = document["paths"].get(one.path, {}).get(method.lower())
            fields = _fields(operation, document) if operation else ()
            by_name = one.path.startswith("/agents/") and one.path != "/agents/create"
            found.append(Route(method, one.path, names, fields, by_name, operation is not None))
    return sorted(found, key=lambda one: (one.method == "DELETE", -one.path.count("/")))


def _fields(operation: dict[str, Any], document: dict[str, Any]) -> tuple[str, ...]:
    headers = [one["name"] for one in operation.get("parameters", []) if one["name"] == HEADER]
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return (*headers, *(one for one in schema.get("properties", {}) if one in REFERENCES))


class Walk(NamedTuple):
    """The routes, and two tenants with one of everything each."""

    routes: list[Route]
    ann: httpx.Client
    anns: dict[str, str]
    bob: httpx.Client
    bobs: dict[str, str]


def said(answer: httpx.Response, ids: dict[str, str]) -> str:
    """An error's text without the ids that were asked for, and without the request's own."""
    text = answer.text
    for value in ids.values():
        text = text.replace(value, "ID") if len(value) > 4 else text
    return re.sub(r"req_\w+", "REQUEST", text)


@pytest.fixture(scope="module")
def walk(workplace: Workplace) -> Iterator[Walk]:
    """Ann and Bob with one of everything each."""
    with workplace.of("ann") as ann, workplace.of("bob") as bob:
        yield Walk(routes(), ann, made_by(ann, "otter"), bob, made_by(bob, "zebra"))


def test_another_tenants_things_are_as_unknown_as_those_that_are_not(walk: Walk) -> None:
    absent, asked = nobodys(walk.bobs), 0
    before = walk.bob.get(f"/v1/sessions/{walk.bobs['session_id']}/state").json()
    for route in walk.routes:
        mixes = [walk.bobs]
        if len(route.names) > 1 and "query_id" not in route.names:
            mixes.append(walk.bobs | {route.names[0]: walk.anns[route.names[0]]})
        for ids in mixes if route.names or route.by_name else []:
            missing = absent | {key: one for key, one in ids.items() if one == walk.anns[key]}
            got, none = route.ask(walk.ann, ids), route.ask(walk.ann, missing)
            assert got.status_code == none.status_code == 404, (str(route), got.text, none.text)
            assert said(got, ids) == said(none, missing), str(route)
            assert "zebra" not in got.text
            asked += 1
    assert asked > 40
    after = walk.bob.get(f"/v1/sessions/{walk.bobs['session_id']}/state").json()
    same = ("context_text", "n_tokens", "data_version", "data_count", "prefix_end")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}


def test_no_body_or_header_reaches_another_tenants_things(walk: Walk) -> None:
    absent, asked = nobodys(walk.bobs), 0
    for route in walk.routes:
        own = {name: walk.anns[name] for name in route.names}
        for field in route.fields:
            if (str(route), field) in NEW_IDS:
                continue
            got = route.ask(walk.ann, walk.bobs | own, field)
            none = route.ask(walk.ann, absent | own, field)
            assert got.status_code == none.status_code, (str(route), field, got.text, none.text)
            passed_over = (str(route), field) in PASSED_OVER
            assert got.is_success == passed_over, (str(route), field, got.text)
            assert said(got, walk.bobs) == said(none, absent), (str(route), field)
            asked += 1
    assert asked > 10


def test_no_list_shows_another_tenants_things(walk: Walk) -> None:
    shown = ""
    for route in walk.routes:
        if route.method == "GET" and not route.names and not route.by_name:
            text = route.ask(walk.ann, {}).text
            assert "zebra" not in text, str(route)
            assert not [one for one in walk.bobs.values() if len(one) > 4 and one in text]
            shown += text
    assert all(walk.anns[one] in shown for one in ("session_id", "agent_id", "completion_id"))
    listed = walk.ann.get("/v1/sessions").json()
    assert {one["session_id"] for one in listed["sessions"]} == {
        walk.anns["session_id"],
        walk.anns["stack_session_id"],
    }
    assert listed["count"] == 2
    assert "flashfeed_sessions 2.0" in walk.ann.get("/metrics").text


def sockets() -> list[str]:
    """The path of every WebSocket of a session."""
    paths = [one.path for one in iter_route_contexts(unserved().routes) if one.methods is None]
    return [path for path in paths if "{session_id}" in path]


@pytest.mark.parametrize("path", sockets())
def test_no_socket_opens_on_another_tenants_session(
    walk: Walk, workplace: Workplace, path: str
) -> None:
    base = workplace.url.replace("http", "ws", 1)
    headers = {"x-api-key": workplace.keys["ann"]}
    answers = []
    for session in (walk.bobs["session_id"], nobodys(walk.bobs)["session_id"]):
        with pytest.raises(InvalidStatus) as refused:
            connect(base + path.format(session_id=session), additional_headers=headers)
        body = refused.value.response.body.decode()
        answers.append((refused.value.response.status_code, body.replace(session, "ID")))
    assert answers[0][0] == 404
    assert len({re.sub(r"req_\w+", "", str(one)) for one in answers}) == 1
    with connect(
        base + path.format(session_id=walk.anns["session_id"]), additional_headers=headers
    ) as own:
        assert json.loads(own.recv(5))["data"]["session_id"] == walk.anns["session_id"]


def test_no_call_over_realm_reaches_another_tenants_session(
    walk: Walk, workplace: Workplace
) -> None:
    """Realm's socket logs in by a message; a call's tenant_id is a part of the key's tenant."""

    def asked(session_id: str, tenant_id: str) -> dict[str, Any]:
        params = {"prompt": TEXT, "max_tokens": 2, "session_id": session_id}
        call = {"id": str(uuid.uuid4()), "function": "generate", "params": params}
        socket.send(json.dumps({**call, "tenant_id": tenant_id}))
        answer: dict[str, Any] = json.loads(socket.recv(30))
        assert answer.pop("id") == call["id"]
        return answer

    with connect(workplace.url.replace("http", "ws", 1) + "/") as socket:
        assert json.loads(socket.recv(5))["type"] == "auth_required"
        socket.send(json.dumps({"type": "auth", "api_key": workplace.keys["ann"]}))
        frames = [json.loads(socket.recv(5))]
        while frames[-1].get("type") == "auth_success" or "status" not in frames[-1]:
            frames.append(json.loads(socket.recv(5)))
        for tenant_id in ("part-one", "bob"):
            theirs, nobody = walk.bobs["session_id"], nobodys(walk.bobs)["session_id"]
            got, none = asked(theirs, tenant_id), asked(nobody, tenant_id)
            assert got["error"]["details"] == {"code": "session_not_found"}
            assert json.dumps(got).replace(theirs, "ID") == json.dumps(none).replace(nobody, "ID")
            assert asked(walk.anns["session_id"], tenant_id)["status"] == "complete"


def test_an_id_is_free_for_every_tenant_and_each_has_its_own_session(walk: Walk) -> None:
    for http, text in (walk.ann, "otter"), (walk.bob, "zebra"):
        assert http.post("/v1/sessions", json={"id": "same"}).status_code == 200
        assert http.post("/v1/sessions", json={"id": "same"}).status_code == 409
        http.post("/v1/sessions/same/append", json={"text": text})
    for http, text in (walk.ann, "otter"), (walk.bob, "zebra"):
        held = http.get("/v1/sessions/same/state").json()
        assert held["session_id"] == "same" and held["context_text"].count(text) == 1
        assert http.delete("/v1/sessions/same").status_code == 200
        assert http.get("/v1/sessions/same").status_code == 404


def test_the_owner_is_served_by_every_route_that_refused_another(walk: Walk) -> None:
    """Runs after the others: it deletes. Without it they could pass on requests that nobody
    is served."""
    for route in walk.routes:
        if route.names and route.documented and str(route) not in REFUSED_TO_OWNER:
            answer = route.ask(walk.bob, walk.bobs)
            assert answer.is_success, (str(route), answer.status_code, answer.text)


async def test_a_feed_of_a_tenants_template_is_the_tenants_under_its_plain_id(
    workplace: Workplace,
) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=workplace.brokers)
    await producer.start()
    await producer.send_and_wait("tenants-sensors", orjson.dumps({"id": "glucose", "v": 101.0}))
    await producer.stop()
    with workplace.of("ann") as ann, workplace.of("bob") as bob:
        deadline = time.monotonic() + 60  # patterns are held against new topics in between
        while time.monotonic() < deadline:
            held = ann.get("/v1/sessions/glucose/state")
            if held.is_success and held.json()["data_count"]:
                break
            await asyncio.sleep(0.2)
        assert "101" in held.json()["context_text"] and held.json()["session_id"] == "glucose"
        assert bob.get("/v1/sessions/glucose/state").status_code == 404
        assert bob.post("/v1/sessions", json={"id": "glucose"}).is_success
        assert "101" not in bob.get("/v1/sessions/glucose/state").json()["context_text"]
        events = ann.stream("GET", "/flashfeed/v1/sessions/glucose/events")
        with events as stream:
            head = next(line for line in stream.iter_lines() if line.startswith("data:"))
        assert orjson.loads(head[5:])["session_id"] == "glucose"


# -- limits -------------------------------------------------------------------------


def test_a_tenant_takes_its_sessions_and_connections_and_no_more(workplace: Workplace) -> None:
    with workplace.of("few") as few, workplace.of("env") as other:
        made = few.post("/v1/sessions/init", json={"type": "iot"}).json()["session_id"]
        over = few.post("/v1/sessions/init", json={"type": "iot"})
        assert over.status_code == 429 and int(over.headers["retry-after"]) >= 1
        assert "tenant few may have at most 1 sessions (sessions)" in over.text
        kept = other.post("/v1/sessions/init", json={"type": "iot"})
        assert kept.is_success
        other.delete(f"/v1/sessions/{kept.json()['session_id']}")

        events = f"/v1/sessions/{made}/events"
        with few.stream("GET", events) as one, few.stream("GET", events) as two:
            assert one.status_code == two.status_code == 200
            over = few.get("/v1/sessions")
            assert over.status_code == 429 and "(connections)" in over.text
            assert other.get("/v1/sessions").is_success
        deadline = time.monotonic() + 5
        while few.get("/v1/sessions").status_code == 429 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert few.delete(f"/v1/sessions/{made}").is_success
        again = few.post("/v1/sessions/init", json={"type": "iot"})
        assert again.is_success


def test_tokens_a_minute(broker: str, workplace: Workplace) -> None:
    """`env` has the configuration's own limits: 40 tokens a minute."""
    ask = {"model": "packaged", "prompt": "one two three four five six", "max_tokens": 4}
    with workplace.of("env") as env, workplace.of("bob") as bob:
        spent, answers = 0, []
        for _ in range(12):
            answer = env.post("/v1/completions", json={**ask, "prompt": f"{uuid.uuid4()} one"})
            answers.append(answer)
            if not answer.is_success:
                break
            spent += answer.json()["usage"]["total_tokens"]
        assert answers[-1].status_code == 429
        assert "tenant env may have at most 40 tokens a minute" in answers[-1].text
        assert 40 <= spent < 40 + 60
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert env.get("/v1/sessions").is_success  # what costs no tokens goes on
        assert bob.post("/v1/completions", json=ask).is_success


def test_the_log_holds_no_key(workplace: Workplace) -> None:
    httpx.get(f"{workplace.url}/v1/sessions", headers={"x-api-key": "not-a-key-of-anybody"})
    log = workplace.log.read_text()
    assert "bridge on http" in log
    for key in (*workplace.keys.values(), "not-a-key-of-anybody"):
        assert key not in log
