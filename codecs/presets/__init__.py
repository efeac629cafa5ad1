"""Mappings for feeds people already have: one TOML table a feed, in this folder.

A preset is a MappingSpec's table, and beside it

    about      what it reads, in a line
    checked    against what its sample was checked: a producer's own code, or its documents
    codec      how its messages are encoded; json where it does not say; codec_options
    [[sample]] a message (topic, value or hex, key, headers, timestamp_ms) and what it must
               give: records (session key and fields), skipped

A feed's own keys replace the preset's, except that `map` and `units` are merged key by key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from ...models.errors import ConfigError
from ...models.feed import MappingSpec
from ..nearest import nearest

_MERGED = ("map", "units")


class SampleRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record that a sample must give: its session key, and its fields."""

    key: str
    fields: dict[str, Any]


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A message as it lies on the topic: `value` as text, or `hex` where it is no text."""

    topic: str = "topic"
    value: str = ""
    hex: str = ""
    key: str | None = None
    timestamp_ms: int = 0
    headers: dict[str, str] = {}
    headers_hex: dict[str, str] = {}
    records: tuple[SampleRecord, ...] = ()
    skipped: int = 0

    @property
    def payload(self) -> bytes:
        """The message's value."""
        return bytes.fromhex(self.hex) if self.hex else self.value.encode()

    @property
    def header_list(self) -> list[tuple[str, bytes]]:
        """The message's headers."""
        texts = [(name, value.encode()) for name, value in self.headers.items()]
        return texts + [(name, bytes.fromhex(value)) for name, value in self.headers_hex.items()]


class Preset(msgspec.Struct, frozen=True):
    """A preset's file. `mapping` is its MappingSpec's table."""

    name: str
    about: str
    checked: str
    codec: str
    codec_options: dict[str, Any]
    mapping: dict[str, Any]
    samples: tuple[Sample, ...]


def preset_names() -> tuple[str, ...]:
    """The presets there are, in order."""
    return tuple(
        sorted(
            entry.name.removesuffix(".toml")
            for entry in files(__package__).iterdir()
            if entry.name.endswith(".toml")
        )
    )


@cache
def preset(name: str) -> Preset:
    """A preset by name. Raises ConfigError for an unknown one."""
    known = preset_names()
    if name not in known:
        raise ConfigError(f"no preset called {name!r}{nearest(name, known)}")
    table = tomllib.loads((files(__package__) / f"{name}.toml").read_text("utf-8"))
    return Preset(
        name=name,
        about=table.pop("about"),
        checked=table.pop("checked"),
        codec=table.pop("codec", "json"),
        codec_options=table.pop("codec_options", {}),
        samples=msgspec.convert(table.pop("sample", []), tuple[Sample, ...]),
        mapping=table,
    )


def load_preset(name: str) -> dict[str, Any]:
    """A preset's mapping table. Raises ConfigError for an unknown name."""
    return dict(preset(name).mapping)


def codec_of(name: str, codec: str, options: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """A feed's codec and its options: its own, else those of its preset, else JSON.

    Options for the preset's codec are merged over the preset's. An unknown preset is not
    this function's to name.
    """
    ready = preset(name) if name in preset_names() else None
    if ready is None or (codec and codec != ready.codec):
        return codec or "json", options
    return ready.codec, {**ready.codec_options, **options}


def mapping_spec(name: str | None, own: Mapping[str, Any]) -> MappingSpec:
    """The mapping of a feed: its own keys over those of its preset, if it names one."""
    table = load_preset(name) if name else {}
    merged = {**table, **own}
    for key in _MERGED:
        if key in table and isinstance(own.get(key), Mapping):
            merged[key] = {**table[key], **own[key]}
    known = MappingSpec.__struct_fields__
    for key in merged:
        if key not in known:
            raise ConfigError(f"mapping.{key}: no such key{nearest(key, known)}")
    try:
        return msgspec.convert(merged, MappingSpec)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise ConfigError(f"mapping{path.rstrip('`')}: {message}") from None
