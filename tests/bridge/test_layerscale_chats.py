"""LayerScale's clients on the routes that OpenAI's and Anthropic's clients use too: chats and
messages over a live session answer as the session does when it is asked directly."""

import contextlib

import pytest
from layerscale import AsyncLayerScale, LayerScale, NotFoundError

from client_packages import module_beside

pytestmark = [pytest.mark.model, pytest.mark.broker]

v08 = module_beside("layerscale==0.8.0", "layerscale", "layerscale_v08")

V03, V08 = "layerscale 0.3.0 (PyPI)", "layerscale 0.8.0 (PyPI)"
ASKED = [{"role": "user", "content": "What is the price now?"}]
CANDLES = [
    {"o": 185.5, "h": 186.2, "l": 185.1, "c": 185.8, "v": 12500},
    {"o": 185.8, "h": 186.5, "l": 185.6, "c": 186.3, "v": 8700},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_price",
        "parameters": {
            "type": "object",
            "properties": {"symbol": {"enum": ["AAPL", "MSFT"]}},
            "required": ["symbol"],
        },
    },
}


@pytest.fixture
def old(worker):
    with LayerScale(base_url=worker.url, timeout=60) as client:
        yield client


@pytest.fixture
def new(worker):
    with v08.LayerScale(base_url=worker.url, timeout=60) as client:
        yield client


@pytest.fixture
def session_id(old):
    session = old.sessions.create(type="ohlcv", prompt="You watch the market.").session_id
    old.sessions.push(session, CANDLES, wait=True)
    yield session
    with contextlib.suppress(NotFoundError):
        old.sessions.delete(session)


@pytest.mark.client(V03, "models.list")
@pytest.mark.client(V08, "models.list")
@pytest.mark.client(V08, "models.retrieve")
def test_models(old, new, session_id):
    [first, *_] = old.models.list().data
    listed = new.models.list()
    assert (listed.object, listed.first_id) == ("list", first.id)
    model = new.models.retrieve(first.id.upper())
    assert model == listed.data[0]
    assert (model.id, model.lifecycle) == (first.id, "active")
    # What the model list promises is what a session has room for.
    assert model.max_model_len == old.sessions.get(session_id).context
    assert model.max_input_tokens == model.max_tokens == model.max_model_len - 1
    with pytest.raises(v08.NotFoundError):
        new.models.retrieve("none")


@pytest.mark.client(V03, "chat.create")
@pytest.mark.client(V03, "chat.stream")
@pytest.mark.client(V08, "chat.create")
@pytest.mark.client(V08, "chat.stream")
def test_chats_over_a_session(old, new, session_id):
    direct = old.sessions.query(session_id, messages=ASKED, max_tokens=6)
    asked = {
        "messages": ASKED,
        "session_id": session_id,
        "max_tokens": 6,
        "temperature": 0.0,
    }
    # 0.3 sends the session in the body, 0.8 in a header.
    said = old.chat.create(**asked)
    same = new.chat.create(**asked)
    assert said.choices[0].message.content == same.choices[0].message.content == direct.text
    assert said.choices[0].finish_reason == direct.finish_reason == "length"
    assert said.usage.completion_tokens == same.usage.completion_tokens == direct.n_tokens
    assert same.usage.prompt_tokens == direct.usage["prompt_tokens"]
    # The conversation was decoded when it was asked first: all but its last token.
    assert same.usage.prompt_tokens_details.cached_tokens == same.usage.prompt_tokens - 1
    assert same.model == said.model == new.models.list().data[0].id

    streamed = "".join(
        choice.delta.content or "" for chunk in old.chat.stream(**asked) for choice in chunk.choices
    )
    chunks = list(new.chat.stream(**asked, stream_options={"include_usage": True}))
    assert streamed == direct.text
    assert "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices) == direct.text
    assert {chunk.model for chunk in chunks} == {same.model}
    assert (chunks[-1].choices, chunks[-1].usage) == ([], same.usage)
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    with pytest.raises(v08.NotFoundError):
        new.chat.create(messages=ASKED, session_id="nobody")
    with pytest.raises(v08.BadRequestError) as long:
        content = "word " * 3000
        new.chat.create(messages=[{"role": "user", "content": content}], session_id=session_id)
    assert long.value.context_overflow


@pytest.mark.client(V03, "chat.create")
@pytest.mark.client(V08, "chat.create")
def test_tools_and_log_probabilities(old, new, session_id):
    asked = {
        "messages": [{"role": "user", "content": "What does AAPL cost?"}],
        "tools": [TOOL],
        "tool_choice": "required",
        "max_tokens": 40,
        "temperature": 0.0,
        "session_id": session_id,
    }
    [call] = old.chat.create(**asked).choices[0].message.tool_calls
    [same] = new.chat.create(**asked).choices[0].message.tool_calls
    assert call.function["name"] == same.function.name == "get_price"
    assert call.function["arguments"] == same.function.arguments
    said = new.chat.create(
        messages=ASKED, max_tokens=3, temperature=0.0, logprobs=True, top_logprobs=2
    )
    entries = said.choices[0].logprobs.content
    assert b"".join(bytes(one.bytes) for one in entries).decode() == said.choices[0].message.content
    assert all(one.top_logprobs[0].logprob == one.logprob for one in entries)


@pytest.mark.client(V03, "completions.create")
def test_a_completion(old):
    asked = {"prompt": "One, two, three,", "max_tokens": 4, "temperature": 0.0}
    first, again = old.completions.create(**asked), old.completions.create(**asked)
    assert first.choices[0].text == again.choices[0].text
    assert first.usage.total_tokens == first.usage.prompt_tokens + 4


@pytest.mark.client(V03, "messages.create")
@pytest.mark.client(V03, "messages.stream")
@pytest.mark.client(V08, "messages.create")
@pytest.mark.client(V08, "messages.stream")
@pytest.mark.client(V08, "messages.count_tokens")
def test_messages_over_a_session(old, new, session_id):
    direct = old.sessions.query(session_id, messages=ASKED, max_tokens=6)
    asked = {
        "messages": ASKED,
        "session_id": session_id,
        "max_tokens": 6,
        "temperature": 0.0,
    }
    said, same = old.messages.create(**asked), new.messages.create(**asked)
    assert [block.text for block in said.content] == [direct.text]
    assert [block.text for block in same.content] == [direct.text]
    assert said.stop_reason == same.stop_reason == "max_tokens"
    usage = same.usage
    assert usage.input_tokens + usage.cache_read_input_tokens == direct.usage["prompt_tokens"]
    assert usage.output_tokens == direct.n_tokens
    for client in (old, new):
        events = list(client.messages.stream(**asked))
        assert [events[0].type, events[-1].type] == ["message_start", "message_stop"]
        deltas = [event.delta for event in events if event.type == "content_block_delta"]
        assert "".join(delta.text for delta in deltas) == direct.text
    plain = {"messages": ASKED, "system": "Be brief."}
    counted = new.messages.count_tokens(**plain).input_tokens
    usage = new.messages.create(**plain, max_tokens=1).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens


@pytest.mark.client(V03, "chat.create")
async def test_the_async_clients(worker, session_id):
    asked = {"messages": ASKED, "session_id": session_id, "max_tokens": 4, "temperature": 0.0}
    async with (
        AsyncLayerScale(base_url=worker.url, timeout=60) as old,
        v08.AsyncLayerScale(base_url=worker.url, timeout=60) as new,
    ):
        texts = set()
        for client in (old, new):
            assert (await client.health.check()).ok
            assert (await client.models.list()).data
            texts.add((await client.chat.create(**asked)).choices[0].message.content)
            stream = await client.chat.stream(**asked)
            texts.add(
                "".join([c.delta.content or "" async for chunk in stream for c in chunk.choices])
            )
            texts.add((await client.messages.create(**asked)).content[0].text)
            events = [event async for event in await client.messages.stream(**asked)]
            deltas = [event.delta for event in events if event.type == "content_block_delta"]
            texts.add("".join(delta.text for delta in deltas))
        assert (await new.messages.count_tokens(messages=ASKED)).input_tokens > 5
        said = await old.completions.create(prompt="One, two,", max_tokens=2)
        assert said.usage.completion_tokens == 2
    assert len(texts) == 1
