"""A model's header says what it will take; a damaged one is refused, never trusted."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import get_args

import llama_cpp.llama_cpp as C
import pytest
from llama_cpp._ggml import libggml

from flashfeed.engine.context import Context
from flashfeed.engine.gguf import KV_BYTES, kv_bytes, model_bytes, read_header, split_names
from flashfeed.engine.model import Model
from flashfeed.engine.plan import Pass, Run
from flashfeed.engine.settings import EngineSettings
from flashfeed.models.config import KvType
from flashfeed.models.errors import ModelRefused

from tiny_gguf import tiny_model

pytestmark = pytest.mark.model


def test_the_header_says_what_the_model_is(model_path: Path) -> None:
    header = read_header(model_path)
    assert header.architecture == "llama"
    assert header.number("block_count") == 30
    assert "chat_template" in " ".join(header.metadata)
    assert "tokenizer.ggml.tokens" not in header.metadata  # long, and not needed
    assert 0 < model_path.stat().st_size - header.tensor_bytes < 4 << 20
    assert model_bytes(model_path) == header.tensor_bytes


@pytest.mark.parametrize("kv_type", get_args(KvType))
def test_the_cache_takes_what_llama_cpp_says(
    model: Model, model_path: Path, kv_type: KvType
) -> None:
    """A saved sequence holds its cells' keys and values and a few bytes for each cell."""
    settings = EngineSettings(
        model_path=model_path, threads=1, kv_type=kv_type, batch_tokens=64, outputs_max=1
    )
    context = Context(model, settings, 256)
    sizes = []
    for position in (0, 32):
        context.run(Pass((Run(tuple(range(100, 132)), position, (0,), (31,)),)))
        sizes.append(int(C.llama_state_seq_get_size(context._handle, 0)))
    context.free()
    grown = sizes[1] - sizes[0]
    expected = kv_bytes(model.header, 32, kv_type)
    assert expected <= grown <= expected + 32 * 16


def test_numbers_by_layer_are_summed(model_path: Path, tmp_path: Path) -> None:
    path = tiny_model(
        tmp_path / "m.gguf", model_path, "llama", attention__head_count_kv=[1, 2, 0, 1]
    )
    assert kv_bytes(read_header(path), 10, "f16") == 4 * 32 * 2 * 10 * 2


def test_latent_attention_keeps_keys_alone(model_path: Path, tmp_path: Path) -> None:
    lengths = {"attention__key_length": 48, "attention__value_length": 40}
    path = tiny_model(
        tmp_path / "m.gguf", model_path, "deepseek2", attention__key_length_mla=20, **lengths
    )
    assert kv_bytes(read_header(path), 10, "f16") == 4 * 48 * 2 * 10


def test_bytes_of_a_number_are_ggmls() -> None:
    """Its row sizes, for 64 numbers."""
    row_size = libggml.ggml_row_size
    row_size.restype = ctypes.c_size_t
    row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
    for name, number in (("f32", 0), ("f16", 1), ("q8_0", 8), ("bf16", 30)):
        assert row_size(number, 64) == 64 * KV_BYTES[name]


def test_every_damage_is_refused(model_path: Path, tmp_path: Path) -> None:
    whole = tiny_model(tmp_path / "whole.gguf", model_path, "llama").read_bytes()
    header = len(whole) - read_header(tmp_path / "whole.gguf").tensor_bytes
    broken = tmp_path / "broken.gguf"
    cuts = [*range(0, 64), *range(64, header, header // 50)]
    for cut in cuts:
        broken.write_bytes(whole[:cut])
        with pytest.raises(ModelRefused, match=r"broken\.gguf"):
            read_header(broken)
    for place in (4, 8, 16, 24, 60):  # counts and lengths become huge
        broken.write_bytes(whole[:place] + b"\xff" * 8 + whole[place + 8 :])
        with pytest.raises(ModelRefused):
            read_header(broken)
    with pytest.raises(ModelRefused, match="got something else"):
        broken.write_bytes(b"<html>")
        read_header(broken)


def test_the_parts_of_a_split_model() -> None:
    assert split_names("m.gguf") == ["m.gguf"]
    assert split_names("m-00002-of-00003.gguf") == [
        "m-00001-of-00003.gguf",
        "m-00002-of-00003.gguf",
        "m-00003-of-00003.gguf",
    ]
