"""Embeddings against llama-cpp-python's own, and what gives none."""

from __future__ import annotations

import asyncio
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from flashfeed.engine import Engine, EngineSettings
from flashfeed.engine.embed import TEXT_TOKENS_MAX, EmbeddingModel
from flashfeed.engine.embedding_queue import EMBEDDINGS_WAITING_MAX
from flashfeed.engine.model_probe import probe
from flashfeed.models.errors import ModelRefused, ModelUnknown, Overloaded, RequestError

from tiny_gguf import tiny_model

pytestmark = pytest.mark.model

MEAN, CLS, LAST, RANK = 1, 2, 3, 4
WITHIN = 1e-3
"""The attention kernels round to f16; two texts' vectors differ fifty times as much."""
TEXTS = ["The trend is up.", "Volume fell by a third.", "x", "150.70 +0.31% " * 20]


def bert(path: Path, vocabulary: Path, pooling: int) -> Path:
    return tiny_model(
        path, vocabulary, "bert", pooling_type=pooling, attention__causal=False, context_length=600
    )


def oracle(path: Path, texts: list[str]) -> np.ndarray:
    """Each text by itself, as llama-cpp-python embeds it, divided by its length."""
    llama = llama_cpp.Llama(
        str(path), embedding=True, n_ctx=512, n_batch=512, n_ubatch=512, n_threads=1, verbose=False
    )
    rows = np.array([llama.embed(text) for text in texts])
    llama.close()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("pooling", [MEAN, CLS, LAST])
def test_the_vectors_are_llama_cpps(tmp_path: Path, model_path: Path, pooling: int) -> None:
    path = bert(tmp_path / "bert.gguf", model_path, pooling)
    model = EmbeddingModel.load(path, 0)
    tokens = [model.tokens(text) for text in TEXTS]
    together = model.embed(tokens, 1)
    alone = np.concatenate([model.embed([one], 1) for one in tokens])
    many = model.embed(tokens * 30, 1)  # several batches
    model.free()
    expected = oracle(path, TEXTS)
    assert together.shape == (len(TEXTS), 64)
    assert min(np.abs(expected[0] - other).max() for other in expected[1:]) > 50 * WITHIN
    np.testing.assert_allclose(together, expected, atol=WITHIN)
    np.testing.assert_allclose(alone, expected, atol=WITHIN)
    np.testing.assert_allclose(many, np.tile(expected, (30, 1)), atol=WITHIN)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_a_decoder_that_pools_gives_embeddings_too(tmp_path: Path, model_path: Path) -> None:
    path = tiny_model(tmp_path / "m.gguf", model_path, "llama", pooling_type=LAST)
    model = EmbeddingModel.load(path, 0)
    vectors = model.embed([model.tokens(text) for text in TEXTS], 1)
    model.free()
    np.testing.assert_allclose(vectors, oracle(path, TEXTS), atol=WITHIN)


def test_the_longest_text_fits_and_a_longer_one_is_refused(
    tmp_path: Path, model_path: Path
) -> None:
    model = EmbeddingModel.load(bert(tmp_path / "b.gguf", model_path, MEAN), 0)
    assert model.text_tokens_max == 600 < TEXT_TOKENS_MAX
    word = model.tokens(" up")
    assert len(word) == 1
    longest = model.tokens(" up" * 600)
    assert model.embed([longest, word], 1).shape == (2, 64)
    with pytest.raises(RequestError, match=r"input\.3.*1 to 600 tokens, got 601"):
        model.tokens(" up" * 601, 3)
    with pytest.raises(RequestError, match=r"input\.0"):
        model.tokens("")
    model.free()


def test_what_gives_no_embeddings_is_refused(tmp_path: Path, model_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"llama\.pooling_type.*only writes text"):
        EmbeddingModel.load(model_path, 0)
    ranker = bert(tmp_path / "r.gguf", model_path, RANK)
    with pytest.raises(ModelRefused, match="reranker"):
        EmbeddingModel.load(ranker, 0)


async def test_an_engine_embeds_by_name_beside_its_sessions(
    tmp_path: Path, model_path: Path
) -> None:
    path = bert(tmp_path / "bert.gguf", model_path, MEAN)
    probe(path, tmp_path)  # it is let through, though no session can run on it
    settings = EngineSettings(model_path=model_path, threads=1, context_tokens=512)

    def locate(reference: str) -> tuple[str, EngineSettings]:
        if reference != "small-bert":
            raise ModelUnknown(f"no model {reference}")
        return reference, EngineSettings(model_path=path, threads=1)

    async with Engine(settings, locate) as engine:
        asked = [engine.embed([text], "small-bert") for text in TEXTS]
        vectors = np.concatenate([rows for rows, _ in await asyncio.gather(*asked)])
        np.testing.assert_allclose(vectors, oracle(path, TEXTS), atol=WITHIN)
        _, n_tokens = await engine.embed(TEXTS, "small-bert", "acme")
        spent = engine.stats().spent
        assert spent["acme", "embed"].tokens == spent["", "embed"].tokens == n_tokens
        assert spent["acme", "embed"].seconds > 0
        model = engine._open_sessions().model
        assert n_tokens == sum(len(model.tokens(text)) for text in TEXTS)
        with pytest.raises(ModelRefused, match="only writes text"):
            await engine.embed(TEXTS)
        with pytest.raises(ModelRefused, match="embedding model"):
            await engine.count_prompt(None, "small-bert")  # type: ignore[arg-type]
        with pytest.raises(ModelUnknown):
            await engine.embed(TEXTS, "other")
        charged = {one.name: one.kv for one in engine._open_homes().residents()}
        assert charged["small-bert for embeddings"] == 0


async def test_too_many_requests_for_embeddings_are_refused(
    tmp_path: Path, model_path: Path
) -> None:
    path = bert(tmp_path / "bert.gguf", model_path, MEAN)
    settings = EngineSettings(model_path=model_path, threads=1, context_tokens=512)
    async with Engine(settings, lambda name: (name, settings_of(path))) as engine:
        asked = [engine.embed(["x"], "bert") for _ in range(EMBEDDINGS_WAITING_MAX + 3)]
        given = await asyncio.gather(*asked, return_exceptions=True)
        refused = [one for one in given if isinstance(one, Overloaded)]
        assert len(refused) == 3
        assert len([one for one in given if isinstance(one, tuple)]) == EMBEDDINGS_WAITING_MAX
        await engine.embed(["x"], "bert")  # there is room again


def settings_of(path: Path) -> EngineSettings:
    return EngineSettings(model_path=path, threads=1)
