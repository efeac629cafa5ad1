"""OpenAI's embeddings by the published client: a small model of BERT's kind, against
llama-cpp-python's own embeddings of it."""

import json

import llama_cpp
import numpy as np
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from flashfeed.agents.embedding_models import embedding_models
from flashfeed.engine import fastest_form, find_packaged_model
from flashfeed.models.config import Config, ModelConfig

from openai_worker import EMBEDDER, embedding_model, openai_client

pytestmark = [pytest.mark.model, pytest.mark.broker]

PYPI = "openai 3.54.0 (PyPI)"
TEXTS = ["The trend is up.", "Volume fell by a third.", "x"]
WITHIN = 1e-3


@pytest.fixture(scope="module")
def client(worker):
    with openai_client(worker.url) as client:
        yield client


@pytest.fixture(scope="module")
def bert(worker):
    return embedding_model(worker.log.parent)


@pytest.fixture(scope="module")
def expected(bert):
    """Each text's vector, as llama-cpp-python computes it, at length 1; and the tokens."""
    llama = llama_cpp.Llama(
        str(bert), embedding=True, n_ctx=512, n_batch=512, n_ubatch=512, verbose=False
    )
    rows = np.array([llama.embed(text) for text in TEXTS])
    n_tokens = sum(len(llama.tokenize(text.encode())) for text in TEXTS)
    llama.close()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), n_tokens


@pytest.mark.client(PYPI, "embeddings.create")
def test_texts_become_vectors(client, expected):
    rows, n_tokens = expected
    # The client asks for base64 by itself, and reads it.
    answer = client.embeddings.create(model=EMBEDDER, input=TEXTS)
    assert answer.model == EMBEDDER
    assert [one.index for one in answer.data] == [0, 1, 2]
    got = np.array([one.embedding for one in answer.data])
    np.testing.assert_allclose(got, rows, atol=WITHIN)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == n_tokens
    as_float = client.embeddings.create(model=EMBEDDER, input=TEXTS[1], encoding_format="float")
    np.testing.assert_allclose(as_float.data[0].embedding, rows[1], atol=WITHIN)


@pytest.mark.client(PYPI, "AsyncOpenAI embeddings.create")
async def test_the_async_client(worker, expected):
    async with AsyncOpenAI(base_url=f"{worker.url}/v1", api_key="x") as client:
        answer = await client.embeddings.create(model=EMBEDDER, input=TEXTS)
    np.testing.assert_allclose(
        np.array([one.embedding for one in answer.data]), expected[0], atol=WITHIN
    )


def test_fewer_dimensions_are_the_first_ones_at_length_1(client, expected):
    answer = client.embeddings.create(model=EMBEDDER, input=TEXTS, dimensions=16)
    rows = expected[0][:, :16]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    got = np.array([one.embedding for one in answer.data])
    np.testing.assert_allclose(got, rows, atol=4 * WITHIN)
    with pytest.raises(BadRequestError, match="at most 64") as wrong:
        client.embeddings.create(model=EMBEDDER, input=TEXTS, dimensions=65)
    assert wrong.value.param == "dimensions"


def test_a_model_that_writes_text_is_refused(client, bert):
    model = client.models.list().data[0].id
    for named in (model, ""):
        with pytest.raises(BadRequestError, match=r"only writes text.*configured for") as refused:
            client.embeddings.create(model=named, input="x")
        assert refused.value.code == "model_refused"
    with pytest.raises(NotFoundError):
        client.embeddings.create(model="gpt-9", input="x")
    # Nor does the model for embeddings chat.
    with pytest.raises(BadRequestError, match="embedding model") as wrong:
        client.chat.completions.create(model=EMBEDDER, messages=[{"role": "user", "content": "x"}])
    assert wrong.value.code == "model_refused"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [1, 2]}, "input.0"),
        ({"input": []}, "input"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "x", "truncate": True}, "truncate"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client, bert, fields, param):
    with pytest.raises(BadRequestError) as wrong:
        client.post("/embeddings", body={"model": EMBEDDER, **fields}, cast_to=object)
    assert wrong.value.param == param


def test_an_empty_and_a_long_text_are_refused_by_their_place(client, bert):
    for text in ("", "up " * 3000):
        with pytest.raises(BadRequestError, match=r"input\.1"):
            client.embeddings.create(model=EMBEDDER, input=["x", text])


def test_the_models_for_embeddings_are_known_by_their_files(bert, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    config = Config(
        model={
            "writes": ModelConfig(source=str(fastest_form(find_packaged_model()))),
            "embeds": ModelConfig(source=str(bert)),
            "broken": ModelConfig(source=str(broken)),
            "far": ModelConfig(source="https://example.com/x.gguf"),
            "packaged": ModelConfig(source="packaged"),
        }
    )
    assert embedding_models(config) == ["embeds"]


def test_the_answer_is_plain_json(client, bert):
    raw = client.embeddings.with_raw_response.create(
        model=EMBEDDER, input="x", encoding_format="float"
    )
    body = json.loads(raw.text)
    assert set(body) == {"object", "model", "data", "usage"}
    assert np.linalg.norm(body["data"][0]["embedding"]) == pytest.approx(1, abs=1e-5)
