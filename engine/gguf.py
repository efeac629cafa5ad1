"""The header of a GGUF file: what a model is and what it will take, before it is loaded.

Reads metadata only; the format is described in ggml's docs/gguf.md. Arrays are skipped,
but for short ones of numbers (the values of a setting for each layer).
"""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flashfeed.models.errors import ModelRefused

MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_FORMATS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_STRING: Final = 8
_ARRAY: Final = 9
_LAYERS_MAX: Final = 1024
_TENSORS_MAX: Final = 1 << 20
_ALIGNMENT: Final = 32
_SPLIT: Final = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$")

Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...]

KV_BYTES: Final = {"f16": 2.0, "bf16": 2.0, "f32": 4.0, "q8_0": 34 / 32}
"""Bytes of one number in the KV cache; q8_0 keeps 32 of them and a scale in 34."""


@dataclass(frozen=True)
class Header:
    """`metadata` by key, long arrays left out; `tensor_bytes` is what follows the header."""

    metadata: dict[str, Value]
    tensor_bytes: int

    @property
    def architecture(self) -> str:
        """llama.cpp's name for the kind of model."""
        return str(self.metadata.get("general.architecture", ""))

    def number(self, key: str, default: int = 0) -> int:
        """An architecture's own number, `<architecture>.<key>`."""
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        return int(value) if isinstance(value, int | float) else default

    def by_layer(self, key: str, n_layers: int, default: int) -> tuple[int, ...]:
        """A number that may be given for each layer or once for all."""
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if isinstance(value, tuple):
            numbers = tuple(int(one) for one in value if not isinstance(one, str))
            return (numbers + (default,) * n_layers)[:n_layers]
        return (int(value) if not isinstance(value, str) else default,) * n_layers


def read_header(path: Path) -> Header:
    """The file's header. Raises ModelRefused where it is no GGUF or ends too early."""
    try:
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise ModelRefused(f"expected a GGUF file, got something else in {path}")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data).header()
    except OSError as error:
        raise ModelRefused(f"expected a GGUF model file at {path}: {error.strerror}") from None
    except (struct.error, ValueError, IndexError) as error:
        raise ModelRefused(
            f"expected a whole GGUF file, got one that is cut or damaged: {path} ({error})"
        ) from None


def model_bytes(path: Path) -> int:
    """Bytes of all tensors, those of a split model's other files included."""
    return sum(read_header(part).tensor_bytes for part in split_files(path))


def split_files(path: Path) -> list[Path]:
    """The files of a split model (`-00001-of-00003.gguf`), or the one file."""
    return [path.with_name(name) for name in split_names(path.name)]


def split_names(name: str) -> list[str]:
    """The names of all parts that a file name belongs to, or the name alone."""
    found = _SPLIT.match(name)
    if found is None:
        return [name]
    stem, _, count = found.groups()
    return [f"{stem}-{number:05d}-of-{count}.gguf" for number in range(1, int(count) + 1)]


def kv_bytes(header: Header, cells: int, kv_type: str) -> int:
    """Bytes of a KV cache of `cells` cells over all layers.

    As in llama.cpp's llama-kv-cache.cpp: each layer keeps heads x length numbers for K
    and for V; latent attention keeps K alone. Exact for plain attention and for sliding
    attention with swa_full; an upper bound where layers share a cache or compress it.
    """
    n_layers = max(0, min(header.number("block_count"), _LAYERS_MAX))
    n_heads = header.by_layer("attention.head_count", n_layers, 0)
    n_embd = header.number("embedding_length")
    latent = header.number("attention.key_length_mla") > 0
    total = 0.0
    for layer, kv_heads in enumerate(_kv_heads(header, n_layers, n_heads)):
        own = n_embd // n_heads[layer] if n_heads[layer] else 0
        key = max(
            header.number("attention.key_length", own), header.number("attention.key_length_swa")
        )
        value = max(
            header.number("attention.value_length", own),
            header.number("attention.value_length_swa"),
        )
        total += kv_heads * (key if latent else key + value)
    return round(total * KV_BYTES[kv_type] * cells)


def _kv_heads(header: Header, n_layers: int, n_heads: tuple[int, ...]) -> tuple[int, ...]:
    key = f"{header.architecture}.attention.head_count_kv"
    heads = (
        header.by_layer("attention.head_count_kv", n_layers, 0)
        if (key in header.metadata)
        else n_heads
    )
    # Layers of a hybrid model that have a recurrent state have no cells.
    given = f"{header.architecture}.attention.recurrent_layers" in header.metadata
    interval = 0 if given else header.number("full_attention_interval")
    recurrent = (
        header.by_layer("attention.recurrent_layers", n_layers, 0)
        if interval <= 0
        else tuple((layer + 1) % interval for layer in range(n_layers))
    )
    return tuple(0 if states else n for n, states in zip(heads, recurrent, strict=True))


class _Reader:
    """Walks the bytes; struct.error or ValueError where they end too early."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = len(MAGIC)

    def header(self) -> Header:
        version = self._take("<I")
        if version not in _VERSIONS:
            raise ValueError(f"version {version}")
        n_tensors, n_keys = self._take("<Q"), self._take("<Q")
        if max(n_tensors, n_keys) > _TENSORS_MAX:
            raise ValueError(f"{n_tensors} tensors, {n_keys} keys")
        metadata: dict[str, Value] = {}
        for _ in range(n_keys):
            key = self._string()
            value = self._value(self._take("<I"))
            if value is not None:
                metadata[key] = value
        offsets = [self._tensor_offset() for _ in range(n_tensors)]
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"alignment {alignment}")
        begin = -(-self._at // alignment) * alignment
        if offsets and begin + max(offsets) >= len(self._data):
            raise ValueError("the last tensor lies behind the end")
        return Header(metadata, max(0, len(self._data) - begin))

    def _take(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return value  # type: ignore[no-any-return]

    def _skip(self, n: int) -> None:
        if self._at + n > len(self._data):
            raise ValueError("the header ends too early")
        self._at += n

    def _string(self) -> str:
        begin = self._at + 8
        self._skip(self._take("<Q"))
        return self._data[begin : self._at].decode("utf-8", "replace")

    def _value(self, kind: int) -> Value | None:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array()
        if kind not in _FORMATS:
            raise ValueError(f"value type {kind}")
        return self._take(_FORMATS[kind])

    def _array(self) -> tuple[Scalar, ...] | None:
        kind, n = self._take("<I"), self._take("<Q")
        if kind == _STRING:
            for _ in range(n):
                self._skip(self._take("<Q"))
            return None
        if kind not in _FORMATS:
            raise ValueError(f"array type {kind}")
        if n > _LAYERS_MAX:
            self._skip(n * struct.calcsize(_FORMATS[kind]))
            return None
        return tuple(self._take(_FORMATS[kind]) for _ in range(n))

    def _tensor_offset(self) -> int:
        self._string()
        self._skip(8 * self._take("<I"))
        self._skip(4)
        return self._take("<Q")
