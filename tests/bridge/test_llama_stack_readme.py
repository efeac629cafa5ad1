"""What the README of llama-stack-client promises: its examples in Node, as they stand there,
and the same of the Python client. The service in memory refuses and waits as it is told."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

import httpx
import pytest
from llama_stack_client import (
    APITimeoutError,
    AsyncLlamaStackClient,
    InternalServerError,
    RateLimitError,
)

from flashfeed.bridge.keys import read_key_list
from flashfeed.bridge.settings import BridgeSettings
from flashfeed.models.errors import FlashfeedError, Overloaded, Unavailable

from client_packages import CLIENTS, node_modules

CONFIG = {"model": "memory", "instructions": "Answer briefly."}


class Stubborn:
    """Refuses the first creations with `errors`, or leaves the first `hangs` unanswered."""

    def __init__(self, memory: Any) -> None:
        self.errors: list[Exception] = []
        self.hangs = 0
        self.asked_at: list[float] = []
        self._create = memory.create
        memory.create = self.create

    async def create(self, *arguments: Any) -> Any:
        self.asked_at.append(time.monotonic())
        if self.errors:
            raise self.errors.pop(0)
        if self.hangs:
            self.hangs -= 1
            await asyncio.sleep(30)
        return await self._create(*arguments)


@pytest.fixture
def stubborn(memory: Any) -> Stubborn:
    return Stubborn(memory)


@pytest.fixture
async def url(bridge: str) -> str:
    """A bridge where there is the agent of the README's examples."""
    async with httpx.AsyncClient(base_url=bridge) as http:
        body = {"agent_config": CONFIG, "agent_id": "agent_id"}
        (await http.post("/v1/agents", json=body)).raise_for_status()
    return bridge


async def readme(url: str, example: str) -> Any:
    """What an example gives."""
    node = await asyncio.create_subprocess_exec(
        "node", str(CLIENTS / "llama_stack_readme.mjs"), str(node_modules()), example,
        env=os.environ | {"LLAMA_STACK_CLIENT_BASE_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(node.communicate(), 60)
    assert not node.returncode, err.decode()
    return json.loads(out)


def refused(status: int) -> FlashfeedError:
    """An error of that status."""
    error = FlashfeedError("refused")
    error.status = status
    return error


@pytest.mark.parametrize("example", ["usage", "undocumented parameter", "web shim", "agent"])
async def test_a_session_is_created(url, memory, example):
    answer = await readme(url, example)
    assert list(memory.held) == [answer["session_id"]]


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (409, "ConflictError"),
        (422, "UnprocessableEntityError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
        (503, "InternalServerError"),
    ],
)
async def test_errors_have_the_class_of_their_status(url, stubborn, status, raised):
    stubborn.errors = [refused(status)]
    seen = await readme(url, "error")
    assert seen == {
        "api_error": True,
        "class": raised,
        "status": status,
        "message": f"{status} refused",
        "type": "application/json",
    }


async def test_without_a_connection_it_is_a_connection_error():
    seen = await readme("http://127.0.0.1:9", "error")
    assert (seen["class"], seen["status"]) == ("APIConnectionError", None)


async def test_a_client_without_a_key_is_not_let_in(serve, memory):
    server = await serve(BridgeSettings(keys=read_key_list("tenant:a-key-of-somebody-or-other")))
    seen = await readme(f"http://127.0.0.1:{server.port}", "error")
    assert (seen["class"], seen["status"]) == ("AuthenticationError", 401)


@pytest.mark.parametrize(
    ("example", "refusals"),
    [("retries of the client", 1), ("default retries", 2), ("retries of a request", 3)],
)
@pytest.mark.parametrize("error", [Overloaded, Unavailable])
async def test_what_can_succeed_later_is_asked_again_when_it_should_be(
    url, memory, stubborn, example, refusals, error
):
    stubborn.errors = [error("later") for _ in range(refusals)]
    answer = await readme(url, example)
    assert list(memory.held) == [answer["session_id"]]
    waits = [b - a for a, b in zip(stubborn.asked_at, stubborn.asked_at[1:], strict=False)]
    # The bridge says Retry-After: 1; by itself the client would wait half of it at first.
    assert len(waits) == refusals
    assert all(1 <= wait < 2 for wait in waits)


async def test_a_client_gives_up_after_two_retries_or_at_once(url, stubborn):
    stubborn.errors = [Overloaded("later") for _ in range(3)]
    assert (await readme(url, "default retries are two"))["class"] == "RateLimitError"
    assert len(stubborn.asked_at) == 3
    stubborn.errors = [Overloaded("later")]
    assert (await readme(url, "no retries"))["status"] == 429
    assert len(stubborn.asked_at) == 4


@pytest.mark.parametrize("example", ["timeout", "timeout of a request"])
async def test_a_client_waits_no_longer_than_its_timeout(url, stubborn, example):
    stubborn.hangs = 1
    seen = await readme(url, example)
    assert (seen["class"], seen["message"]) == ("APIConnectionTimeoutError", "Request timed out.")


async def test_a_timeout_is_retried(url, memory, stubborn):
    stubborn.hangs = 2
    answer = await readme(url, "timeouts are retried")
    assert list(memory.held) == [answer["session_id"]]
    assert len(stubborn.asked_at) == 3


async def test_the_raw_response(url, memory):
    raw = await readme(url, "raw response")
    assert (raw["status"], raw["statusText"]) == (200, "OK")
    assert raw["id"].startswith("req_")
    assert raw["body"]["session_id"] in memory.held
    both = await readme(url, "with response")
    assert both["session_id"] in memory.held
    assert both["id"].startswith("req_")


async def test_undocumented_endpoints(url):
    assert list(await readme(url, "undocumented endpoint")) == ["version"]
    seen = await readme(url, "undocumented endpoint that is not there")
    assert (seen["class"], seen["status"]) == ("NotFoundError", 404)
    assert seen["message"].startswith("404 no route POST /some/path")


async def test_a_custom_fetch_sees_the_request(url, memory):
    answer = await readme(url, "custom fetch")
    assert answer["session_id"] in memory.held
    asked = {"path": "/agents/session/create", "method": "post", "status": 200}
    assert answer["seen"] == [asked]


async def test_an_environment_and_a_url_are_ambiguous(url):
    assert "Ambiguous URL" in (await readme(url, "environment and base URL"))["message"]


# -- the Python client, which promises the same -----------------------------------------


@pytest.fixture
async def client(url: str):
    async with AsyncLlamaStackClient(base_url=url) as client:
        yield client


@pytest.mark.parametrize("error", [Overloaded, Unavailable])
async def test_python_asks_again(client, memory, stubborn, error):
    stubborn.errors = [error("later"), error("later")]
    created = await client.agents.session.create("agent_id", session_name="s")
    assert list(memory.held) == [created.session_id]
    assert stubborn.asked_at[2] - stubborn.asked_at[0] >= 2


async def test_python_gives_up_when_it_should(client, stubborn):
    create = client.with_options(max_retries=0).agents.session.create
    for error, raised in ((Overloaded, RateLimitError), (Unavailable, InternalServerError)):
        stubborn.errors = [error("later")]
        with pytest.raises(raised) as refused:
            await create("agent_id", session_name="s")
        assert refused.value.response.headers["retry-after"] == "1"
    stubborn.hangs = 1
    with pytest.raises(APITimeoutError):
        await create("agent_id", session_name="s", timeout=0.2)
    assert len(stubborn.asked_at) == 3


async def test_python_reads_the_raw_response(client, memory):
    raw = await client.agents.session.with_raw_response.create("agent_id", session_name="s")
    assert raw.headers["request-id"].startswith("req_")
    assert (await raw.parse()).session_id in memory.held
