"""Mappings for feeds people already have: one TOML table a feed, in this folder.

A preset is a MappingSpec's table. A feed's own keys replace the preset's, except that
`map` is merged key by key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import msgspec

from ...models.errors import ConfigError
from ...models.feed import MappingSpec
from ..nearest import nearest


def preset_names() -> tuple[str, ...]:
    """The presets there are, in order."""
    return tuple(
        sorted(
            entry.name.removesuffix(".toml")
            for entry in files(__package__).iterdir()
            if entry.name.endswith(".toml")
        )
    )


def load_preset(name: str) -> dict[str, Any]:
    """A preset's table. Raises ConfigError for an unknown name."""
    known = preset_names()
    if name not in known:
        raise ConfigError(f"no preset called {name!r}{nearest(name, known)}")
    return tomllib.loads((files(__package__) / f"{name}.toml").read_text("utf-8"))


def mapping_spec(preset: str | None, own: Mapping[str, Any]) -> MappingSpec:
    """The mapping of a feed: its own keys over those of its preset, if it names one."""
    table = load_preset(preset) if preset else {}
    merged = {**table, **own}
    if "map" in table and isinstance(own.get("map"), Mapping):
        merged["map"] = {**table["map"], **own["map"]}
    known = MappingSpec.__struct_fields__
    for key in merged:
        if key not in known:
            raise ConfigError(f"mapping.{key}: no such key{nearest(key, known)}")
    try:
        return msgspec.convert(merged, MappingSpec)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise ConfigError(f"mapping{path.rstrip('`')}: {message}") from None
