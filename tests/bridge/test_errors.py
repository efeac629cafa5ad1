"""One envelope of errors, as each published client reads it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import httpx
import layerscale
import llama_stack_client
import openai
import pytest

from flashfeed.models.errors import FlashfeedError, Overloaded, SessionFailed, Unavailable
from flashfeed.models.session import SessionSpec

from client_packages import CLIENTS, node_modules

PATH = "/v1/sessions/s1/mark_prefix"


class Refused(FlashfeedError):
    """As a route refuses what it cannot read."""

    status = 400
    code = "invalid_request_error"


class Missing(FlashfeedError):
    """As a route answers for what is not there."""

    status = 404
    code = "not_found"


# The failure, the class that clients raise for it, the family that the envelope names.
FAILURES = [
    (Refused("this is wrong"), "BadRequestError", "invalid_request_error"),
    (Missing("this is not there"), "NotFoundError", "not_found_error"),
    (SessionFailed("the session failed"), "ConflictError", "conflict_error"),
    (Overloaded("the queue is full"), "RateLimitError", "rate_limit_error"),
    (FlashfeedError("the engine broke"), "InternalServerError", "api_error"),
    (Unavailable("rebuilding"), "InternalServerError", "overloaded_error"),
]
failures = pytest.mark.parametrize(("error", "raised", "family"), FAILURES)


@pytest.fixture
async def failing(bridge: str, memory: Any) -> str:
    """The URL of a bridge with a session."""
    await memory.create(SessionSpec(type="iot"))
    return bridge


@failures
async def test_the_envelope_has_what_each_client_reads(failing, memory, error, raised, family):
    memory.mark_error = error
    async with httpx.AsyncClient(base_url=failing) as client:
        response = await client.post(PATH, json={})
    assert response.status_code == error.status
    request_id = response.headers["request-id"]
    assert request_id.startswith("req_") and request_id == response.headers["x-request-id"]
    assert response.json() == {
        "type": "error",
        "error": {"message": str(error), "type": family, "param": None, "code": error.code},
        "message": str(error),
        "request_id": request_id,
    }


@failures
@pytest.mark.parametrize(
    ("package", "client"),
    [
        (anthropic, "AsyncAnthropic"),
        (openai, "AsyncOpenAI"),
        (llama_stack_client, "AsyncLlamaStackClient"),
    ],
)
async def test_python_clients(failing, memory, error, raised, family, package, client):
    memory.mark_error = error
    asking = getattr(package, client)(api_key="key", base_url=failing, max_retries=0)
    with pytest.raises(getattr(package, raised)) as caught:
        await asking.post(PATH, body={}, cast_to=object)
    seen = caught.value
    assert seen.status_code == error.status
    assert str(error) in str(seen)
    request_id = seen.response.headers["request-id"]
    if package is anthropic:
        assert (seen.api_message, seen.type) == (str(error), family)
        assert seen.request_id == seen.body["request_id"] == request_id
    if package is openai:
        assert (seen.code, seen.type, seen.request_id) == (error.code, family, request_id)


@failures
async def test_the_layerscale_client(failing, memory, error, raised, family):
    memory.mark_error = error
    async with layerscale.AsyncLayerScale(base_url=failing, max_retries=0) as client:
        with pytest.raises(getattr(layerscale, raised)) as caught:
            await client.sessions.mark_prefix("s1")
    seen = caught.value
    assert (seen.message, seen.code, seen.type) == (str(error), error.code, family)
    assert seen.request_id == seen.response.headers["request-id"]


@failures
async def test_javascript_clients(failing, memory, error, raised, family):
    memory.mark_error = error
    node = await asyncio.create_subprocess_exec(
        "node", str(CLIENTS / "errors.mjs"), str(node_modules()), failing, PATH,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(node.communicate(), 60)
    assert not node.returncode, err.decode()
    seen = {line["name"]: line for line in map(json.loads, out.splitlines())}
    assert len(seen) == 5
    for name, line in seen.items():
        assert line["status"] == error.status, name
        # The message itself, not the whole body as text.
        assert line["message"] == f"{error.status} {error}", name
        if line["class"] != "ServiceUnavailableError":  # a subclass in the newest clients
            assert line["class"] == raised, name
    assert seen["openai"]["code"] == error.code
    assert seen["@anthropic-ai/sdk"]["type"] == family
    assert seen["@anthropic-ai/sdk"]["request_id"].startswith("req_")


async def test_a_refused_request_and_a_good_one_have_ids(failing):
    async with httpx.AsyncClient(base_url=failing) as client:
        answers = [await client.get(path) for path in ("/none", "/health", "/v1/sessions")]
    ids = [answer.headers["request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert answers[0].json()["request_id"] == ids[0]
    assert answers[0].json()["message"] == answers[0].json()["error"]["message"]


async def test_a_failure_of_our_own_has_its_id_too(failing, memory):
    memory.mark_error = RuntimeError("nobody foresaw this")
    async with httpx.AsyncClient(base_url=failing) as client:
        response = await client.post(PATH, json={})
    assert response.status_code == 500
    assert response.json()["request_id"] == response.headers["x-request-id"] != ""
    assert "nobody foresaw" not in response.text
