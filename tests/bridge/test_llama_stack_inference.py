"""Inference and OpenAI's routes of llama-stack-client 0.2.12 of PyPI, against a real worker
and the same asked another way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from conftest import RunningWorker
from llama_stack_asked import GREEDY, PYPI, asked_otherwise, llama_stack, model_id
from llama_stack_client import BadRequestError, LlamaStackClient, NotFoundError

from openai_worker import EMBEDDER, embedding_model

CONVERSATION: Any = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "What is the capital of France?"},
]


def runs(method: str) -> pytest.MarkDecorator:
    return pytest.mark.client(PYPI, method)


@pytest.fixture(scope="module")
def client(worker: RunningWorker) -> Iterator[LlamaStackClient]:
    with llama_stack(worker.url) as client:
        yield client


@pytest.fixture(scope="module")
def model(worker: RunningWorker) -> str:
    return model_id(worker.url)


# -- inference ----------------------------------------------------------------------


@runs("inference.chat_completion")
def test_a_chat_is_answered_as_in_openais_words(client, worker, model):
    answer = client.inference.chat_completion(
        model_id=model, messages=CONVERSATION, sampling_params=GREEDY, logprobs={"top_k": 2}
    )
    choice = asked_otherwise(worker.url, CONVERSATION, max_tokens=12, logprobs=True, top_logprobs=2)
    assert answer.completion_message.content == choice["message"]["content"]
    tops = [
        {top["token"]: top["logprob"] for top in token["top_logprobs"]}
        for token in choice["logprobs"]["content"]
    ]
    assert [one.logprobs_by_token for one in answer.logprobs] == [
        pytest.approx(top, abs=0.02) for top in tops
    ]
    counts = {one.metric: one.value for one in answer.metrics}
    assert counts["total_tokens"] == counts["prompt_tokens"] + counts["completion_tokens"]
    assert counts["prompt_tokens"] > 10


@runs("inference.chat_completion")
def test_a_streamed_chat_is_the_same_chat(client, model):
    body: Any = {"model_id": model, "messages": CONVERSATION, "sampling_params": GREEDY}
    whole = client.inference.chat_completion(**body)
    events = [chunk.event for chunk in client.inference.chat_completion(**body, stream=True)]
    assert events[0].event_type == "start"
    assert events[-1].event_type == "complete"
    assert events[-1].stop_reason == whole.completion_message.stop_reason
    assert {event.event_type for event in events[1:-1]} == {"progress"}
    assert "".join(event.delta.text for event in events) == whole.completion_message.content


def test_a_chat_calls_the_tool_that_it_must(client, model):
    parameters = {"city": {"param_type": "string", "description": "Where", "required": True}}
    answer = client.inference.chat_completion(
        model_id=model,
        messages=[{"role": "user", "content": "What is the weather in Rome?"}],
        tools=[{"tool_name": "get_weather", "description": "Weather", "parameters": parameters}],
        tool_config={"tool_choice": "get_weather"},
        sampling_params={"strategy": {"type": "greedy"}, "max_tokens": 40},
    )
    [call] = answer.completion_message.tool_calls
    assert (call.tool_name, call.arguments) == ("get_weather", {"city": "Rome"})
    assert answer.completion_message.stop_reason == "end_of_message"


def test_a_chat_keeps_to_its_json_schema(client, model):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answer = client.inference.chat_completion(
        model_id=model,
        messages=[{"role": "user", "content": "Give a number."}],
        response_format={"type": "json_schema", "json_schema": schema},
        sampling_params={"strategy": {"type": "greedy"}, "max_tokens": 30},
    )
    assert httpx.Response(200, text=str(answer.completion_message.content)).json()["n"] is not None


@runs("inference.completion")
def test_a_text_is_gone_on_with(client, worker, model):
    body: Any = {
        "model_id": model,
        "content": "The capital of France is",
        "sampling_params": GREEDY,
        "logprobs": {"top_k": 1},
    }
    answer = client.inference.completion(**body)
    prompt = {"model": model, "prompt": body["content"], "temperature": 0, "max_tokens": 12}
    other = httpx.post(f"{worker.url}/v1/completions", json=prompt, timeout=60).json()
    assert answer.content == other["choices"][0]["text"]
    assert answer.stop_reason == "out_of_tokens"
    assert len(answer.logprobs) == 12
    chunks = list(client.inference.completion(**body, stream=True))
    assert "".join(chunk.content for chunk in chunks) == answer.content
    assert [chunk.stop_reason for chunk in chunks][-2:] == [None, "out_of_tokens"]


@runs("inference.batch_chat_completion")
@runs("inference.batch_completion")
def test_a_batch_is_its_single_ones(client, model):
    more: Any = {"model_id": model, "sampling_params": GREEDY}
    single = [
        client.inference.chat_completion(messages=messages, **more)
        for messages in (CONVERSATION, CONVERSATION[1:])
    ]
    batch = client.inference.batch_chat_completion(
        messages_batch=[CONVERSATION, CONVERSATION[1:]], **more
    )
    assert [one.completion_message for one in batch.batch] == [
        one.completion_message for one in single
    ]
    texts = ["One, two, three, four,", "Monday, Tuesday, Wednesday,"]
    alone = [client.inference.completion(content=text, **more).content for text in texts]
    both = client.inference.batch_completion(content_batch=texts, **more)
    assert [one.content for one in both.batch] == alone


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(NotFoundError, match="no model"):
        client.inference.chat_completion(model_id="nope", messages=CONVERSATION)
    config: Any = {"model": "nope", "instructions": ""}
    agent_id = client.agents.create(agent_config=config).agent_id
    with pytest.raises(NotFoundError, match="no model"):
        client.agents.session.create(agent_id, session_name="s")
    client.agents.delete(agent_id)


def test_sampling_of_a_seed_is_the_same_twice_and_not_greedy(client, model):
    def ask(seed: int) -> str:
        answer = client.inference.completion(
            model_id=model,
            content="Once upon a time",
            sampling_params={
                "strategy": {"type": "top_p", "temperature": 1.5, "top_p": 0.99},
                "max_tokens": 8,
                "seed": seed,
            },
        )
        return answer.content

    assert ask(1) == ask(1)
    assert len({ask(seed) for seed in range(4)}) > 1


@runs("inference.embeddings")
@runs("embeddings.create")
def test_texts_become_vectors(client, worker):
    embedding_model(worker.log.parent)
    texts = ["The trend is up.", "Volume fell."]
    body = {"model": EMBEDDER, "input": texts, "encoding_format": "float"}
    other = httpx.post(f"{worker.url}/v1/embeddings", json=body, timeout=60).json()
    vectors = [one["embedding"] for one in other["data"]]
    got = client.inference.embeddings(model_id=EMBEDDER, contents=texts).embeddings
    items: Any = [{"type": "text", "text": text} for text in texts]
    same = client.inference.embeddings(model_id=EMBEDDER, contents=items).embeddings
    created = client.embeddings.create(model=EMBEDDER, input=texts, encoding_format="float")
    for vector, one, two, three in zip(vectors, got, same, created.data, strict=True):
        assert one == pytest.approx(vector, abs=1e-3)
        assert two == pytest.approx(vector, abs=1e-3)
        assert three.embedding == pytest.approx(vector, abs=1e-3)
    for more, message in (
        ({"text_truncation": "end"}, "text_truncation"),
        ({"output_dimension": 3}, "output_dimension"),
        ({"contents": []}, "contents"),
    ):
        asked: Any = {"model_id": EMBEDDER, "contents": texts} | more
        with pytest.raises(BadRequestError, match=message):
            client.inference.embeddings(**asked)


# -- OpenAI's routes, under /v1/openai/v1 ----------------------------------------------


@runs("chat.completions.create")
@runs("chat.completions.retrieve")
@runs("chat.completions.list")
def test_chat_completions(client, worker, model):
    asked: Any = {"model": model, "messages": CONVERSATION, "max_tokens": 12, "temperature": 0}
    text = asked_otherwise(worker.url, CONVERSATION, max_tokens=12)["message"]["content"]
    # A stream of these clients ends without [DONE], which they would read as JSON.
    chunks = list(client.chat.completions.create(**asked, stream=True))
    deltas = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(deltas) == text
    kept = client.chat.completions.create(**asked, extra_body={"store": True})
    assert kept.choices[0].message.content == text
    found = client.chat.completions.retrieve(kept.id)
    assert found.choices[0].message.content == text
    assert kept.id in [one.id for one in client.chat.completions.list(limit=100).data]


@runs("completions.create")
def test_completions(client, worker, model):
    asked: Any = {"model": model, "prompt": "The capital of France is", "max_tokens": 8}
    asked["temperature"] = 0
    whole = client.completions.create(**asked).choices[0].text
    chunks = list(client.completions.create(**asked, stream=True))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == whole
    sampling: Any = GREEDY | {"max_tokens": 8}
    other = client.inference.completion(
        model_id=model, content=asked["prompt"], sampling_params=sampling
    )
    assert whole == other.content


@runs("responses.create")
@runs("responses.retrieve")
@runs("responses.list")
@runs("responses.input_items.list")
def test_responses(client, worker, model):
    asked = "What is the capital of France?"
    body: Any = {"model": model, "input": asked, "temperature": 0}
    response = client.responses.create(**body, extra_body={"max_output_tokens": 16})
    choice = asked_otherwise(worker.url, CONVERSATION[1:], max_tokens=16)
    [message] = response.output
    assert message.content[0].text == choice["message"]["content"]
    assert client.responses.retrieve(response.id).output == response.output
    assert response.id in [one.id for one in client.responses.list(limit=100).data]
    assert asked in str(client.responses.input_items.list(response.id).data)
    again = client.responses.create(
        **body, previous_response_id=response.id, stream=True,
        extra_body={"max_output_tokens": 8},
    )  # fmt: skip
    events = list(again)
    assert events[0].type == "response.created"
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert events[-1].response.previous_response_id == response.id
