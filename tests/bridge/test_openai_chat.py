"""OpenAI's chat completions by the published client, over plain chats and live sessions."""

import json
import math

import httpx
import llama_cpp
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from pydantic import BaseModel

from flashfeed.engine import fastest_form, find_packaged_model

from openai_worker import WEATHER, live_session, openai_client

pytestmark = [pytest.mark.model, pytest.mark.broker]

PYPI = "openai 3.54.0 (PyPI)"
ASKED = [{"role": "user", "content": "Name the capital of France."}]
TREND = "Is the trend up or down?"
GREEDY = {"temperature": 0, "max_tokens": 8}


@pytest.fixture(scope="module")
def client(worker):
    with openai_client(worker.url) as client:
        yield client


@pytest.fixture(scope="module")
def model(client):
    return client.models.list().data[0].id


@pytest.fixture(scope="module")
def session(worker):
    with live_session(worker.url) as session:
        yield session


def text_of(completion):
    return completion.choices[0].message.content


def joined(chunks, index=0):
    return "".join(
        choice.delta.content or ""
        for chunk in chunks
        for choice in chunk.choices
        if choice.index == index
    )


@pytest.mark.client(PYPI, "chat.completions.create")
def test_a_plain_chat_is_answered_and_counted(client, model):
    first = client.chat.completions.create(model=model, messages=ASKED, **GREEDY)
    again = client.chat.completions.create(model=model, messages=ASKED, **GREEDY)
    assert "Paris" in text_of(first)
    assert text_of(again) == text_of(first)
    assert (first.model, first.object) == (model, "chat.completion")
    assert first.choices[0].finish_reason in ("stop", "length")
    assert again.usage.prompt_tokens == first.usage.prompt_tokens
    # All but the last token of the same prompt is still there.
    cached = again.usage.prompt_tokens_details.cached_tokens
    assert cached == again.usage.prompt_tokens - 1
    tokens = first.usage.completion_tokens
    assert tokens <= 8
    assert first.usage.total_tokens == first.usage.prompt_tokens + tokens


@pytest.mark.client(PYPI, "chat.completions.create (stream)")
def test_the_stream_is_the_same_answer_in_chunks(client, model):
    whole = client.chat.completions.create(model=model, messages=ASKED, **GREEDY)
    stream = client.chat.completions.create(
        model=model,
        messages=ASKED,
        stream=True,
        stream_options={"include_usage": True},
        **GREEDY,
    )
    chunks = list(stream)
    assert joined(chunks) == text_of(whole)
    assert {chunk.model for chunk in chunks} == {model}
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason] == [
        whole.choices[0].finish_reason
    ]
    assert chunks[-1].choices == []
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_without_include_usage_no_chunk_has_it(worker, model):
    body = {"model": model, "messages": ASKED, "stream": True, **GREEDY}
    raw = httpx.post(f"{worker.url}/v1/chat/completions", json=body, timeout=60).text
    frames = raw.strip().split("\n\n")
    assert frames[-1] == "data: [DONE]"
    assert all("usage" not in json.loads(frame[len("data: ") :]) for frame in frames[:-1])


@pytest.mark.client(PYPI, "chat.completions.stream")
def test_the_clients_own_accumulator(client, model):
    whole = client.chat.completions.create(model=model, messages=ASKED, **GREEDY)
    with client.chat.completions.stream(model=model, messages=ASKED, **GREEDY) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert text_of(final) == text_of(whole)
    assert final.choices[0].finish_reason == whole.choices[0].finish_reason


@pytest.mark.client(PYPI, "AsyncOpenAI chat.completions.create")
@pytest.mark.client(PYPI, "AsyncOpenAI chat.completions.create (stream)")
async def test_the_async_client(worker, client, model):
    whole = client.chat.completions.create(model=model, messages=ASKED, **GREEDY)
    async with AsyncOpenAI(base_url=f"{worker.url}/v1", api_key="x", max_retries=0) as other:
        same = await other.chat.completions.create(model=model, messages=ASKED, **GREEDY)
        stream = await other.chat.completions.create(
            model=model, messages=ASKED, stream=True, **GREEDY
        )
        chunks = [chunk async for chunk in stream]
    assert text_of(same) == joined(chunks) == text_of(whole)


@pytest.mark.client(PYPI, "chat.completions.create (session_id)")
def test_a_live_session_is_asked_by_its_id(client, session):
    said = session.generate(TREND, max_tokens=8)
    for extra in (
        {"extra_body": {"session_id": session.id}},
        {"extra_headers": {"x-layerscale-session-id": session.id}},
    ):
        answer = client.chat.completions.create(
            model="", messages=[{"role": "user", "content": TREND}], **GREEDY, **extra
        )
        assert text_of(answer) == said["text"]
        # The prompt is all that the session holds, and the question after it.
        held = session.state()["n_tokens"]
        assert answer.usage.prompt_tokens > held
        assert answer.usage.prompt_tokens_details.cached_tokens >= held
        plain = client.chat.completions.create(
            model="", messages=[{"role": "user", "content": TREND}], **GREEDY
        )
        assert plain.usage.prompt_tokens < held


def test_a_sessions_stream_is_over_its_data(client, session):
    said = session.generate(TREND, max_tokens=8)
    stream = client.chat.completions.create(
        model="",
        messages=[{"role": "user", "content": TREND}],
        stream=True,
        extra_body={"session_id": session.id},
        **GREEDY,
    )
    assert joined(list(stream)) == said["text"]


def test_the_next_turn_of_a_sessions_chat_decodes_only_what_is_new(client, session):
    asked = [{"role": "user", "content": TREND}]
    ask = {"model": "", "extra_body": {"session_id": session.id}, **GREEDY}
    first = client.chat.completions.create(messages=asked, **ask)
    asked += [
        {"role": "assistant", "content": text_of(first)},
        {"role": "user", "content": "Why?"},
    ]
    second = client.chat.completions.create(messages=asked, **ask)
    new = second.usage.prompt_tokens - second.usage.prompt_tokens_details.cached_tokens
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens
    assert new < 40


@pytest.mark.client(PYPI, "chat.completions.create (tools)")
def test_a_tool_is_called_and_its_result_read(client, model):
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    called = client.chat.completions.create(
        model=model,
        messages=asked,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        temperature=0,
        max_tokens=48,
    )
    [choice] = called.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    [call] = choice.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")
    asked += [
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "18 degrees, sunny"},
    ]
    read = client.chat.completions.create(model=model, messages=asked, tools=[WEATHER], **GREEDY)
    assert read.usage.prompt_tokens > called.usage.prompt_tokens
    with pytest.raises(BadRequestError, match="tool_call_id"):
        client.chat.completions.create(model=model, messages=asked[:1] + asked[2:], **GREEDY)


@pytest.mark.client(PYPI, "chat.completions.create (tools, stream)")
def test_streamed_tool_calls_have_their_id_and_name_once(client, model):
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
        max_tokens=48,
        stream=True,
    )
    chunks = list(stream)
    deltas = [
        call
        for chunk in chunks
        for choice in chunk.choices
        for call in choice.delta.tool_calls or ()
    ]
    assert [call.index for call in deltas if call.id] == [0]
    assert [call.function.name for call in deltas if call.function.name] == ["get_weather"]
    arguments = "".join(call.function.arguments or "" for call in deltas)
    assert json.loads(arguments)["city"] in ("Paris", "Rome")
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_logprobs_are_the_models_own(client, model):
    answer = client.chat.completions.create(
        model=model, messages=ASKED, logprobs=True, top_logprobs=3, **GREEDY
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    assert b"".join(bytes(token.bytes) for token in content).decode() == text_of(answer)
    for token in content:
        best = token.top_logprobs
        assert len(best) == 3
        assert [one.logprob for one in best] == sorted((o.logprob for o in best), reverse=True)
        # Greedy: what was written is the likeliest.
        assert (best[0].bytes, best[0].logprob) == (token.bytes, token.logprob)
        assert sum(math.exp(one.logprob) for one in best) <= 1 + 1e-6
    streamed = client.chat.completions.create(
        model=model, messages=ASKED, logprobs=True, top_logprobs=3, stream=True, **GREEDY
    )
    entries = [
        token
        for chunk in streamed
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content
    ]
    assert [token.token for token in entries] == [token.token for token in content]
    with pytest.raises(BadRequestError) as wrong:
        client.chat.completions.create(model=model, messages=ASKED, top_logprobs=3)
    assert wrong.value.param == "top_logprobs"


def test_several_answers_have_seeds_of_their_own(client, model):
    ask = {"model": model, "messages": ASKED, "max_tokens": 8, "temperature": 1.5, "seed": 7}
    one = client.chat.completions.create(**ask)
    three = client.chat.completions.create(n=3, **ask)
    texts = [choice.message.content for choice in three.choices]
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert texts[0] == text_of(one)
    assert len(set(texts)) > 1
    assert three.usage.prompt_tokens == one.usage.prompt_tokens
    chunks = list(client.chat.completions.create(n=3, stream=True, **ask))
    assert [joined(chunks, index) for index in range(3)] == texts
    again = client.chat.completions.create(**{**ask, "seed": 9})
    assert text_of(again) == texts[2]


def test_stop_and_the_length_end_an_answer(client, model):
    ask = {"model": model, "messages": ASKED, "temperature": 0}
    free = client.chat.completions.create(max_tokens=8, **ask)
    word = text_of(free).split()[1]
    stopped = client.chat.completions.create(max_tokens=8, stop=[f" {word}"], **ask)
    assert stopped.choices[0].finish_reason == "stop"
    assert text_of(stopped) == text_of(free).split(f" {word}")[0]
    short = client.chat.completions.create(max_completion_tokens=2, **ask)
    assert short.choices[0].finish_reason == "length"
    assert short.usage.completion_tokens == 2
    assert text_of(free).startswith(text_of(short))


def test_a_bias_bans_a_token(client, model):
    free = client.chat.completions.create(
        model=model, messages=ASKED, logprobs=True, top_logprobs=2, **GREEDY
    )
    first = free.choices[0].logprobs.content[0]
    path = fastest_form(find_packaged_model())
    vocabulary = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    [token] = vocabulary.tokenize(bytes(first.bytes), add_bos=False)
    banned = client.chat.completions.create(
        model=model, messages=ASKED, logprobs=True, logit_bias={str(token): -100}, **GREEDY
    )
    instead = banned.choices[0].logprobs.content[0]
    second = first.top_logprobs[1]
    assert (instead.bytes, instead.logprob) == (second.bytes, second.logprob)
    with pytest.raises(BadRequestError, match="size of the model's vocabulary"):
        client.chat.completions.create(
            model=model, messages=ASKED, logit_bias={"999999999": 1}, **GREEDY
        )


class Capital(BaseModel):
    city: str
    rivers: int


@pytest.mark.client(PYPI, "chat.completions.parse")
def test_an_answer_follows_its_schema(client, model):
    parsed = client.chat.completions.parse(
        model=model, messages=ASKED, response_format=Capital, temperature=0, max_tokens=40
    )
    assert isinstance(parsed.choices[0].message.parsed, Capital)
    free = client.chat.completions.create(
        model=model,
        messages=ASKED,
        response_format={"type": "json_object"},
        temperature=0,
        max_tokens=64,
    )
    text = text_of(free)
    assert text.lstrip().startswith("{")
    if free.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)
    with pytest.raises(BadRequestError) as wrong:
        client.chat.completions.create(
            model=model, messages=ASKED, response_format={"type": "json_schema"}
        )
    assert wrong.value.param == "response_format.json_schema"


@pytest.mark.client(PYPI, "chat.completions.retrieve")
@pytest.mark.client(PYPI, "chat.completions.list")
@pytest.mark.client(PYPI, "chat.completions.update")
@pytest.mark.client(PYPI, "chat.completions.delete")
@pytest.mark.client(PYPI, "chat.completions.messages.list")
def test_a_kept_completion_is_read_listed_changed_and_deleted(client, model):
    ask = {"model": model, "messages": ASKED, "store": True, **GREEDY}
    kept = [
        client.chat.completions.create(metadata={"place": str(n), "run": "kept"}, **ask)
        for n in range(3)
    ]
    read = client.chat.completions.retrieve(kept[1].id)
    assert (text_of(read), read.usage) == (text_of(kept[1]), kept[1].usage)
    assert read.metadata == {"place": "1", "run": "kept"}
    pages = client.chat.completions.list(metadata={"run": "kept"}, limit=2)
    assert [one.id for one in pages.data] == [one.id for one in kept[:2]]
    assert [one.id for one in pages] == [one.id for one in kept]
    changed = client.chat.completions.update(kept[1].id, metadata={"run": "other"})
    assert changed.metadata == {"run": "other"}
    last = client.chat.completions.list(metadata={"run": "kept"}, order="desc").data
    assert [one.id for one in last] == [kept[2].id, kept[0].id]
    [message] = client.chat.completions.messages.list(kept[0].id).data
    assert (message.role, message.content) == ("user", ASKED[0]["content"])
    for one in kept:
        assert client.chat.completions.delete(one.id).deleted
    with pytest.raises(NotFoundError):
        client.chat.completions.retrieve(kept[0].id)


def test_a_streamed_completion_is_kept_too(client, model):
    chunks = list(
        client.chat.completions.create(
            model=model, messages=ASKED, store=True, stream=True, **GREEDY
        )
    )
    read = client.chat.completions.retrieve(chunks[0].id)
    assert text_of(read) == joined(chunks)
    client.chat.completions.delete(read.id)


def test_a_model_that_is_not_known(client, session, model):
    with pytest.raises(NotFoundError, match="gpt-9") as unknown:
        client.chat.completions.create(model="gpt-9", messages=ASKED)
    assert unknown.value.code == "model_not_found"
    of_session = {"messages": ASKED, "extra_body": {"session_id": session.id}}
    with pytest.raises(NotFoundError, match=model):
        client.chat.completions.create(model="gpt-9", **of_session)
    # In any case, and by the configuration's name for it.
    for name in (model.upper(), "packaged"):
        for asked in (of_session, {"messages": ASKED}):
            named = client.chat.completions.create(model=name, **asked, **GREEDY)
            assert named.model == model
    assert client.models.retrieve("packaged").id == model


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("audio", {"voice": "alloy", "format": "mp3"}),
        ("modalities", ["text", "audio"]),
        ("web_search_options", {}),
        ("functions", [{"name": "f"}]),
        ("logit_bias", {"one": -100}),
        ("logit_bias", {"1": -101}),
        ("reasoning_effort", "high"),
        ("temperature", 9),
        ("n", 0),
        ("max_tokens", 10**9),
        ("seed", "seven"),
        ("no_such_field", 1),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client, model, field, value):
    with pytest.raises(BadRequestError) as wrong:
        client.chat.completions.create(model=model, messages=ASKED, extra_body={field: value})
    assert wrong.value.param.split(".")[0] == field


@pytest.mark.parametrize("wrong", ['"\\ud800"', "1" * 30])
def test_what_cannot_be_written_again_is_refused(worker, wrong):
    tool = '{"type": "function", "function": {"name": "f", "parameters": {"default": %s}}}'
    body = '{"messages": [{"role": "user", "content": "x"}], "store": true, "tools": [%s]}'
    response = httpx.post(
        f"{worker.url}/v1/chat/completions",
        content=body % (tool % wrong),
        headers={"content-type": "application/json"},
        timeout=60,
    )
    assert response.status_code == 400, response.text
    assert "written again" in response.json()["error"]["message"]


def test_wrong_messages_are_refused_by_their_place(client, model):
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    for messages, param in (
        ([], "messages"),
        ([{"role": "user", "content": [image]}], "messages.0.content.0"),
        ([{"role": "nobody", "content": "x"}], "messages.0.role"),
    ):
        with pytest.raises(BadRequestError) as wrong:
            client.chat.completions.create(model=model, messages=messages)
        assert wrong.value.param == param
    with pytest.raises(BadRequestError) as full:
        long = [{"role": "user", "content": "candle " * 5000}]
        client.chat.completions.create(model=model, messages=long, stream=True)
    assert full.value.code == "context_length_exceeded"
    with pytest.raises(NotFoundError):
        client.chat.completions.create(
            model=model, messages=ASKED, extra_body={"session_id": "nobody"}
        )
