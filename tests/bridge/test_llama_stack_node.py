"""llama-stack-client 0.0.35, 0.3.0 and 0.7.3 of npm against a real worker: every method, and
what it gives against what the session holds, or against the same asked another way."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import httpx
import pytest
from conftest import RunningWorker
from llama_stack_asked import ASKED, KNOWN, asked_otherwise, model_id
from llama_stack_node import Check, NodeRun, node_run

from openai_worker import EMBEDDER, embedding_model

QUESTION = {"role": "user", "content": ASKED}
CHAT = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "What is the capital of France?"},
]


@cache
def capital(url: str) -> str:
    """What the model says to CHAT."""
    text: str = asked_otherwise(url, CHAT, max_tokens=12)["message"]["content"]
    return text


@cache
def went_on(url: str) -> str:
    """How the model goes on with the text that the scripts send."""
    body = {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 12}
    answer = httpx.post(f"{url}/v1/completions", json=body | {"model": model_id(url)}, timeout=60)
    text: str = answer.raise_for_status().json()["choices"][0]["text"]
    return text


def embedded(url: str, *texts: str) -> list[list[float]]:
    """The embeddings of texts, in OpenAI's words."""
    body = {"model": EMBEDDER, "input": list(texts), "encoding_format": "float"}
    answer = httpx.post(f"{url}/v1/embeddings", json=body, timeout=60).raise_for_status().json()
    return [one["embedding"] for one in answer["data"]]


def close(vectors: list[list[float]], others: list[list[float]]) -> bool:
    assert len(vectors) == len(others) and all(vectors)
    return all(
        vector == pytest.approx(other, abs=1e-3)
        for vector, other in zip(vectors, others, strict=True)
    )


# -- agents, in both kinds of words ---------------------------------------------------


def has_id(key: str) -> Check:
    def check(value: Any, run: NodeRun) -> None:
        assert set(value) == {key} and value[key]

    return check


def is_none(value: Any, run: NodeRun) -> None:
    # A client that reads no body gives "" for it, one that looks gives nothing.
    assert not value


def payloads(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [chunk["event"]["payload"] for chunk in chunks]


def in_order(events: list[dict[str, Any]], ended: str = "turn_complete") -> None:
    kinds = [event["event_type"] for event in events]
    assert kinds[0] == "turn_start" and kinds[1] == "step_start"
    assert kinds[-2:] == ["step_complete", ended]
    assert set(kinds[2:-2]) <= {"step_progress"}


def knows(turn: Mapping[str, Any]) -> None:
    assert turn["output_message"]["content"] == KNOWN
    assert turn["input_messages"] == [QUESTION]
    [step] = turn["steps"]
    assert step["model_response"] == turn["output_message"]


def old_turn(value: Any, run: NodeRun) -> None:
    assert value["event"]["payload"]["event_type"] == "turn_complete"
    knows(value["event"]["payload"]["turn"])


def old_stream(value: Any, run: NodeRun) -> None:
    events = payloads(value)
    in_order(events)
    text = "".join(event.get("model_response_text_delta", "") for event in events)
    assert text == events[-1]["turn"]["output_message"]["content"]
    assert not any("delta" in event for event in events)


def old_call(value: Any, run: NodeRun) -> None:
    events = payloads(value)
    in_order(events)  # a turn of 0.0.35 awaits nothing
    deltas = [e["tool_call_delta"] for e in events if e["event_type"] == "step_progress"]
    assert [delta["parse_status"] for delta in deltas] == ["started", "success"]
    [call] = events[-1]["turn"]["output_message"]["tool_calls"]
    assert deltas[1]["content"] == call
    assert (call["tool_name"], call["arguments"]) == ("get_weather", {"city": "Rome"})


def old_answered(value: Any, run: NodeRun) -> None:
    turn = value["event"]["payload"]["turn"]
    [given] = turn["input_messages"]
    assert (given["role"], given["content"]) == ("ipython", "sunny")
    assert turn["turn_id"].endswith(".2")


def same_turn(method: str) -> Check:
    """The turn that another method gave before."""

    def check(value: Any, run: NodeRun) -> None:
        before = run.value(method)
        assert value == (before["event"]["payload"]["turn"] if "event" in before else before)

    return check


def same_step(method: str) -> Check:
    def check(value: Any, run: NodeRun) -> None:
        before = run.value(method)
        turn = before["event"]["payload"]["turn"] if "event" in before else before
        assert value == {"step": turn["steps"][0]}

    return check


def session_of(created: str, first: str, stream: str, name: str = "room 4") -> Check:
    """The session with the two turns that were asked in it."""

    def check(value: Any, run: NodeRun) -> None:
        assert value["session_id"] == run.value(created)["session_id"]
        assert value["session_name"] == name
        before = run.value(first)
        turn = before["event"]["payload"]["turn"] if "event" in before else before
        assert value["turns"] == [turn, payloads(run.value(stream))[-1]["turn"]]

    return check


def old_named(value: Any, run: NodeRun) -> None:
    assert len(value["turns"]) == 1
    same_turn("agents.turns.create")(value["turns"][0], run)


def turn_stream(value: Any, run: NodeRun) -> None:
    events = payloads(value)
    in_order(events)
    deltas = [event["delta"] for event in events if event["event_type"] == "step_progress"]
    text = "".join(delta["text"] for delta in deltas)
    assert text == events[-1]["turn"]["output_message"]["content"]


def a_turn(value: Any, run: NodeRun) -> None:
    knows(value)


def agent_told(value: Any, run: NodeRun) -> None:
    assert value["agent_id"] == run.value("agents.create")["agent_id"]
    assert value["agent_config"]["instructions"] == "You watch machines. Answer briefly."
    assert value["created_at"]


def agents_listed(value: Any, run: NodeRun) -> None:
    assert value["has_more"] is False
    assert run.value("agents.retrieve") in value["data"]


def sessions_listed(value: Any, run: NodeRun) -> None:
    assert value["data"] == [run.value("agents.session.retrieve")]


def resumed(value: Any, run: NodeRun) -> None:
    kinds = [step["step_type"] for step in value["steps"]]
    assert kinds[:3] == ["inference", "tool_execution", "inference"]
    assert value["steps"][1]["tool_responses"][0]["content"] == "sunny"


def resumed_stream(value: Any, run: NodeRun) -> None:
    events = payloads(value)
    assert [event["event_type"] for event in events[:2]] == ["step_complete", "step_start"]
    assert events[0]["step_type"] == "tool_execution"
    turn = events[-1]["turn"]
    resumed(turn, run)
    # The same was asked without a stream, in a session of the same kind.
    other = run.value("agents.turn.resume")
    assert turn["output_message"]["content"] == other["output_message"]["content"]


# -- inference ----------------------------------------------------------------------


def chat(value: Any, run: NodeRun) -> None:
    message = value["completion_message"]
    assert message["content"] == capital(run.url)
    assert message["tool_calls"] == []
    tokens = value["logprobs"]
    assert all(max(token["logprobs_by_token"].values()) <= 0 for token in tokens)
    counts = {one["metric"]: one["value"] for one in value["metrics"]}
    assert len(tokens) in (counts["completion_tokens"], counts["completion_tokens"] - 1)


def old_chat_stream(value: Any, run: NodeRun) -> None:
    events = [chunk["event"] for chunk in value]
    kinds = [event["event_type"] for event in events]
    assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("start", "complete", {"progress"})
    assert "".join(event["delta"] for event in events) == capital(run.url)
    assert events[-1]["stop_reason"] in ("end_of_turn", "out_of_tokens")


def chat_stream(value: Any, run: NodeRun) -> None:
    assert "".join(chunk["event"]["delta"]["text"] for chunk in value) == capital(run.url)
    assert value[-1]["event"]["stop_reason"] in ("end_of_turn", "out_of_tokens")


def old_completion(value: Any, run: NodeRun) -> None:
    assert value["completion_message"]["content"] == went_on(run.url)


def completion(value: Any, run: NodeRun) -> None:
    assert (value["content"], value["stop_reason"]) == (went_on(run.url), "out_of_tokens")


def completion_stream(value: Any, run: NodeRun) -> None:
    assert "".join(chunk["content"] for chunk in value) == went_on(run.url)
    assert value[-1]["stop_reason"] == "out_of_tokens"


def old_embeddings(value: Any, run: NodeRun) -> None:
    assert close(value["embeddings"], embedded(run.url, "pump", "valveopen"))


def embeddings(value: Any, run: NodeRun) -> None:
    assert close(value["embeddings"], embedded(run.url, "pump", "valve"))


def old_batch_chat(value: Any, run: NodeRun) -> None:
    texts = [message["content"] for message in value["completion_message_batch"]]
    assert texts == [capital(run.url)] * 2


def old_batch(value: Any, run: NodeRun) -> None:
    assert [one["content"] for one in value["completion_message_batch"]] == [went_on(run.url)]


def batch_chat(value: Any, run: NodeRun) -> None:
    texts = [one["completion_message"]["content"] for one in value["batch"]]
    assert texts == [capital(run.url)] * 2


def batch(value: Any, run: NodeRun) -> None:
    assert [one["content"] for one in value["batch"]] == [went_on(run.url)]


# -- OpenAI's routes, where these clients look for them -------------------------------


def openai_chat(value: Any, run: NodeRun) -> None:
    assert value["choices"][0]["message"]["content"] == capital(run.url)


def openai_chat_stream(value: Any, run: NodeRun) -> None:
    deltas = [choice["delta"] for chunk in value for choice in chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == capital(run.url)


def openai_kept(value: Any, run: NodeRun) -> None:
    assert value["id"] == run.value("chat.completions.create")["id"]
    openai_chat(value, run)


def openai_listed(value: Any, run: NodeRun) -> None:
    assert run.value("chat.completions.create")["id"] in [one["id"] for one in value]


def openai_text(value: Any, run: NodeRun) -> None:
    assert value["choices"][0]["text"] == went_on(run.url)


def openai_text_stream(value: Any, run: NodeRun) -> None:
    texts = [choice["text"] for chunk in value for choice in chunk["choices"]]
    assert "".join(texts) == went_on(run.url)


def openai_embeddings(value: Any, run: NodeRun) -> None:
    vectors = [one["embedding"] for one in value["data"]]
    assert close(vectors, embedded(run.url, "pump", "valve"))


def response_text(response: Mapping[str, Any]) -> str:
    return "".join(
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
    )


def a_response(value: Any, run: NodeRun) -> None:
    choice = asked_otherwise(run.url, CHAT[1:], max_tokens=16)
    assert response_text(value) == choice["message"]["content"]


def response_stream(value: Any, run: NodeRun) -> None:
    assert value[0]["type"] == "response.created"
    text = "".join(one["delta"] for one in value if one["type"] == "response.output_text.delta")
    assert text == response_text(run.value("responses.create"))
    assert response_text(value[-1]["response"]) == text


def response_kept(value: Any, run: NodeRun) -> None:
    assert value["id"] == run.value("responses.create")["id"]
    assert response_text(value) == response_text(run.value("responses.create"))


def responses_listed(value: Any, run: NodeRun) -> None:
    assert run.value("responses.create")["id"] in [one["id"] for one in value]


def response_items(value: Any, run: NodeRun) -> None:
    assert "What is the capital of France?" in str(value["data"])


def deleted(value: Any, run: NodeRun) -> None:
    assert value["deleted"] is True


def conversation(room: str) -> Check:
    def check(value: Any, run: NodeRun) -> None:
        assert value["id"] == run.value("conversations.create")["id"]
        assert value["metadata"] == {"room": room}

    return check


def item_text(text: str) -> Check:
    def check(value: Any, run: NodeRun) -> None:
        assert value["content"][0]["text"] == text

    return check


def items_made(value: Any, run: NodeRun) -> None:
    item_text("Again")(value["data"][0], run)


def items_listed(value: Any, run: NodeRun) -> None:
    assert [one["content"][0]["text"] for one in value] == ["Hello", "Again"]


# -- the server itself ----------------------------------------------------------------


def old_models(value: Any, run: NodeRun) -> None:
    assert value["llama_model"]["core_model_id"] == run.model
    assert value["provider_config"]["provider_id"] == "flashfeed"


def nothing(value: Any, run: NodeRun) -> None:
    assert value is None


def empty(value: Any, run: NodeRun) -> None:
    assert value == []


def models(value: Any, run: NodeRun) -> None:
    [model] = value
    assert model == httpx.get(f"{run.url}/v1/models").json()["data"][0]
    assert (model["id"], model["object"], model["owned_by"]) == (run.model, "model", "flashfeed")


def model(value: Any, run: NodeRun) -> None:
    assert (value["identifier"], value["model_type"], value["type"]) == (run.model, "llm", "model")
    assert value == run.value("models.list")[0]


def health(value: Any, run: NodeRun) -> None:
    assert value == {"status": "OK"}


def version(value: Any, run: NodeRun) -> None:
    assert value == {"version": importlib.metadata.version("flashfeed")}


def routes(prefix: str) -> Check:
    def check(value: Any, run: NodeRun) -> None:
        paths = httpx.get(f"{run.url}/openapi.json").json()["paths"]
        documented = {path for path in paths if path.startswith(prefix)}
        listed = {one["route"] for one in value}
        assert listed
        assert documented <= listed
        assert all(path.startswith(prefix) for path in listed)
        assert all(one["provider_types"] == ["inline::flashfeed"] for one in value)

    return check


def providers(value: Any, run: NodeRun) -> None:
    assert [one["api"] for one in value] == ["inference", "agents", "inspect"]
    assert all(one["health"] == {"status": "OK"} for one in value)


def provider(value: Any, run: NodeRun) -> None:
    assert (value["provider_id"], value["config"]["models"]) == ("flashfeed", [run.model])


def live(value: Any, run: NodeRun) -> None:
    assert value["choices"][0]["message"]["content"] == KNOWN


SERVER: dict[str, Check] = {
    "models.list": models,
    "models.retrieve": model,
    "models.openai.list": models,
    "inspect.health": health,
    "inspect.version": version,
    "routes.list": routes("/"),
    "providers.list": providers,
    "providers.retrieve": provider,
    "shields.list": empty,
}
OPENAI: dict[str, Check] = {
    "chat.completions.create": openai_chat,
    "chat.completions.create stream": openai_chat_stream,
    "chat.completions.retrieve": openai_kept,
    "chat.completions.list": openai_listed,
    "completions.create": openai_text,
    "completions.create stream": openai_text_stream,
    "embeddings.create": openai_embeddings,
    "responses.create": a_response,
    "responses.create stream": response_stream,
    "responses.retrieve": response_kept,
    "responses.list": responses_listed,
    "responses.inputItems.list": response_items,
    "responses.delete": deleted,
}
CHECKS: dict[str, dict[str, Check]] = {
    "0.0.35": {
        "agents.create": has_id("agent_id"),
        "agents.sessions.create": has_id("session_id"),
        "agents.turns.create": old_turn,
        "agents.turns.create stream": old_stream,
        "agents.turns.retrieve": same_turn("agents.turns.create"),
        "agents.steps.retrieve": same_step("agents.turns.create"),
        "agents.sessions.retrieve": session_of(
            "agents.sessions.create", "agents.turns.create", "agents.turns.create stream"
        ),
        "agents.sessions.retrieve turn_ids": old_named,
        "tool call": old_call,
        "tool response": old_answered,
        "inference.chatCompletion": chat,
        "inference.chatCompletion stream": old_chat_stream,
        "inference.completion": old_completion,
        "inference.embeddings.create": old_embeddings,
        "batchInference.chatCompletion": old_batch_chat,
        "batchInference.completion": old_batch,
        "models.list": old_models,
        "models.get": old_models,
        "models.get unknown": nothing,
        "agents.sessions.delete": is_none,
        "agents.delete": is_none,
    },
    "0.3.0": {
        "agents.create": has_id("agent_id"),
        "agents.retrieve": agent_told,
        "agents.list": agents_listed,
        "agents.session.create": has_id("session_id"),
        "agents.turn.create": a_turn,
        "agents.turn.create stream": turn_stream,
        "agents.turn.retrieve": same_turn("agents.turn.create"),
        "agents.steps.retrieve": same_step("agents.turn.create"),
        "agents.session.retrieve": session_of(
            "agents.session.create", "agents.turn.create", "agents.turn.create stream"
        ),
        "agents.session.list": sessions_listed,
        "agents.turn.resume": resumed,
        "agents.turn.resume stream": resumed_stream,
        "inference.chatCompletion": chat,
        "inference.chatCompletion stream": chat_stream,
        "inference.completion": completion,
        "inference.completion stream": completion_stream,
        "inference.embeddings": embeddings,
        "inference.batchChatCompletion": batch_chat,
        "inference.batchCompletion": batch,
        "models.register": model,
        "tools.list": empty,
        "toolgroups.list": empty,
        "toolRuntime.listTools": empty,
        "agents.session.delete": is_none,
        "agents.delete": is_none,
        **OPENAI,
        **SERVER,
    },
    "0.7.3": {
        "live session": live,
        "conversations.create": conversation("4"),
        "conversations.retrieve": conversation("4"),
        "conversations.update": conversation("5"),
        "conversations.items.create": items_made,
        "conversations.items.list": items_listed,
        "conversations.items.get": item_text("Again"),
        "conversations.items.delete": conversation("5"),
        "conversations.delete": deleted,
        "routes.list v1alpha": routes("/v1alpha/"),
        "alpha.admin.health": health,
        "alpha.admin.version": version,
        "alpha.admin.listRoutes": routes("/v1/"),
        "alpha.admin.listProviders": providers,
        "alpha.admin.inspectProvider": provider,
        **OPENAI,
        **SERVER,
    },
}
REFUSED: dict[str, dict[str, tuple[str, int]]] = {
    "0.0.35": {
        "agents.sessions.retrieve deleted": ("NotFoundError", 404),
        "agents.sessions.create deleted": ("NotFoundError", 404),
    },
    "0.3.0": {
        "models.unregister": ("PermissionDeniedError", 403),
        "agents.session.retrieve deleted": ("NotFoundError", 404),
        "agents.retrieve deleted": ("NotFoundError", 404),
    },
    "0.7.3": {"live session deleted": ("NotFoundError", 404)},
}


@pytest.fixture(scope="module")
def runs(worker: RunningWorker) -> Iterator[dict[str, NodeRun]]:
    """The runs there were; beside them a model that gives embeddings."""
    embedding_model(worker.log.parent)
    yield {}


@pytest.fixture
def run(request: pytest.FixtureRequest, worker: RunningWorker, runs: dict[str, NodeRun]) -> NodeRun:
    """The run of one version of the client, which runs once."""
    version = request.getfixturevalue("client_version")
    if version not in runs:
        script = f"llama_stack_{version.replace('.', '_')}.mjs"
        runs[version] = node_run(script, worker.url, model_id(worker.url), EMBEDDER)
    return runs[version]


def rows(table: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """A row for each method; where its first word names a method it is in the clients' table."""
    return [
        pytest.param(
            version,
            method,
            expected,
            id=f"{version} {method}",
            marks=[
                pytest.mark.client(f"llama-stack-client {version} (npm)", name)
                for name in [method.partition(" ")[0]]
                if "." in name
            ],
        )
        for version, methods in table.items()
        for method, expected in methods.items()
    ]


@pytest.mark.parametrize(("client_version", "method", "check"), rows(CHECKS))
def test_method(run: NodeRun, client_version: str, method: str, check: Check) -> None:
    check(run.value(method), run)


@pytest.mark.parametrize(("client_version", "method", "expected"), rows(REFUSED))
def test_refusal(run: NodeRun, client_version: str, method: str, expected: tuple[str, int]) -> None:
    assert method in run.errors, run.values.get(method)
    assert (run.errors[method]["class"], run.errors[method]["status"]) == expected


@pytest.mark.parametrize("client_version", list(CHECKS))
def test_what_flashfeed_does_not_have_is_a_json_404(run: NodeRun, client_version: str) -> None:
    absent = [name for name in {**run.values, **run.errors} if name.startswith("absent ")]
    assert len(absent) >= 8
    for name in absent:
        error = run.errors[name]
        assert (error["class"], error["status"]) == ("NotFoundError", 404), name
        assert error["message"].startswith("404 no route "), name


@pytest.mark.parametrize("client_version", list(CHECKS))
def test_nothing_else_was_refused(run: NodeRun, client_version: str) -> None:
    known = {*CHECKS[client_version], *REFUSED[client_version]}
    seen = {name for name in {**run.values, **run.errors} if not name.startswith("absent ")}
    assert seen == known, run.stderr
