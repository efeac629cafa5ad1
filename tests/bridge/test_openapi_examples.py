"""Every route of the document is described and shows what is sent and what comes back; what
comes back was recorded from a worker, and a worker still answers in that shape.

    pytest tests/bridge/test_openapi_examples.py --write-examples    writes examples.json again
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from flashfeed.bridge.app import create_app
from flashfeed.bridge.openapi_examples import FILE, operations

from openai_worker import EMBEDDER, embedding_model

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"strategy": {"type": "greedy"}, "max_tokens": 6}
LIMIT = {
    "name": "get_limit",
    "description": "The limit of a sensor",
    "parameters": [
        {"name": "sensor", "parameter_type": "string", "description": "its name", "required": True}
    ],
}
AGENT = {
    "instructions": "You watch a server room.",
    "model": "packaged",
    "sampling_params": GREEDY | {"max_tokens": 40},
    "client_tools": [LIMIT],
}
TURN = {"messages": MESSAGES, "tool_config": {"tool_choice": "none"}}
CALL = {"messages": MESSAGES, "tool_config": {"tool_choice": "required"}}
CALLED = {"called": "turn_id", "call": "output_message.tool_calls.0.call_id"}
RESUMED = {"tool_responses": [{"call_id": "{call}", "tool_name": "get_limit", "content": "30"}]}
ASKED = {"model": "packaged", "messages": MESSAGES, "max_tokens": 6, "temperature": 0}
TEXT = {"model": "packaged", "prompt": "The capital of France is", "max_tokens": 4}
INPUT = {"model": "packaged", "input": "What is the capital of France?", "max_output_tokens": 6}
ITEMS = {"items": [{"type": "message", "role": "user", "content": "I watch AAPL."}]}
STACK = {"model_id": "packaged", "sampling_params": GREEDY}
STREAM_CHARACTERS_MAX = 1500

AGENT_PATH = "/v1/agents/{agent}"
SESSION_PATH = AGENT_PATH + "/session/{session}"
TURN_PATH = SESSION_PATH + "/turn"

# What is asked, in an order in which each finds what it needs: method, path as it is asked
# ({name} is what an earlier answer gave), body, and what of the answer has which name.
Step = tuple[str, str, Any, dict[str, str]]
TOUR: list[Step] = [
    ("GET", "/health", None, {}),
    ("GET", "/livez", None, {}),
    ("GET", "/readyz", None, {}),
    ("GET", "/metrics", None, {}),
    ("POST", "/v1/agents", {"agent_config": AGENT}, {"agent": "agent_id"}),
    ("GET", "/v1/agents", None, {}),
    ("GET", AGENT_PATH, None, {}),
    ("POST", AGENT_PATH + "/session", {"session_name": "room"}, {"session": "session_id"}),
    ("POST", TURN_PATH, TURN | {"stream": True}, {}),
    ("POST", TURN_PATH, TURN, {"turn": "turn_id", "step": "steps.0.step_id"}),
    ("GET", TURN_PATH + "/{turn}", None, {}),
    ("GET", TURN_PATH + "/{turn}/step/{step}", None, {}),
    ("GET", SESSION_PATH, None, {}),
    ("GET", AGENT_PATH + "/sessions", None, {}),
    ("GET", "/agents/turn/get?agent_id={agent}&turn_id={turn}", None, {}),
    (
        "GET",
        "/agents/step/get?agent_id={agent}&turn_id={turn}&step_id={step}",
        None,
        {},
    ),
    ("GET", "/agents/session/get?agent_id={agent}&session_id={session}", None, {}),
    ("POST", "/agents/session/get?agent_id={agent}&session_id={session}", None, {}),
    ("POST", TURN_PATH, CALL, CALLED),
    ("POST", TURN_PATH + "/{called}/resume", RESUMED, {}),
    ("POST", TURN_PATH, CALL, CALLED),
    ("POST", TURN_PATH + "/{called}/resume", RESUMED | {"stream": True}, {}),
    ("DELETE", SESSION_PATH, None, {}),
    ("DELETE", AGENT_PATH, None, {}),
    ("POST", "/agents/create", {"agent_config": AGENT}, {"agent": "agent_id"}),
    (
        "POST",
        "/agents/session/create",
        {"agent_id": "{agent}", "session_name": "room"},
        {"session": "session_id"},
    ),
    (
        "POST",
        "/agents/turn/create",
        TURN | {"agent_id": "{agent}", "session_id": "{session}"},
        {},
    ),
    (
        "POST",
        "/agents/turn/create",
        TURN | {"agent_id": "{agent}", "session_id": "{session}", "stream": True},
        {},
    ),
    ("POST", "/v1/inference/chat-completion", STACK | {"messages": MESSAGES}, {}),
    ("POST", "/v1/inference/chat-completion", STACK | {"messages": MESSAGES, "stream": True}, {}),
    ("POST", "/inference/chat_completion", STACK | {"messages": MESSAGES}, {}),
    ("POST", "/inference/chat_completion", STACK | {"messages": MESSAGES, "stream": True}, {}),
    ("POST", "/v1/inference/completion", STACK | {"content": "One, two,"}, {}),
    ("POST", "/v1/inference/completion", STACK | {"content": "One, two,", "stream": True}, {}),
    ("POST", "/inference/completion", STACK | {"content": "One, two,"}, {}),
    ("POST", "/inference/completion", STACK | {"content": "One, two,", "stream": True}, {}),
    ("POST", "/v1/inference/batch-chat-completion", STACK | {"messages_batch": [MESSAGES]}, {}),
    ("POST", "/v1/inference/batch-completion", STACK | {"content_batch": ["One, two,"]}, {}),
    ("POST", "/batch_inference/chat_completion", STACK | {"messages_batch": [MESSAGES]}, {}),
    ("POST", "/batch_inference/completion", STACK | {"content_batch": ["One, two,"]}, {}),
    ("POST", "/inference/embeddings", {"model_id": EMBEDDER, "contents": ["Up."]}, {}),
    ("POST", "/v1/inference/embeddings", {"model_id": EMBEDDER, "contents": ["Up."]}, {}),
    ("GET", "/v1/version", None, {}),
    ("GET", "/v1/health", None, {}),
    ("GET", "/v1/inspect/routes", None, {}),
    ("GET", "/v1/providers", None, {"provider": "data.0.provider_id"}),
    ("GET", "/v1/providers/{provider}", None, {}),
    ("GET", "/v1/shields", None, {}),
    ("GET", "/v1/tool-runtime/list-tools", None, {}),
    ("GET", "/v1/toolgroups", None, {}),
    ("GET", "/v1/tools", None, {}),
    ("GET", "/v1/models", None, {"model": "data.0.id"}),
    ("GET", "/v1/models/{model}", None, {}),
    ("POST", "/v1/models", {"model_id": "{model}"}, {}),
    ("GET", "/models/list", None, {}),
    ("GET", "/models/get?core_model_id={model}", None, {}),
    ("POST", "/v1/messages", ASKED, {}),
    ("POST", "/v1/messages", ASKED | {"stream": True}, {}),
    ("POST", "/v1/messages/count_tokens", {"model": "packaged", "messages": MESSAGES}, {}),
    ("POST", "/v1/chat/completions", ASKED | {"stream": True}, {}),
    ("POST", "/v1/chat/completions", ASKED | {"store": True}, {"kept": "id"}),
    ("GET", "/v1/chat/completions", None, {}),
    ("GET", "/v1/chat/completions/{kept}", None, {}),
    ("POST", "/v1/chat/completions/{kept}", {"metadata": {"topic": "the week"}}, {}),
    ("GET", "/v1/chat/completions/{kept}/messages", None, {}),
    ("DELETE", "/v1/chat/completions/{kept}", None, {}),
    ("POST", "/v1/completions", TEXT, {}),
    ("POST", "/v1/completions", TEXT | {"stream": True}, {}),
    ("POST", "/v1/conversations", ITEMS | {"metadata": {"topic": "the day"}}, {"talk": "id"}),
    ("GET", "/v1/conversations/{talk}", None, {}),
    ("POST", "/v1/conversations/{talk}", {"metadata": {"topic": "the week"}}, {}),
    ("POST", "/v1/conversations/{talk}/items", ITEMS, {"item": "data.0.id"}),
    ("GET", "/v1/conversations/{talk}/items", None, {}),
    ("GET", "/v1/conversations/{talk}/items/{item}", None, {}),
    ("DELETE", "/v1/conversations/{talk}/items/{item}", None, {}),
    ("DELETE", "/v1/conversations/{talk}", None, {}),
    ("POST", "/v1/embeddings", {"model": EMBEDDER, "input": ["Up."]}, {}),
    ("POST", "/v1/responses", INPUT | {"stream": True}, {}),
    ("POST", "/v1/responses", INPUT, {"response": "id"}),
    ("GET", "/v1/responses", None, {}),
    ("POST", "/v1/responses/input_tokens", INPUT, {}),
    ("GET", "/v1/responses/{response}", None, {}),
    ("GET", "/v1/responses/{response}/input_items", None, {}),
    ("DELETE", "/v1/responses/{response}", None, {}),
]
EVENTS = "/flashfeed/v1/sessions/{session_id}/events"


def filled(value: Any, known: dict[str, str]) -> Any:
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda match: known[match[1]], value)
    if isinstance(value, dict):
        return {key: filled(one, known) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, known) for one in value]
    return value


def found(answer: Any, path: str) -> str:
    for part in path.split("."):
        answer = answer[int(part)] if part.isdigit() else answer[part]
    return str(answer)


def template_of(path: str, templates: list[str]) -> str:
    """The document's path that the asked one is of; one without parameters goes first."""
    plain = path.partition("?")[0]
    for template in sorted(templates, key=lambda one: one.count("{")):
        pattern = re.sub(r"\{\w+\}", "[^/]+", template)
        if re.fullmatch(pattern, plain):
            return template
    raise AssertionError(f"no path of the document is {path}")


def shortened(answer: Any) -> Any:
    """An answer as an example: long lists of numbers and long texts are cut."""
    if isinstance(answer, list):
        most = 3 if answer and isinstance(answer[0], float) else 8
        return [shortened(one) for one in answer[:most]]
    if isinstance(answer, dict):
        return {key: shortened(one) for key, one in list(answer.items())[:40]}
    if isinstance(answer, str) and len(answer) > STREAM_CHARACTERS_MAX:
        return answer[: answer.rindex("\n", 0, STREAM_CHARACTERS_MAX)] + "\n"
    return answer


def shape(value: Any, lists: bool = True) -> Any:
    """The keys of an answer, whatever stands in them; of server-sent events the first's.
    What a GET lists (not `lists`) may be what others have left there."""
    if isinstance(value, dict):
        return {key: shape(one, lists) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value and lists else []
    if isinstance(value, str) and "data: " in value:
        return shape(orjson.loads(re.findall(r"^data: (.*)$", value, flags=re.M)[0]))
    return None


def answers(url: str) -> dict[str, dict[str, Any]]:
    """What a worker answers on the tour, by the document's routes and content types."""
    known: dict[str, str] = {}
    given: dict[str, dict[str, Any]] = {}
    with httpx.Client(base_url=url, timeout=120) as http:
        templates = list(http.get("/openapi.json").json()["paths"])
        for method, path, body, names in TOUR:
            asked = filled(path, known)
            answer = http.request(method, asked, json=filled(body, known))
            assert answer.is_success, (method, asked, answer.text)
            if not answer.content:
                continue
            kind = answer.headers["content-type"].partition(";")[0]
            whole = answer.json() if kind == "application/json" else answer.text
            known |= {name: found(whole, place) for name, place in names.items()}
            name = f"{method} {template_of(path, templates)}"
            given.setdefault(name, {})[kind] = shortened(whole)
        given[f"GET {EVENTS}"] = {"text/event-stream": session_events(http)}
    return given


def session_events(http: httpx.Client) -> str:
    body = {"type": "iot", "flash": [{"query": "Hot?", "choices": ["yes", "no"]}]}
    session_id = http.post("/v1/sessions/init", json=body).json()["session_id"]
    text = ""
    with http.stream("GET", EVENTS.format(session_id=session_id)) as stream:
        chunks = stream.iter_text()
        text += next(chunks)
        push = {"data": [{"sid": "a", "val": 30.5}]}
        http.post(f"/v1/sessions/{session_id}/stream/push", json=push).raise_for_status()
        while "data_updated" not in text:
            text += next(chunks)
    http.delete(f"/v1/sessions/{session_id}")
    return text


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(None).openapi()  # type: ignore[arg-type]


def bodies(operation: dict[str, Any], document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema of a request's body, with the example beside it."""
    content = operation.get("requestBody", {}).get("content", {})
    for one in content.values():
        schema = one["schema"]
        refs = [schema, *schema.get("anyOf", ())]
        named = [part["$ref"].rpartition("/")[2] for part in refs if "$ref" in part]
        schema = document["components"]["schemas"][named[0]] if named else schema
        yield schema | ({"examples": [one["example"]]} if "example" in one else {})


def test_every_route_says_what_it_does_and_what_is_sent(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert len(operation["description"]) > 10, name
        for schema in bodies(operation, document):
            fields = schema.get("properties", {}).values()
            shown = "examples" in schema or all("examples" in field for field in fields)
            assert shown, f"{name}: its body has no example"


def test_every_route_shows_what_comes_back(document: dict[str, Any]) -> None:
    names = [name for name, _ in operations(document)]
    assert set(orjson.loads(FILE.read_bytes())) <= set(names)
    for name, operation in operations(document):
        for kind, content in operation["responses"].get("200", {}).get("content", {}).items():
            assert content.get("example") not in (None, ""), f"{name}: no example of {kind}"


@pytest.mark.broker
@pytest.mark.model
def test_a_worker_answers_in_the_shape_that_the_examples_have(
    worker: Any, request: pytest.FixtureRequest
) -> None:
    embedding_model(Path(worker.log).parent)
    given = answers(worker.url)
    if request.config.getoption("--write-examples"):
        FILE.write_bytes(orjson.dumps(given, option=orjson.OPT_INDENT_2) + b"\n")
    examples = orjson.loads(FILE.read_bytes())
    assert set(given) == set(examples)
    for name, kinds in examples.items():
        for kind, example in kinds.items():
            lists = not name.startswith("GET")
            assert shape(given[name][kind], lists) == shape(example, lists), (name, kind)
