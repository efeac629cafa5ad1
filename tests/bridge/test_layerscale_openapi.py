"""Every LayerScale route is described, with examples of what is sent and of what is read
(that the latter have the shape of their routes, mypy checks)."""

import pydantic
import pytest

from flashfeed.bridge.app import create_app
from flashfeed.bridge.layerscale_ask_requests import GenerateBody, WarmBody
from flashfeed.bridge.layerscale_requests import (
    AddFlashBody,
    CreateBody,
    CreateTextBody,
    read_push,
)

TAGS = {"sessions", "data", "flash queries", "answers"}


@pytest.fixture
def operations(memory):
    paths = create_app(memory).openapi()["paths"]
    return {
        f"{method.upper()} {path}": operation
        for path, methods in paths.items()
        for method, operation in methods.items()
        if TAGS & set(operation.get("tags", []))
    }


def test_every_route_has_a_description_and_an_example(operations):
    assert len(operations) == 18
    for name, operation in operations.items():
        assert operation["description"], name
        [answer] = operation["responses"]["200"]["content"].values()
        assert answer["example"], name


def test_every_request_has_an_example(operations):
    for name, operation in operations.items():
        if "requestBody" not in operation or name.endswith("/mark_prefix"):
            continue  # which has an empty body, or none
        content = operation["requestBody"]["content"]["application/json"]
        assert "example" in content or content["schema"].get("$ref"), name
    for model in (CreateBody, CreateTextBody, AddFlashBody, GenerateBody, WarmBody):
        schema = model.model_json_schema()
        for example in schema["examples"]:
            model.model_validate(example)
    for path in ("push", "stream/push"):
        operation = operations[f"POST /v1/sessions/{{session_id}}/{path}"]
        body = operation["requestBody"]["content"]["application/json"]["example"]
        assert read_push(pydantic.TypeAdapter(dict).dump_json(body)) == body["data"]
