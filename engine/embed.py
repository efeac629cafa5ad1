"""Texts as vectors: models that give embeddings, in contexts of their own.

A model can where its GGUF says how it pools the vectors of a text's tokens into one
(`<architecture>.pooling_type`): encoders of BERT's kind, and decoders that were trained
for it. Nothing of a text stays: a context lives as long as one request.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import llama_cpp.llama_cpp as C
import numpy as np
from numpy.typing import NDArray

from flashfeed.models.errors import ConfigError, EngineError, ModelRefused, RequestError

from .batch import Batch
from .context_params import context_params
from .gguf import Header, kv_bytes, read_header
from .model import quieten
from .plan import Pass, Run
from .tokeniser import Tokeniser

TEXT_TOKENS_MAX: Final = 2048
"""Of one text. Attention without a cache may need 4 bytes a head for the square of it:
200 MB with 12 heads."""
BATCH_TOKENS: Final = 512
SEQUENCES: Final = 32
_BUFFER_BYTES: Final = 12 << 20
_POOLS: Final = (
    C.LLAMA_POOLING_TYPE_MEAN,
    C.LLAMA_POOLING_TYPE_CLS,
    C.LLAMA_POOLING_TYPE_LAST,
)

Vectors = NDArray[np.float32]


def embedding_refusal(header: Header) -> str:
    """Why a model gives no embeddings; "" where it does."""
    pooling = header.number("pooling_type", C.LLAMA_POOLING_TYPE_NONE)
    if pooling == C.LLAMA_POOLING_TYPE_RANK:
        return f"expected a model that gives embeddings, got a reranker ({header.architecture})"
    if pooling not in _POOLS:
        return (
            "expected a model that gives embeddings (its GGUF has the key "
            f"{header.architecture}.pooling_type), got one that only writes text "
            f"({header.architecture})"
        )
    return ""


class EmbeddingModel:
    """A loaded model that gives embeddings; `size` is their number of dimensions,
    `text_tokens_max` the longest text that it takes."""

    def __init__(self, handle: Any, header: Header) -> None:
        self.handle = handle
        self.header = header
        vocabulary = C.llama_model_get_vocab(handle)
        self._tokeniser = Tokeniser(vocabulary)
        self.n_vocab = int(C.llama_vocab_n_tokens(vocabulary))
        self.size = int(C.llama_model_n_embd_out(handle))
        self.text_tokens_max = min(int(C.llama_model_n_ctx_train(handle)), TEXT_TOKENS_MAX)

    @classmethod
    def load(cls, path: Path, gpu_layers: int) -> EmbeddingModel:
        """Reads the weights. Raises ConfigError where the file is no model, ModelRefused
        where it is one that gives no embeddings."""
        quieten()
        C.llama_backend_init()
        if not path.is_file():
            raise ConfigError(f"expected a GGUF model file at {path}, got none")
        header = read_header(path)
        if reason := embedding_refusal(header):
            raise ModelRefused(f"{path.name}: {reason}")
        params = C.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        handle = C.llama_model_load_from_file(str(path).encode(), params)
        if not handle:
            raise ConfigError(f"expected a GGUF model that llama.cpp can load, got {path}")
        wordless = C.llama_vocab_type(C.llama_model_get_vocab(handle)) == C.LLAMA_VOCAB_TYPE_NONE
        if wordless or C.llama_model_has_encoder(handle):
            C.llama_model_free(handle)
            kind = "one without a vocabulary" if wordless else "an encoder-decoder model"
            raise ModelRefused(
                f"{path.name}: expected a model that gives embeddings, got {kind} "
                f"({header.architecture})"
            )
        return cls(handle, header)

    def free(self) -> None:
        """Gives the weights back; no context of this model may be left."""
        C.llama_model_free(self.handle)
        self.handle = None

    def tokens(self, text: str, place: int = 0) -> tuple[int, ...]:
        """The tokens of a text, with those that the model wants around it. Raises
        RequestError, which names the text by its place, where it is empty or too long."""
        tokens = self._tokeniser.enclosed(text) if text else ()
        if not 1 <= len(tokens) <= self.text_tokens_max:
            raise RequestError(
                f"input.{place}: expected a text of 1 to {self.text_tokens_max} tokens, "
                f"got {len(tokens)}"
            )
        return tokens

    def context_bytes(self, texts: Sequence[Sequence[int]]) -> int:
        """About what the context for these texts takes, beside the weights."""
        cells = _batch_tokens(texts)
        attention = 4 * cells * cells * self.header.number("attention.head_count", 1)
        logits = 4 * cells * self.n_vocab  # llama.cpp makes room for them all the same
        return kv_bytes(self.header, cells, "f16") + attention + logits + _BUFFER_BYTES

    def embed(self, texts: Sequence[Sequence[int]], threads: int) -> Vectors:
        """A vector of length 1 for each text, given as its tokens (`tokens`), in order.

        One thread at a time. Raises EngineError where llama.cpp fails.
        """
        assert texts
        assert all(1 <= len(text) <= self.text_tokens_max for text in texts)
        assert all(0 <= token < self.n_vocab for text in texts for token in text)
        context = _Context(self, _batch_tokens(texts), threads)
        try:
            rows = [row for group in _groups(texts) for row in context.run(group)]
        finally:
            context.free()
        vectors = np.stack(rows)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(vectors).all() or not norms.all():
            raise EngineError("expected finite embeddings from the model, got others")
        return np.asarray(vectors / norms, np.float32)


class _Context:
    """A llama_context that gives embeddings. llama.cpp aborts the process on a batch over
    its size or number of sequences: `run` looks first."""

    def __init__(self, model: EmbeddingModel, batch_tokens: int, threads: int) -> None:
        self._size = model.size
        params = context_params(
            cells=batch_tokens,
            batch_tokens=batch_tokens,
            ubatch_tokens=batch_tokens,  # encoders take a batch in one piece
            sequences=SEQUENCES,
            outputs=batch_tokens,
            threads=threads,
            flash_attention=None,
            kv_type="f16",
        )
        params.embeddings = True
        self._handle = C.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise EngineError(f"llama.cpp could not make a context of {batch_tokens} tokens")
        self._tokens_max = min(
            int(C.llama_n_batch(self._handle)), int(C.llama_n_ubatch(self._handle))
        )
        self._sequences_max = int(C.llama_n_seq_max(self._handle))
        self._batch = Batch(self._tokens_max)
        self._memory = C.llama_get_memory(self._handle)

    def free(self) -> None:
        """Gives its memory back."""
        C.llama_free(self._handle)
        self._handle = None

    def run(self, texts: Sequence[Sequence[int]]) -> Iterator[Vectors]:
        """The pooled vector of each text, not yet of length 1."""
        total = sum(map(len, texts))
        if not 1 <= total <= self._tokens_max or len(texts) > self._sequences_max:
            raise EngineError(
                f"expected at most {self._tokens_max} tokens in {self._sequences_max} texts, "
                f"got {total} in {len(texts)}"
            )
        if self._memory:  # a decoder's; encoders have none
            C.llama_memory_clear(self._memory, False)
        one = Pass(
            tuple(
                Run(tuple(text), 0, (number,), tuple(range(len(text))))
                for number, text in enumerate(texts)
            )
        )
        code = int(C.llama_decode(self._handle, self._batch.filled(one)))
        if code != 0:
            raise EngineError(f"llama_decode returned {code} for embeddings")
        for number in range(len(texts)):
            data = C.llama_get_embeddings_seq(self._handle, number)
            if not data:
                raise EngineError("expected a pooled embedding from llama.cpp, got none")
            yield np.ctypeslib.as_array(
                ctypes.cast(data, ctypes.POINTER(ctypes.c_float)), shape=(self._size,)
            ).copy()


def _batch_tokens(texts: Sequence[Sequence[int]]) -> int:
    """The size of a context's batches: the longest text, more where several fit in.

    llama.cpp plans a pooling graph for a multiple of its sequences, and aborts where the
    batch is none.
    """
    tokens = max(*map(len, texts), min(BATCH_TOKENS, sum(map(len, texts))))
    return -(-tokens // SEQUENCES) * SEQUENCES


def _groups(texts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """The texts in order, as many at a time as a batch takes."""
    room = _batch_tokens(texts)
    group: list[Sequence[int]] = []
    held = 0
    for text in texts:
        if group and (held + len(text) > room or len(group) == SEQUENCES):
            yield group
            group, held = [], 0
        group.append(text)
        held += len(text)
    yield group
