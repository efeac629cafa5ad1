"""What a worker says of itself to llama-stack-client 0.2.12 of PyPI, and what it does not
have."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

import httpx
import pytest
from conftest import RunningWorker
from llama_stack_asked import PYPI, llama_stack, model_id
from llama_stack_client import LlamaStackClient, NotFoundError, PermissionDeniedError


def runs(method: str) -> pytest.MarkDecorator:
    return pytest.mark.client(PYPI, method)


@pytest.fixture(scope="module")
def client(worker: RunningWorker) -> Iterator[LlamaStackClient]:
    with llama_stack(worker.url) as client:
        yield client


@pytest.fixture(scope="module")
def model(worker: RunningWorker) -> str:
    return model_id(worker.url)


@runs("models.list")
@runs("models.retrieve")
def test_models(client, worker, model):
    models = client.models.list()
    assert [one.identifier for one in models] == [model]
    assert client.models.retrieve(model) == models[0]
    assert (models[0].api_model_type, models[0].type) == ("llm", "model")
    session = httpx.post(f"{worker.url}/v1/sessions/init", json={"type": "iot"}).json()
    assert models[0].metadata["context_length"] == session["context"]
    httpx.delete(f"{worker.url}/v1/sessions/{session['session_id']}")
    with pytest.raises(NotFoundError):
        client.models.retrieve("nope")


@runs("models.register")
@runs("models.unregister")
def test_models_are_the_configurations(client, model):
    assert client.models.register(model_id=model) == client.models.retrieve(model)
    with pytest.raises(NotFoundError, match="known: "):
        client.models.register(model_id="nope")
    with pytest.raises(PermissionDeniedError):
        client.models.unregister(model)


@runs("inspect.health")
@runs("inspect.version")
def test_health_and_version(client):
    assert client.inspect.health().status == "OK"
    assert client.inspect.version().version == importlib.metadata.version("flashfeed")


@runs("routes.list")
def test_the_routes_are_those_of_openapi_and_more(client, worker):
    listed = {(one.route, one.method) for one in client.routes.list()}
    paths = httpx.get(f"{worker.url}/openapi.json").json()["paths"]
    documented = {(path, method.upper()) for path, methods in paths.items() for method in methods}
    assert documented <= listed
    assert ("/agents/session/create", "POST") in listed


@runs("providers.list")
@runs("providers.retrieve")
def test_the_providers_are_what_runs(client, model):
    providers = client.providers.list()
    assert {one.api for one in providers} == {"inference", "agents", "inspect"}
    assert providers[0].health == {"status": "OK"}
    assert providers[0].config["models"] == [model]
    assert client.providers.retrieve(providers[0].provider_id) == providers[0]
    with pytest.raises(NotFoundError):
        client.providers.retrieve("ollama")


@runs("tools.list")
@runs("toolgroups.list")
@runs("tool_runtime.list_tools")
@runs("shields.list")
def test_flashfeed_runs_no_tools_and_has_no_shields(client):
    assert client.tools.list() == client.toolgroups.list() == client.shields.list() == []
    assert client.tool_runtime.list_tools() == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.datasets.list(),
        lambda client: client.vector_dbs.list(),
        lambda client: client.safety.run_shield(messages=[], params={}, shield_id="x"),
        lambda client: client.eval.jobs.retrieve("j", benchmark_id="b"),
        lambda client: client.toolgroups.get("g"),
        lambda client: client.shields.retrieve("s"),
        lambda client: client.tool_runtime.invoke_tool(tool_name="t", kwargs={}),
    ],
)
def test_what_flashfeed_does_not_have_is_a_json_404(client, ask):
    with pytest.raises(NotFoundError) as refused:
        ask(client)
    assert refused.value.body["error"]["code"] == "route_not_found"
