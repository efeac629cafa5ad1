"""OpenAI's asynchronous client: every method of it gives what the synchronous one gets."""

import json

import pytest
from openai import APIStatusError, AsyncOpenAI
from pydantic import BaseModel

from openai_worker import EMBEDDER, WEATHER, embedding_model, openai_client

pytestmark = [pytest.mark.model, pytest.mark.broker]

PYPI = "openai 3.54.0 (PyPI)"
ASKED = "Name the capital of France."
MESSAGES = [{"role": "user", "content": ASKED}]
CHAT = {"model": "", "messages": MESSAGES, "temperature": 0, "max_tokens": 8}
RESPONSE = {"model": "", "input": ASKED, "temperature": 0, "max_output_tokens": 8}
CALLING = {"temperature": 0, "max_tokens": 48, "tools": [WEATHER], "tool_choice": "required"}


class Capital(BaseModel):
    city: str


@pytest.fixture
async def client(worker):
    embedding_model(worker.log.parent)
    async with AsyncOpenAI(
        base_url=f"{worker.url}/v1", api_key="x", max_retries=0, timeout=120
    ) as client:
        yield client


@pytest.fixture(scope="module")
def said(worker):
    """What the synchronous client is answered."""
    with openai_client(worker.url) as client:
        return client.chat.completions.create(**CHAT).choices[0].message.content


async def status_of(awaitable):
    with pytest.raises(APIStatusError) as refused:
        await awaitable
    return refused.value.status_code


async def chat_stream(client):
    async with client.chat.completions.stream(**CHAT) as stream:
        return (await stream.get_final_completion()).choices[0].message.content


async def chat_tools(client):
    chat = {**CHAT, "messages": [{"role": "user", "content": "The weather in Rome?"}], **CALLING}
    answer = await client.chat.completions.create(**chat)
    [call, *_] = answer.choices[0].message.tool_calls
    return json.loads(call.function.arguments)["city"] in ("Paris", "Rome")


async def chat_parse(client):
    chat = {**CHAT, "max_tokens": 40, "response_format": Capital}
    return bool((await client.chat.completions.parse(**chat)).choices[0].message.parsed.city)


async def chat_kept(client):
    """Kept, read, changed, listed, and forgotten."""
    kept = await client.chat.completions.create(**CHAT, store=True, metadata={"run": "async"})
    read = await client.chat.completions.retrieve(kept.id)
    changed = await client.chat.completions.update(kept.id, metadata={"run": "changed"})
    listed = [one.id async for one in client.chat.completions.list(metadata={"run": "changed"})]
    messages = [one.content async for one in client.chat.completions.messages.list(kept.id)]
    deleted = await client.chat.completions.delete(kept.id)
    assert (changed.metadata, listed, messages) == ({"run": "changed"}, [kept.id], [ASKED])
    assert deleted.deleted
    assert await status_of(client.chat.completions.retrieve(kept.id)) == 404
    return read.choices[0].message.content


async def response_stream(client):
    async with client.responses.stream(**RESPONSE) as stream:
        return (await stream.get_final_response()).output_text


async def response_parse(client):
    asked = {**RESPONSE, "max_output_tokens": 40, "text_format": Capital}
    return bool((await client.responses.parse(**asked)).output_parsed.city)


async def response_kept(client):
    kept = await client.responses.create(**RESPONSE)
    read = await client.responses.retrieve(kept.id)
    items = [one.content[0].text async for one in client.responses.input_items.list(kept.id)]
    counted = await client.responses.input_tokens.count(model="", input=ASKED)
    assert (items, counted.input_tokens) == ([ASKED], kept.usage.input_tokens)
    assert await status_of(client.responses.cancel(kept.id)) == 400
    await client.responses.delete(kept.id)
    assert await status_of(client.responses.retrieve(kept.id)) == 404
    return read.output_text


async def conversation(client):
    held = await client.conversations.create(items=MESSAGES, metadata={"a": "1"})
    assert await client.conversations.retrieve(held.id) == held
    changed = await client.conversations.update(held.id, metadata={"a": "2"})
    assert changed.metadata == {"a": "2"}
    asked = {**RESPONSE, "input": [], "conversation": held.id}
    answer = await client.responses.create(**asked)
    items = client.conversations.items
    texts = [one.content[0].text async for one in items.list(held.id, order="asc")]
    assert texts == [ASKED, answer.output_text]
    [added] = (await items.create(held.id, items=MESSAGES)).data
    assert (await items.retrieve(added.id, conversation_id=held.id)).id == added.id
    await items.delete(added.id, conversation_id=held.id)
    assert len([one async for one in items.list(held.id)]) == 2
    await client.conversations.delete(held.id)
    assert await status_of(client.conversations.retrieve(held.id)) == 404
    return answer.output_text


async def embeddings(client):
    answer = await client.embeddings.create(model=EMBEDDER, input=["up", "down"])
    return len(answer.data) == 2 and answer.data[0].embedding != answer.data[1].embedding


RUNS = [
    (chat_stream, ["chat.completions.stream"]),
    (chat_tools, ["chat.completions.create (tools)"]),
    (chat_parse, ["chat.completions.parse"]),
    (
        chat_kept,
        [f"chat.completions.{one}" for one in ("retrieve", "update", "list", "delete")]
        + ["chat.completions.messages.list"],
    ),
    (response_stream, ["responses.stream"]),
    (response_parse, ["responses.parse"]),
    (
        response_kept,
        [f"responses.{one}" for one in ("retrieve", "delete", "cancel")]
        + ["responses.input_items.list", "responses.input_tokens.count"],
    ),
    (
        conversation,
        [f"conversations.{one}" for one in ("create", "retrieve", "update", "delete")]
        + [f"conversations.items.{one}" for one in ("create", "list", "retrieve", "delete")],
    ),
    (embeddings, ["embeddings.create"]),
]


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(
            run, marks=[pytest.mark.client(PYPI, f"AsyncOpenAI {method}") for method in methods]
        )
        for run, methods in RUNS
    ],
)
async def test_the_asynchronous_client_is_answered_the_same(run, client, said):
    assert await run(client) in (said, True)
