"""OpenAI's streams where the service fails, is slow, or its client goes away."""

import asyncio
import json

import httpx
import pytest
from openai import APIError, AsyncOpenAI, NotFoundError

from flashfeed.models.session import SessionSpec

MESSAGES = [{"role": "user", "content": "x"}]
CHAT = "/v1/chat/completions"
STREAMS = [
    (CHAT, {"messages": MESSAGES}),
    ("/v1/completions", {"prompt": "x"}),
    ("/v1/responses", {"input": "x"}),
]
streams = pytest.mark.parametrize(("path", "body"), STREAMS)


@pytest.fixture
async def http(bridge, memory):
    await memory.create(SessionSpec(type="ohlcv"))
    async with httpx.AsyncClient(base_url=bridge, timeout=10) as client:
        yield client


def frames(text):
    """The frames' data, without [DONE]; and whether that ended them."""
    data = [line[len("data: ") :] for line in text.splitlines() if line.startswith("data: ")]
    ended = data[-1] == "[DONE]"
    return [json.loads(one) for one in (data[:-1] if ended else data)], ended


async def wait_for(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@streams
async def test_an_error_before_the_first_piece_is_an_http_error(http, memory, path, body):
    memory.fails_after = 1
    for stream in (True, False):
        response = await http.post(path, json={**body, "stream": stream})
        assert (response.status_code, response.headers["content-type"]) == (
            500,
            "application/json",
        )
        assert response.json()["error"]["code"] == "internal_error"
    unknown = await http.post(path, json={**body, "session_id": "nobody", "stream": True})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "session_not_found")
    assert memory.generating == 0


@pytest.mark.parametrize(("path", "body"), STREAMS[:2])
async def test_an_error_half_way_is_a_frame_before_the_end(http, memory, path, body):
    memory.fails_after = 3
    response = await http.post(path, json={**body, "stream": True})
    assert response.status_code == 200
    *before, last = frames(response.text)[0]
    assert "The trend" in "".join(
        choice.get("text") or choice.get("delta", {}).get("content") or ""
        for one in before
        for choice in one["choices"]
    )
    assert last["error"]["message"] == "the engine is gone"
    assert frames(response.text)[1]


async def test_an_error_half_way_of_a_response_is_its_failure(http, memory):
    memory.fails_after = 3
    response = await http.post("/v1/responses", json={"input": "x", "stream": True})
    events, done = frames(response.text)
    assert not done
    failed = events[-1]
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {
        "code": "server_error",
        "message": "the engine is gone",
    }
    kept = await http.get(f"/v1/responses/{failed['response']['id']}")
    assert kept.status_code == 404


async def test_the_published_client_raises_it(bridge, memory):
    memory.fails_after = 3
    async with AsyncOpenAI(base_url=f"{bridge}/v1", api_key="x", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="memory", messages=MESSAGES, stream=True
        )
        with pytest.raises(APIError, match="the engine is gone"):
            async for _ in stream:
                pass
        with pytest.raises(NotFoundError, match="known: memory"):
            await client.chat.completions.create(model="gpt-9", messages=MESSAGES)


@streams
async def test_a_generation_ends_when_its_client_goes(http, memory, path, body):
    memory.piece_gate = asyncio.Event()
    for stream in (True, False):
        asking = asyncio.create_task(http.post(path, json={**body, "stream": stream}))
        await wait_for(lambda: memory.generating == 1)
        asking.cancel()
        await wait_for(lambda: memory.generating == 0)


async def test_of_several_answers_the_rest_is_not_begun(http, memory):
    memory.piece_gate = asyncio.Event()
    asking = asyncio.create_task(http.post(CHAT, json={"messages": MESSAGES, "n": 4}))
    await wait_for(lambda: memory.generating == 1)
    asking.cancel()
    await wait_for(lambda: memory.generating == 0)
    assert len(memory.prompts) == 1


async def test_several_answers_have_different_seeds(http, memory):
    await http.post(CHAT, json={"messages": MESSAGES, "n": 3, "seed": 5})
    assert [options.seed for _, options in memory.prompts] == [5, 6, 7]
    memory.prompts.clear()
    await http.post(CHAT, json={"messages": MESSAGES, "n": 2})
    assert [options.seed for _, options in memory.prompts] == [None, None]
    memory.prompts.clear()
    await http.post(CHAT, json={"messages": MESSAGES, "n": 2, "seed": -1})
    assert [options.seed for _, options in memory.prompts] == [2**64 - 1, 0]


async def test_every_option_reaches_the_service(http, memory):
    await http.post(
        CHAT,
        json={
            "messages": MESSAGES,
            "max_tokens": 3,
            "max_completion_tokens": 7,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 5,
            "min_p": 0.1,
            "stop": ["a", ""],
            "presence_penalty": 1.0,
            "frequency_penalty": -1.0,
            "repetition_penalty": 1.1,
            "ignore_eos": True,
            "logit_bias": {"7": 2},
            "logprobs": True,
            "top_logprobs": 4,
            "user": None,
            "response_format": {"type": "json_object"},
        },
    )
    [(asked, options)] = memory.prompts
    assert asked.messages[0].content == "x"
    assert (options.max_tokens, options.temperature, options.top_p) == (7, 0.5, 0.9)
    assert (options.top_k, options.min_p, options.stop) == (5, 0.1, ("a",))
    assert (options.presence_penalty, options.frequency_penalty) == (1.0, -1.0)
    assert (options.repetition_penalty, options.ignore_eos) == (1.1, True)
    assert (options.logit_bias, options.logprobs) == (((7, 2.0),), 4)
    assert options.json_schema == {"type": "object"}
    memory.prompts.clear()
    await http.post(CHAT, json={"messages": MESSAGES})
    [(_, options)] = memory.prompts
    assert (options.temperature, options.top_p, options.max_tokens) == (1.0, 1.0, 1024)


async def test_what_is_too_large_to_be_kept_is_said(http):
    body = {"messages": [{"role": "user", "content": "x" * 390_000}] * 2, "store": True}
    response = await http.post(CHAT, json=body)
    assert response.status_code == 400
    assert "at most 524288 bytes" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "agent", "done"),
    [
        (CHAT, "OpenAI/Python 3", True),
        (CHAT, "LlamaStackClient/JS 0.7.3", False),
        (CHAT, "AsyncLlamaStackClient/Python 0.2.12", False),
        ("/v1/openai/v1/chat/completions", "OpenAI/Python 3", False),
    ],
)
async def test_llama_stacks_clients_get_no_done(http, path, agent, done):
    response = await http.post(
        path, json={"messages": MESSAGES, "stream": True}, headers={"User-Agent": agent}
    )
    assert frames(response.text)[1] is done


async def test_a_chain_of_responses_is_read_so_far_and_no_further(http, memory):
    before = None
    for _ in range(9):
        asked = {"input": [{"role": "user", "content": "x"}] * 63}
        if before:
            asked["previous_response_id"] = before
        response = await http.post("/v1/responses", json=asked)
        if response.status_code != 200:
            break
        before = response.json()["id"]
    error = response.json()["error"]
    assert error["param"] in ("previous_response_id", "input")
    assert "512" in error["message"]
    assert len(memory.prompts) == 8  # 8 times 63 and an answer, less the last answer: 511
    assert len(memory.prompts[-1][0].messages) == 511
