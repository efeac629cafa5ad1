"""Anthropic's published Python client, unmodified, against a running worker."""

from __future__ import annotations

import contextlib
import json
import subprocess

import anthropic
import httpx
import pydantic
import pytest

from client_packages import CLIENTS, node_modules

pytestmark = [pytest.mark.model, pytest.mark.broker]

CLIENT = "anthropic 2.12.0 (PyPI)"
# The client has no argument for it any more, the API still takes it.
GREEDY = {"temperature": 0}
SYSTEM = "You are terse."
FRANCE = {"role": "user", "content": "What is the capital of France?"}
PRICE = {
    "name": "price",
    "description": "The last price of a stock.",
    "input_schema": {
        "type": "object",
        "properties": {"symbol": {"type": "string", "enum": ["AAPL", "MSFT"]}},
        "required": ["symbol"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def client(worker):
    with anthropic.Anthropic(base_url=worker.url, api_key="key", max_retries=0) as client:
        yield client


@pytest.fixture
def http(worker):
    with httpx.Client(base_url=worker.url, timeout=60) as http:
        yield http


@pytest.fixture
def model(http):
    return http.get("/health").json()["model"]


@pytest.fixture
def session(http):
    """A live session that was told something; its id."""
    body = {"type": "ohlcv", "prompt": "You watch the candles of AAPL."}
    session_id = http.post("/v1/sessions/init", json=body).json()["session_id"]
    text = "On Monday AAPL rose. On Tuesday it fell by 4711 dollars."
    http.post(f"/v1/sessions/{session_id}/append", json={"text": text})
    yield session_id
    with contextlib.suppress(httpx.HTTPError):
        http.delete(f"/v1/sessions/{session_id}")


def asked(model, **more):
    body = {"model": model, "max_tokens": 8, "messages": [FRANCE], "extra_body": GREEDY}
    return body | more


def read(usage):
    return usage.input_tokens + usage.cache_read_input_tokens


@pytest.mark.client(CLIENT, "messages.create")
def test_create(client, model):
    message = client.messages.create(**asked(model, system=SYSTEM))
    assert (message.type, message.role, message.model) == ("message", "assistant", model)
    [block] = message.content
    assert block.type == "text"
    assert "Paris" in block.text
    assert message.stop_sequence is None
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert message.usage.output_tokens <= 8
    assert message.usage.cache_creation_input_tokens == 0
    assert message._request_id.startswith("req_")
    again = client.messages.create(**asked(model, system=[{"type": "text", "text": SYSTEM}]))
    assert again.content == message.content
    assert again.id != message.id


@pytest.mark.client(CLIENT, "messages.create(stream=True)")
def test_create_stream(client, model):
    whole = client.messages.create(**asked(model))
    events = list(client.messages.create(**asked(model), stream=True))
    kinds = [event.type for event in events]
    n_deltas = len(kinds) - 5
    assert kinds == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * n_deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert "".join(event.delta.text for event in events[2:-3]) == whole.content[0].text
    opened, delta = events[0].message, events[-2]
    assert (opened.content, opened.stop_reason) == ([], None)
    assert read(opened.usage) == read(delta.usage) == read(whole.usage)
    assert opened.usage.output_tokens == 0
    assert delta.usage.output_tokens == whole.usage.output_tokens
    assert delta.delta.stop_reason == whole.stop_reason


def test_every_frame_has_its_event_line_and_nothing_follows_the_stop(http, model):
    body = asked(model, stream=True) | GREEDY
    del body["extra_body"]
    raw = http.post("/v1/messages", json=body).text
    frames = raw.removesuffix("\n\n").split("\n\n")
    for frame in frames:
        name, data = frame.split("\n")
        assert data.startswith(f'data: {{"type":"{name.removeprefix("event: ")}"')
    assert frames[-1].startswith("event: message_stop\n")
    assert "[DONE]" not in raw and "ping" not in raw
    for number in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"):
        assert f'"{number}":' in frames[0] and f'"{number}":' in frames[-2]
    assert '"output_tokens":' in frames[0] and '"output_tokens":' in frames[-2]


@pytest.mark.client(CLIENT, "messages.stream")
def test_the_stream_helper(client, model):
    with client.messages.stream(**asked(model)) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert "Paris" in text
    assert final.content[0].text == text == stream.get_final_text()
    assert final.usage.output_tokens > 0


@pytest.mark.client(CLIENT, "messages.count_tokens")
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"system": SYSTEM},
        {"system": [{"type": "text", "text": SYSTEM}], "tools": [PRICE]},
        {"tools": [PRICE], "tool_choice": {"type": "any"}},
        {"messages": [FRANCE, {"role": "assistant", "content": "It is"}]},
    ],
)
def test_count_tokens_is_what_a_message_reads(client, model, more):
    body = asked(model, **more)
    message = client.messages.create(**body)
    del body["max_tokens"], body["extra_body"]
    assert client.messages.count_tokens(**body).input_tokens == read(message.usage)


def test_a_next_turn_reads_from_the_cache(client, model):
    # A system text of its own: no other test's chat is there already.
    first = client.messages.create(**asked(model, system="You like geography."))
    turns = [
        FRANCE,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": "And of Spain?"},
    ]
    second = client.messages.create(
        **asked(model, system="You like geography.", messages=turns),
    )
    assert second.usage.cache_read_input_tokens >= read(first.usage)
    assert read(second.usage) > read(first.usage) + first.usage.output_tokens


def test_stop_sequences_and_limits(client, model):
    whole = client.messages.create(**asked(model)).content[0].text
    word = whole.split()[2]
    message = client.messages.create(**asked(model, stop_sequences=["never", word]))
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", word)
    assert message.content[0].text == whole[: whole.index(word)]
    with client.messages.stream(**asked(model, stop_sequences=[word])) as stream:
        final = stream.get_final_message()
    assert (final.stop_reason, final.stop_sequence) == ("stop_sequence", word)
    assert final.content[0].text == message.content[0].text
    short = client.messages.create(**asked(model, max_tokens=2))
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 2)
    assert whole.startswith(short.content[0].text)


def test_sampling_is_as_asked(client, model):
    def say(**sampling):
        message = client.messages.create(**asked(model, extra_body=sampling))
        return message.content[0].text

    assert say(temperature=1, top_k=1) == say(temperature=0) == say(temperature=1, top_p=0.0)
    assert say(temperature=1, seed=7) == say(temperature=1, seed=7)
    assert len({say(temperature=1, seed=seed) for seed in range(6)}) > 1


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "price"}])
def test_tools_and_their_results(client, model, choice):
    question = {"role": "user", "content": "What is the price of AAPL?"}
    body = asked(model, messages=[question], tools=[PRICE], tool_choice=choice, max_tokens=60)
    message = client.messages.create(**body)
    assert message.stop_reason == "tool_use"
    call = message.content[-1]
    assert (call.type, call.name) == ("tool_use", "price")
    assert call.input["symbol"] in ("AAPL", "MSFT")

    with client.messages.stream(**body) as stream:
        kinds = [event.type for event in stream if event.type != "text"]
        final = stream.get_final_message()
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "input_json",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert (final.content[-1].name, final.content[-1].input) == (call.name, call.input)
    assert final.stop_reason == "tool_use"

    result = {"type": "tool_result", "tool_use_id": call.id, "content": "4711 dollars"}
    turns = [
        question,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result, {"type": "text", "text": "Say the price."}]},
    ]
    answer = client.messages.create(**asked(model, messages=turns, tools=[PRICE], max_tokens=20))
    assert "4711" in answer.content[0].text
    wrong = [*turns[:2], {"role": "user", "content": [result | {"tool_use_id": "another"}]}]
    with pytest.raises(anthropic.BadRequestError, match="another"):
        client.messages.create(**asked(model, messages=wrong, tools=[PRICE]))


def test_without_a_choice_no_tool_is_shown(client, model):
    bare = client.messages.create(**asked(model))
    none = client.messages.create(**asked(model, tools=[PRICE], tool_choice={"type": "none"}))
    assert none.content == bare.content
    assert read(none.usage) == read(bare.usage)


@pytest.mark.client(CLIENT, "messages.parse")
def test_an_answer_in_a_schema(client, model):
    class City(pydantic.BaseModel):
        city: str
        large: bool

    message = client.messages.parse(
        model=model, max_tokens=40, messages=[FRANCE], output_format=City, extra_body=GREEDY
    )
    assert isinstance(message.parsed_output, City)


def test_a_session_answers_over_its_data(client, http, session):
    question = {"role": "user", "content": "By how much did it fall on Tuesday?"}
    state = http.get(f"/v1/sessions/{session}/state").json()
    assert "fell by 4711" in state["context_text"]
    prompt = {"prompt": question["content"], "max_tokens": 12}
    same = http.post(f"/v1/sessions/{session}/generate", json=prompt).json()
    plain = client.messages.create(**asked("", messages=[question], max_tokens=12))
    body = asked("any name", messages=[question], max_tokens=12)
    for way in (
        {"extra_headers": {"x-layerscale-session-id": session}},
        {"extra_body": GREEDY | {"session_id": session}},
    ):
        message = client.messages.create(**(body | way))
        assert message.content[0].text == same["text"] != plain.content[0].text
        # All that the session holds was there, and the whole is what it holds and more.
        assert message.usage.cache_read_input_tokens >= state["n_tokens"]
        assert message.model == http.get("/health").json()["model"]
    assert http.get(f"/v1/sessions/{session}/state").json()["n_tokens"] == state["n_tokens"]
    with pytest.raises(anthropic.NotFoundError) as unknown:
        client.messages.create(**body, extra_headers={"x-layerscale-session-id": "none"})
    assert unknown.value.type == "not_found_error"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
        ({"extra_body": {"temperature": 2}}, "temperature"),
        ({"extra_body": {"unheard_of": 1}}, "unheard_of"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"extra_body": {"session_id": "x" * 257}}, "256"),
        (
            {"extra_body": {"session_id": "a"}, "extra_headers": {"x-layerscale-session-id": "b"}},
            "session_id",
        ),
        ({"stop_sequences": ["x"] * 17}, "16"),
        ({"stop_sequences": ["x" * 257]}, "256"),
    ],
)
def test_what_cannot_be_is_a_400(client, model, more, param):
    with pytest.raises(anthropic.BadRequestError) as refused:
        client.messages.create(**asked(model, **more))
    assert refused.value.type == "invalid_request_error"
    assert param in refused.value.api_message


def test_what_is_accepted_and_changes_nothing(client, model):
    plain = client.messages.create(**asked(model))
    cached = FRANCE | {
        "content": [
            {"type": "text", "text": FRANCE["content"], "cache_control": {"type": "ephemeral"}}
        ]
    }
    more = client.messages.create(
        **asked(
            model,
            messages=[cached],
            metadata={"user_id": "u"},
            thinking={"type": "disabled"},
            service_tier="auto",
            cache_control={"type": "ephemeral"},
        )
    )
    assert more.content == plain.content


def test_an_unknown_model_is_a_404_that_names_the_known(client, model):
    with pytest.raises(anthropic.NotFoundError, match="known models: packaged"):
        client.messages.create(**asked("claude-none"))
    with pytest.raises(anthropic.NotFoundError, match="known models: packaged"):
        client.messages.count_tokens(model="claude-none", messages=[FRANCE])


@pytest.mark.client(CLIENT, "models.list")
@pytest.mark.client(CLIENT, "models.retrieve")
def test_models(client, model):
    listed = list(client.models.list())
    assert model in [one.id for one in listed]
    one = client.models.retrieve(model)
    assert (one.id, one.type, one.lifecycle) == (model, "model", "active")
    assert one in listed
    assert one.max_input_tokens > 0
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("none")


@pytest.mark.client("anthropic 2.12.0 (PyPI), async", "messages.create")
@pytest.mark.client("anthropic 2.12.0 (PyPI), async", "messages.create(stream=True)")
@pytest.mark.client("anthropic 2.12.0 (PyPI), async", "messages.stream")
@pytest.mark.client("anthropic 2.12.0 (PyPI), async", "messages.count_tokens")
async def test_the_async_client(worker, model):
    async with anthropic.AsyncAnthropic(base_url=worker.url, auth_token="key") as client:
        message = await client.messages.create(**asked(model))
        events = [
            event async for event in await client.messages.create(**asked(model), stream=True)
        ]
        async with client.messages.stream(**asked(model)) as stream:
            text = "".join([text async for text in stream.text_stream])
            final = await stream.get_final_message()
        counted = await client.messages.count_tokens(model=model, messages=[FRANCE])
    assert events[-1].type == "message_stop"
    assert final.content[0].text == text == message.content[0].text
    assert counted.input_tokens == read(message.usage) == read(final.usage)


@pytest.fixture(scope="module")
def javascript(worker):
    """What each method of the JavaScript client gave, by its name."""
    model = httpx.get(f"{worker.url}/health").json()["model"]
    node = subprocess.run(
        ["node", str(CLIENTS / "anthropic.mjs"), str(node_modules()), worker.url, model],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not node.returncode, node.stderr
    return {line["method"]: line for line in map(json.loads, node.stdout.splitlines())}


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=pytest.mark.client("@anthropic-ai/sdk 1.12.0 (npm)", name))
        for name in (
            "messages.create",
            "messages.create({stream: true})",
            "messages.stream",
            "messages.countTokens",
            "models.list",
            "models.retrieve",
            "messages.create (tools)",
            "messages.create (unknown model)",
        )
    ],
)
def test_the_javascript_client(javascript, client, model, method):
    line = javascript[method]
    assert "failed" not in line, line
    whole = client.messages.create(**asked(model))
    if "text" in line:
        assert line["text"] == whole.content[0].text
        assert line["stop_reason"] == whole.stop_reason
        assert line["read"] == read(whole.usage)
        assert line["request_id"].startswith("req_")
    if "input_tokens" in line:
        assert line["input_tokens"] == read(whole.usage)
    if "call" in line:
        assert line["call"]["name"] == "price"
        assert line["call"]["input"]["symbol"] in ("AAPL", "MSFT")
        assert line["answer"]
    if "id" in line:
        assert line["id"] == model
    if "error" in line:
        assert line["error"] == "NotFoundError"
        assert line["type"] == "not_found_error"
