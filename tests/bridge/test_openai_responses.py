"""OpenAI's responses and conversations by the published client."""

import json

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from pydantic import BaseModel

from openai_worker import WEATHER, live_session, openai_client

pytestmark = [pytest.mark.model, pytest.mark.broker]

PYPI = "openai 3.54.0 (PyPI)"
ASKED = "Name the capital of France."
TREND = "Is the trend up or down?"
GREEDY = {"temperature": 0, "max_output_tokens": 8}
TOOL = {"type": "function", **WEATHER["function"]}


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


def chat_text(client, messages, **more):
    """The same, asked of chat completions."""
    answer = client.chat.completions.create(
        model="", messages=messages, temperature=0, max_tokens=8, **more
    )
    return answer.choices[0].message.content


def user(text):
    return {"role": "user", "content": text}


@pytest.mark.client(PYPI, "responses.create")
def test_a_response_is_the_chat_completions_answer(client, model):
    response = client.responses.create(
        model=model, input=ASKED, instructions="Be brief.", metadata={"a": "b"}, **GREEDY
    )
    asked = [{"role": "system", "content": "Be brief."}, user(ASKED)]
    assert response.output_text == chat_text(client, asked)
    assert (response.model, response.object) == (model, "response")
    assert response.metadata == {"a": "b"}
    same = client.chat.completions.create(
        model=model, messages=asked, temperature=0, max_tokens=8
    ).usage
    assert response.usage.input_tokens == same.prompt_tokens
    assert response.usage.output_tokens == same.completion_tokens
    cut = same.completion_tokens == 8
    assert response.status == ("incomplete" if cut else "completed")
    if cut:
        assert response.incomplete_details.reason == "max_output_tokens"


@pytest.mark.client(PYPI, "responses.create (stream)")
def test_the_events_come_in_order_and_make_the_same_response(client, model):
    whole = client.responses.create(model=model, input=ASKED, **GREEDY)
    events = list(client.responses.create(model=model, input=ASKED, stream=True, **GREEDY))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        f"response.{whole.status}",
    ]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text == events[-1].response.output_text
    assert events[-1].response.usage.output_tokens == whole.usage.output_tokens
    ids = {event.item_id for event in events if hasattr(event, "item_id")}
    assert ids == {events[-1].response.output[0].id}
    kept = client.responses.retrieve(events[-1].response.id)
    assert kept == events[-1].response


@pytest.mark.client(PYPI, "responses.stream")
def test_the_clients_own_accumulator(client, model):
    whole = client.responses.create(model=model, input=ASKED, temperature=0)
    with client.responses.stream(model=model, input=ASKED, temperature=0) as stream:
        assert "response.output_text.delta" in {event.type for event in stream}
        final = stream.get_final_response()
    assert final.output_text == whole.output_text
    assert final.status == "completed"


@pytest.mark.client(PYPI, "AsyncOpenAI responses.create")
@pytest.mark.client(PYPI, "AsyncOpenAI responses.create (stream)")
async def test_the_async_client(worker, client, model):
    whole = client.responses.create(model=model, input=ASKED, **GREEDY)
    async with AsyncOpenAI(base_url=f"{worker.url}/v1", api_key="x", max_retries=0) as other:
        same = await other.responses.create(model=model, input=ASKED, **GREEDY)
        stream = await other.responses.create(model=model, input=ASKED, stream=True, **GREEDY)
        events = [event async for event in stream]
        assert (await other.responses.retrieve(same.id)).output_text == whole.output_text
    assert same.output_text == events[-1].response.output_text == whole.output_text


@pytest.mark.client(PYPI, "responses.create (previous_response_id)")
def test_a_response_goes_on_from_the_ones_before_it(client, model):
    first = client.responses.create(model=model, input="My name is Ada.", **GREEDY)
    second = client.responses.create(
        model=model, input=ASKED, previous_response_id=first.id, **GREEDY
    )
    third = client.responses.create(
        model=model, input="And mine?", previous_response_id=second.id, **GREEDY
    )
    turns = [
        user("My name is Ada."),
        {"role": "assistant", "content": first.output_text},
        user(ASKED),
        {"role": "assistant", "content": second.output_text},
        user("And mine?"),
    ]
    assert second.output_text == chat_text(client, turns[:3])
    assert third.output_text == chat_text(client, turns)
    assert third.previous_response_id == second.id
    assert third.usage.input_tokens_details.cached_tokens > first.usage.input_tokens
    client.responses.delete(second.id)
    with pytest.raises(BadRequestError, match=second.id) as gone:
        client.responses.create(model=model, input="x", previous_response_id=third.id)
    assert gone.value.param == "previous_response_id"


@pytest.mark.client(PYPI, "responses.create (session_id)")
def test_a_live_session_is_asked_and_asked_again(client, session):
    said = session.generate(TREND, max_tokens=8)
    first = client.responses.create(
        model="", input=TREND, extra_body={"session_id": session.id}, **GREEDY
    )
    assert first.output_text == said["text"]
    held = session.state()["n_tokens"]
    assert first.usage.input_tokens > held
    by_header = client.responses.create(
        model="", input=TREND, extra_headers={"x-layerscale-session-id": session.id}, **GREEDY
    )
    assert by_header.output_text == said["text"]
    second = client.responses.create(
        model="", input="Why?", previous_response_id=first.id, **GREEDY
    )
    turns = [user(TREND), {"role": "assistant", "content": first.output_text}, user("Why?")]
    assert second.output_text == chat_text(client, turns, extra_body={"session_id": session.id})
    assert second.usage.input_tokens > held


@pytest.mark.client(PYPI, "responses.create (tools)")
@pytest.mark.client(PYPI, "responses.create (tools, stream)")
def test_a_tool_is_called_and_its_result_read(client, model):
    ask = {
        "model": model,
        "input": "What is the weather in Paris?",
        "tools": [TOOL],
        "tool_choice": {"type": "function", "name": "get_weather"},
        "temperature": 0,
        "max_output_tokens": 48,
    }
    called = client.responses.create(**ask)
    [call] = called.output
    assert (call.type, call.name, call.status) == ("function_call", "get_weather", "completed")
    assert json.loads(call.arguments)["city"] in ("Paris", "Rome")
    events = list(client.responses.create(stream=True, **ask))
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert events[-1].response.output[0].arguments == call.arguments
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"}
    read = client.responses.create(
        model=model, input=[result], previous_response_id=called.id, tools=[TOOL], **GREEDY
    )
    by_hand = client.responses.create(
        model=model,
        input=[user(ask["input"]), call.model_dump(exclude_none=True), result],
        tools=[TOOL],
        **GREEDY,
    )
    assert read.output_text == by_hand.output_text
    assert read.usage.input_tokens == by_hand.usage.input_tokens > called.usage.input_tokens
    with pytest.raises(BadRequestError):
        client.responses.create(model=model, input=[result], **GREEDY)


class Capital(BaseModel):
    city: str
    rivers: int


@pytest.mark.client(PYPI, "responses.parse")
def test_the_text_follows_its_schema(client, model):
    parsed = client.responses.parse(
        model=model, input=ASKED, text_format=Capital, temperature=0, max_output_tokens=40
    )
    assert isinstance(parsed.output_parsed, Capital)
    assert parsed.text.format.name == "Capital"


def test_logprobs_are_those_of_the_chat(client, model):
    response = client.responses.create(
        model=model,
        input=ASKED,
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        **GREEDY,
    )
    chat = client.chat.completions.create(
        model=model,
        messages=[user(ASKED)],
        logprobs=True,
        top_logprobs=2,
        temperature=0,
        max_tokens=8,
    )
    [part] = response.output[0].content
    wanted = chat.choices[0].logprobs.content
    assert [(one.token, one.logprob) for one in part.logprobs] == [
        (one.token, one.logprob) for one in wanted
    ]
    assert all(len(one.top_logprobs) == 2 for one in part.logprobs)


@pytest.mark.client(PYPI, "responses.retrieve")
@pytest.mark.client(PYPI, "responses.delete")
@pytest.mark.client(PYPI, "responses.input_items.list")
@pytest.mark.client(PYPI, "responses.input_tokens.count")
@pytest.mark.client(PYPI, "responses.cancel")
def test_a_kept_response_is_read_and_deleted(client, model):
    items = [user("One"), {"role": "assistant", "content": "Two"}, user("Three")]
    response = client.responses.create(model=model, input=items, **GREEDY)
    assert client.responses.retrieve(response.id) == response
    listed = client.responses.input_items.list(response.id, order="asc", limit=2)
    assert [item.content[0].text for item in listed] == ["One", "Two", "Three"]
    newest = client.responses.input_items.list(response.id).data
    assert [item.content[0].text for item in newest] == ["Three", "Two", "One"]
    counted = client.responses.input_tokens.count(model=model, input=items)
    assert counted.input_tokens == response.usage.input_tokens
    with pytest.raises(BadRequestError, match="has ended"):
        client.responses.cancel(response.id)
    client.responses.delete(response.id)
    with pytest.raises(NotFoundError):
        client.responses.retrieve(response.id)
    unkept = client.responses.create(model=model, input=ASKED, store=False, **GREEDY)
    with pytest.raises(NotFoundError):
        client.responses.retrieve(unkept.id)


@pytest.mark.client(PYPI, "conversations.create")
@pytest.mark.client(PYPI, "conversations.retrieve")
@pytest.mark.client(PYPI, "conversations.update")
@pytest.mark.client(PYPI, "conversations.delete")
@pytest.mark.client(PYPI, "responses.create (conversation)")
def test_responses_go_on_in_a_conversation(client, model):
    held = client.conversations.create(items=[user("My name is Ada.")], metadata={"a": "1"})
    assert client.conversations.retrieve(held.id) == held
    assert client.conversations.update(held.id, metadata={"a": "2"}).metadata == {"a": "2"}
    first = client.responses.create(model=model, input=ASKED, conversation=held.id, **GREEDY)
    assert first.conversation.id == held.id
    turns = [user("My name is Ada."), user(ASKED)]
    second = client.responses.create(
        model=model, input="Why?", conversation={"id": held.id}, store=False, **GREEDY
    )
    turns += [{"role": "assistant", "content": first.output_text}, user("Why?")]
    by_hand = client.responses.create(model=model, input=turns, **GREEDY)
    assert second.output_text == by_hand.output_text
    assert second.usage.input_tokens == by_hand.usage.input_tokens
    items = list(client.conversations.items.list(held.id, order="asc"))
    texts = [*[turn["content"] for turn in turns], second.output_text]
    assert [item.content[0].text for item in items] == texts
    with pytest.raises(BadRequestError, match="conversation"):
        client.responses.create(model=model, input="x", previous_response_id=first.id)
    assert client.conversations.delete(held.id).deleted
    with pytest.raises(NotFoundError):
        client.responses.create(model=model, input="x", conversation=held.id)


@pytest.mark.client(PYPI, "conversations.items.create")
@pytest.mark.client(PYPI, "conversations.items.list")
@pytest.mark.client(PYPI, "conversations.items.retrieve")
@pytest.mark.client(PYPI, "conversations.items.delete")
def test_a_conversations_items(client):
    held = client.conversations.create()
    added = client.conversations.items.create(
        held.id, items=[user("One"), user("Two"), user("Three")]
    )
    ids = [item.id for item in added.data]
    assert [item.id for item in client.conversations.items.list(held.id, limit=1)] == ids[::-1]
    two = client.conversations.items.retrieve(ids[1], conversation_id=held.id)
    assert two.content[0].text == "Two"
    assert client.conversations.items.delete(ids[1], conversation_id=held.id).id == held.id
    left = client.conversations.items.list(held.id, order="asc").data
    assert [item.id for item in left] == [ids[0], ids[2]]
    with pytest.raises(NotFoundError):
        client.conversations.items.retrieve(ids[1], conversation_id=held.id)
    client.conversations.delete(held.id)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools.0"),
        ({"input": []}, "input"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input.0.role"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input.0.type"),
        (
            {"input": [user([{"type": "input_image", "image_url": "x"}])]},
            "input.0.content.0",
        ),
        (
            {"input": [{"type": "function_call", "call_id": "a", "name": "f", "arguments": "("}]},
            "input",
        ),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"include": ["file_search_call.results"]}, "include.0"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"previous_response_id": "resp_none"}, "previous_response_id"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client, model, fields, param):
    with pytest.raises(BadRequestError) as wrong:
        client.responses.create(**({"model": model, "input": ASKED} | fields))
    assert wrong.value.param == param
    with pytest.raises(BadRequestError):
        client.responses.create(**({"model": model, "input": ASKED} | fields), stream=True)
