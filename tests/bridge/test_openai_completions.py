"""OpenAI's completions and models by the published client."""

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from openai_worker import live_session, openai_client

pytestmark = [pytest.mark.model, pytest.mark.broker]

PYPI = "openai 3.54.0 (PyPI)"
TEXT = "The capital of France is"
GREEDY = {"temperature": 0, "max_tokens": 6}


@pytest.fixture(scope="module")
def client(worker):
    with openai_client(worker.url) as client:
        yield client


@pytest.fixture(scope="module")
def model(client):
    return client.models.list().data[0].id


@pytest.mark.client(PYPI, "completions.create")
def test_a_text_is_gone_on_with_as_it_stands(client, model):
    whole = client.completions.create(model=model, prompt=TEXT, **GREEDY)
    assert "Paris" in whole.choices[0].text
    assert (whole.model, whole.object) == (model, "text_completion")
    # The text alone is read: no template is put around it.
    assert whole.usage.prompt_tokens <= len(TEXT.split()) + 1
    assert whole.usage.completion_tokens == 6
    # What it wrote, it goes on with.
    first = client.completions.create(model=model, prompt=TEXT, temperature=0, max_tokens=3)
    rest = client.completions.create(
        model=model, prompt=TEXT + first.choices[0].text, temperature=0, max_tokens=3
    )
    assert first.choices[0].text + rest.choices[0].text == whole.choices[0].text


@pytest.mark.client(PYPI, "completions.create (stream)")
def test_several_texts_whole_and_streamed(client, model):
    ask = {"model": model, "prompt": [TEXT, "One, two, three,"], "n": 2, "echo": True, **GREEDY}
    whole = client.completions.create(**ask)
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    assert whole.choices[0].text.startswith(TEXT)
    assert whole.choices[2].text.startswith("One, two, three,")
    alone = [
        client.completions.create(model=model, prompt=prompt, **GREEDY).usage.prompt_tokens
        for prompt in ask["prompt"]
    ]
    assert whole.usage.prompt_tokens == sum(alone)
    chunks = list(
        client.completions.create(stream=True, stream_options={"include_usage": True}, **ask)
    )
    for wanted in whole.choices:
        parts = [c for chunk in chunks for c in chunk.choices if c.index == wanted.index]
        assert "".join(part.text for part in parts) == wanted.text
        assert parts[-1].finish_reason == wanted.finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


@pytest.mark.client(PYPI, "AsyncOpenAI completions.create")
async def test_the_async_client(worker, client, model):
    whole = client.completions.create(model=model, prompt=TEXT, **GREEDY)
    async with AsyncOpenAI(base_url=f"{worker.url}/v1", api_key="x", max_retries=0) as other:
        stream = await other.completions.create(model=model, prompt=TEXT, stream=True, **GREEDY)
        text = "".join([chunk.choices[0].text async for chunk in stream])
    assert text == whole.choices[0].text


def test_logprobs_in_their_older_form(client, model):
    ask = {"model": model, "prompt": TEXT, "logprobs": 2, **GREEDY}
    [choice] = client.completions.create(**ask).choices
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text
    for token, value, top, offset in zip(
        logprobs.tokens,
        logprobs.token_logprobs,
        logprobs.top_logprobs,
        logprobs.text_offset,
        strict=True,
    ):
        assert choice.text[offset:].startswith(token)
        assert max(top.values()) == top[token] == value
        assert len(top) == 2
    chunks = list(client.completions.create(stream=True, **ask))
    parts = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert [offset for part in parts for offset in part.text_offset] == logprobs.text_offset
    assert [value for part in parts for value in part.token_logprobs] == logprobs.token_logprobs


@pytest.mark.client(PYPI, "completions.create (session_id)")
def test_a_live_session_answers_a_prompt(worker, client):
    with live_session(worker.url) as session:
        said = session.generate("Is the trend up or down?", max_tokens=6)
        answer = client.completions.create(
            model="",
            prompt="Is the trend up or down?",
            extra_body={"session_id": session.id},
            **GREEDY,
        )
        assert answer.choices[0].text == said["text"]
        assert answer.usage.prompt_tokens > session.state()["n_tokens"]


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("best_of", 2, "best_of"),
        ("suffix", "end", "suffix"),
        ("prompt", [1, 2, 3], "prompt.0"),
        ("prompt", [], "prompt"),
        ("prompt", "", "prompt"),
        ("prompt", ["a", ""], "prompt.1"),
        ("logprobs", 21, "logprobs"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client, model, field, value, param):
    ask = {"model": model, "prompt": TEXT, field: value}
    with pytest.raises(BadRequestError) as wrong:
        client.completions.create(**ask)
    assert wrong.value.param == param


def test_the_log_probabilities_of_a_prompt_are_refused(client, model):
    with pytest.raises(BadRequestError) as wrong:
        client.completions.create(model=model, prompt=TEXT, echo=True, logprobs=1)
    assert wrong.value.param == "echo"


@pytest.mark.client(PYPI, "models.list")
@pytest.mark.client(PYPI, "models.retrieve")
def test_the_models_are_those_that_answer(worker, client):
    [model] = client.models.list().data
    assert client.models.retrieve(model.id) == model
    answered = client.completions.create(model=model.id, prompt=TEXT, **GREEDY)
    assert answered.model == model.id
    assert (
        client.chat.completions.create(
            model="", messages=[{"role": "user", "content": "x"}], **GREEDY
        ).model
        == model.id
    )
    raw = httpx.get(f"{worker.url}/v1/models").json()
    assert raw["first_id"] == raw["last_id"] == model.id
    assert raw["data"][0]["max_model_len"] == 2048
    with pytest.raises(NotFoundError, match=model.id) as unknown:
        client.models.retrieve("gpt-9")
    assert unknown.value.code == "model_not_found"


@pytest.mark.client(PYPI, "AsyncOpenAI models.list")
@pytest.mark.client(PYPI, "AsyncOpenAI models.retrieve")
async def test_the_models_by_the_async_client(worker, model):
    async with AsyncOpenAI(base_url=f"{worker.url}/v1", api_key="x") as other:
        assert [one.id async for one in other.models.list()] == [model]
        assert (await other.models.retrieve(model)).id == model
