"""Small models of other kinds for tests: random weights under the packaged model's vocabulary.

Kinds that differ from the packaged model in what a session can do: llama.cpp reads them as
it reads real ones, so its own answers (is it recurrent, can it shift) are tested too.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_EMBED, _HEADS, _KV_HEADS, _FF, _LAYERS = 64, 2, 1, 96, 4
_U32, _I32, _F32, _STRING, _ARRAY, _BOOL = 4, 5, 6, 8, 9, 7
_USER_DEFINED = 4
Value = int | float | str | bool | list[int]

RECURRENT: dict[str, dict[str, Any]] = {
    "mamba": {
        "ssm__conv_kernel": 4,
        "ssm__inner_size": 128,
        "ssm__state_size": 16,
        "ssm__time_step_rank": 4,
        "attention__head_count": 0,
        "attention__head_count_kv": 0,
    },
    "lfm2": {"shortconv__l_cache": 3, "attention__head_count_kv": [0, _KV_HEADS, 0, _KV_HEADS]},
}
"""Kinds whose sequences have a recurrent state, with the keys that they want."""


def tiny_model(
    path: Path,
    vocabulary: Path,
    kind: str,
    *,
    tokenizer: Mapping[str, Value] | None = None,
    user_defined: Sequence[str] = (),
    **extra: Value,
) -> Path:
    """Writes a model of llama.cpp's architecture `kind` (llama, qwen2vl, cohere2, bert, and with
    a recurrent state mamba, and lfm2 beside attention in every second layer).

    `tokenizer` are other values of its keys tokenizer.ggml.*, `user_defined` tokens that are of
    that type; `extra` are more of the architecture's keys, `__` for a dot.
    """
    tokens, n_vocab = _vocabulary(vocabulary)
    for name, value in (tokenizer or {}).items():
        key = _key(f"tokenizer.ggml.{name}", value)
        begin = _string(f"tokenizer.ggml.{name}")
        tokens = [one for one in tokens if not one.startswith(begin)] + [key]
    tokens = _with_types(tokens, user_defined)
    keys: dict[str, Value] = {
        "context_length": 4096,
        "embedding_length": _EMBED,
        "block_count": _LAYERS,
        "feed_forward_length": _FF,
        "attention.head_count": _HEADS,
        "attention.head_count_kv": _KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5,
        "rope.freq_base": 10000.0,
        **{name.replace("__", "."): value for name, value in extra.items()},
    }
    written = [_key("general.architecture", kind), _key("general.name", f"tiny {kind}")]
    written += [_key(f"{kind}.{name}", value) for name, value in keys.items()]
    if kind == "mamba":
        tensors = _mamba(n_vocab)
    elif kind == "lfm2":
        tensors = _lfm2(n_vocab)
    elif kind == "bert":
        tensors = _bert(n_vocab, keys["context_length"])
        written += [_key("tokenizer.ggml.token_type_count", 2)]
    else:
        tensors = _attention(n_vocab, kind)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(written) + len(tokens))
    body = head + b"".join(written) + b"".join(tokens)
    data = b""
    for name, values in tensors.items():
        body += _string(name) + struct.pack("<I", values.ndim)
        body += b"".join(struct.pack("<Q", n) for n in reversed(values.shape))
        body += struct.pack("<IQ", 0, len(data))
        data += values.tobytes()
        data += bytes(-len(data) % 32)
    path.write_bytes(body + bytes(-len(body) % 32) + data)
    return path


def _attention(n_vocab: int, kind: str) -> dict[str, NDArray[np.float32]]:
    size, kv = _EMBED, _EMBED // _HEADS * _KV_HEADS
    tensors = {"token_embd.weight": _random(n_vocab, size), "output_norm.weight": _ones(size)}
    for layer in range(_LAYERS):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": _ones(size),
            f"blk.{layer}.attn_q.weight": _random(size, size),
            f"blk.{layer}.attn_k.weight": _random(kv, size),
            f"blk.{layer}.attn_v.weight": _random(kv, size),
            f"blk.{layer}.attn_output.weight": _random(size, size),
            f"blk.{layer}.ffn_norm.weight": _ones(size),
            f"blk.{layer}.ffn_gate.weight": _random(_FF, size),
            f"blk.{layer}.ffn_up.weight": _random(_FF, size),
            f"blk.{layer}.ffn_down.weight": _random(size, _FF),
        }
        if kind == "qwen2vl":
            tensors |= {
                f"blk.{layer}.attn_q.bias": _random(size),
                f"blk.{layer}.attn_k.bias": _random(kv),
                f"blk.{layer}.attn_v.bias": _random(kv),
            }
        if kind == "cohere2":
            del tensors[f"blk.{layer}.ffn_norm.weight"]
    if kind == "qwen2vl":
        tensors["output.weight"] = _random(n_vocab, size)
    return tensors


def _bert(n_vocab: int, n_positions: Value) -> dict[str, NDArray[np.float32]]:
    size, kv = _EMBED, _EMBED // _HEADS * _KV_HEADS
    assert isinstance(n_positions, int)
    tensors = {
        "token_embd.weight": _random(n_vocab, size),
        "position_embd.weight": _random(n_positions, size),
        "token_types.weight": _random(2, size),
        "token_embd_norm.weight": _ones(size),
        "token_embd_norm.bias": _random(size),
    }
    for layer in range(_LAYERS):
        tensors |= {
            f"blk.{layer}.attn_q.weight": _random(size, size),
            f"blk.{layer}.attn_k.weight": _random(kv, size),
            f"blk.{layer}.attn_v.weight": _random(kv, size),
            f"blk.{layer}.attn_output.weight": _random(size, size),
            f"blk.{layer}.attn_output_norm.weight": _ones(size),
            f"blk.{layer}.attn_output_norm.bias": _random(size),
            f"blk.{layer}.ffn_up.weight": _random(_FF, size),
            f"blk.{layer}.ffn_down.weight": _random(size, _FF),
            f"blk.{layer}.layer_output_norm.weight": _ones(size),
            f"blk.{layer}.layer_output_norm.bias": _random(size),
        }
    return tensors


def _mamba(n_vocab: int) -> dict[str, NDArray[np.float32]]:
    size, inner, state, rank, conv = _EMBED, 2 * _EMBED, 16, 4, 4
    tensors = {"token_embd.weight": _random(n_vocab, size), "output_norm.weight": _ones(size)}
    for layer in range(_LAYERS):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": _ones(size),
            f"blk.{layer}.ssm_in.weight": _random(2 * inner, size),
            f"blk.{layer}.ssm_conv1d.weight": _random(inner, conv),
            f"blk.{layer}.ssm_conv1d.bias": _random(inner),
            f"blk.{layer}.ssm_x.weight": _random(rank + 2 * state, inner),
            f"blk.{layer}.ssm_dt.weight": _random(inner, rank),
            f"blk.{layer}.ssm_dt.bias": _random(inner),
            f"blk.{layer}.ssm_a": -np.abs(_random(inner, state)),  # a state fades
            f"blk.{layer}.ssm_d": _random(inner),
            f"blk.{layer}.ssm_out.weight": _random(size, inner),
        }
    return tensors


def _lfm2(n_vocab: int) -> dict[str, NDArray[np.float32]]:
    tensors = _attention(n_vocab, "lfm2")
    tensors["token_embd_norm.weight"] = tensors.pop("output_norm.weight")
    for layer in range(_LAYERS):
        if RECURRENT["lfm2"]["attention__head_count_kv"][layer]:
            tensors |= {
                f"blk.{layer}.attn_q_norm.weight": _ones(_EMBED // _HEADS),
                f"blk.{layer}.attn_k_norm.weight": _ones(_EMBED // _HEADS),
            }
            continue
        for name in ("q", "k", "v", "output"):
            del tensors[f"blk.{layer}.attn_{name}.weight"]
        tensors |= {
            f"blk.{layer}.shortconv.conv.weight": _random(_EMBED, 3),
            f"blk.{layer}.shortconv.in_proj.weight": _random(3 * _EMBED, _EMBED),
            f"blk.{layer}.shortconv.out_proj.weight": _random(_EMBED, _EMBED),
        }
    return tensors


def _random(*shape: int) -> NDArray[np.float32]:
    scale = 1 / np.sqrt(shape[-1])
    generator = np.random.default_rng(sum(shape))
    return (generator.standard_normal(shape) * scale).astype(np.float32)


def _ones(n: int) -> NDArray[np.float32]:
    return np.ones(n, np.float32)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _key(name: str, value: Value) -> bytes:
    key = _string(name)
    if isinstance(value, bool):
        return key + struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return key + struct.pack("<II", _U32, value)
    if isinstance(value, float):
        return key + struct.pack("<If", _F32, value)
    if isinstance(value, str):
        return key + struct.pack("<I", _STRING) + _string(value)
    return key + struct.pack(f"<IIQ{len(value)}I", _ARRAY, _U32, len(value), *value)


def _with_types(keys: list[bytes], user_defined: Sequence[str]) -> list[bytes]:
    """The keys, where these tokens have the type USER_DEFINED."""
    at = {name: len(_string(f"tokenizer.ggml.{name}")) for name in ("tokens", "token_type")}
    place = {
        name: next(
            n for n, key in enumerate(keys) if key.startswith(_string(f"tokenizer.ggml.{name}"))
        )
        for name in at
    }
    listed = keys[place["tokens"]]
    types = bytearray(keys[place["token_type"]])
    begin = at["tokens"] + 16
    texts: list[str] = []
    while begin < len(listed):
        (size,) = struct.unpack_from("<Q", listed, begin)
        texts.append(listed[begin + 8 : begin + 8 + size].decode())
        begin += 8 + size
    for text in user_defined:
        struct.pack_into("<i", types, at["token_type"] + 16 + 4 * texts.index(text), _USER_DEFINED)
    return [bytes(types) if n == place["token_type"] else key for n, key in enumerate(keys)]


def _vocabulary(source: Path) -> tuple[list[bytes], int]:
    """The `tokenizer.` keys of another GGUF as they stand there, and the number of tokens."""
    data = source.read_bytes()[: 16 << 20]
    _, _, _, n_keys = struct.unpack_from("<4sIQQ", data)
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    at, kept, n_vocab = 24, [], 0

    def skip(place: int, kind: int) -> int:
        if kind == _STRING:
            return place + 8 + int(struct.unpack_from("<Q", data, place)[0])
        if kind == _ARRAY:
            inner, n = struct.unpack_from("<IQ", data, place)
            place += 12
            if inner != _STRING:
                return int(place + n * sizes[inner])
            for _ in range(n):
                place = skip(place, _STRING)
            return place
        return place + sizes[kind]

    for _ in range(n_keys):
        begin, at = at, skip(at, _STRING)
        name = data[begin + 8 : at].decode()
        (kind,) = struct.unpack_from("<I", data, at)
        if name == "tokenizer.ggml.tokens":
            n_vocab = int(struct.unpack_from("<Q", data, at + 8)[0])
        at = skip(at + 4, kind)
        if name.startswith("tokenizer."):
            kept.append(data[begin:at])
    return kept, n_vocab


def sentencepiece(path: Path, words: Sequence[str], user_defined: Sequence[str]) -> Path:
    """Writes a vocabulary of SentencePiece's kind, to be given to `tiny_model`: bytes, some
    words, and a space put before every text."""
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [2, 3, 3] + [6] * 256 + [1] * len(words) + [_USER_DEFINED] * len(user_defined)
    texts += [*words, *user_defined]
    listed = b"".join(map(_string, texts))
    scores = struct.pack(f"<{len(texts)}f", *(-float(n) for n in range(len(texts))))
    template = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    keys = [
        _key("tokenizer.ggml.model", "llama"),
        _key("tokenizer.chat_template", template),
        _key("tokenizer.ggml.add_space_prefix", True),
        _array("tokens", _STRING, len(texts), listed),
        _array("scores", _F32, len(texts), scores),
        _array("token_type", _I32, len(texts), struct.pack(f"<{len(types)}i", *types)),
    ]
    keys += [
        _key(f"tokenizer.ggml.{name}_token_id", n)
        for n, name in enumerate(("unknown", "bos", "eos"))
    ]
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(keys)) + b"".join(keys))
    return path


def _array(name: str, kind: int, n: int, data: bytes) -> bytes:
    return _string(f"tokenizer.ggml.{name}") + struct.pack("<IIQ", _ARRAY, kind, n) + data
