"""Reads a keys file: the tenants, the hashes of their keys, and limits of their own.

[tenant.acme]
keys = ["sha256:..."]                # as `flashfeed keys new acme` prints it
limits = { sessions = 4 }            # what is left out: as in [bridge.limits]
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from flashfeed.bridge.keys import Keys, read_hash
from flashfeed.codecs.nearest import nearest
from flashfeed.models.config import LimitsConfig
from flashfeed.models.errors import ConfigError
from flashfeed.models.tenant import TenantName


class _Tenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    limits: dict[str, Any] = {}


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tenant: Annotated[dict[TenantName, _Tenant], msgspec.Meta(min_length=1)]


class TenantKeys(NamedTuple):
    """What a keys file says."""

    keys: Keys
    limits: dict[str, LimitsConfig]


def read_keys_file(path: Path, defaults: LimitsConfig) -> TenantKeys:
    """The keys and limits of a file. Raises ConfigError, which names the place and repeats
    nothing that could be a key."""
    try:
        file = msgspec.convert(tomllib.loads(path.read_text()), _File)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the keys: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from None
    hashes: dict[str, list[bytes]] = {}
    limits: dict[str, LimitsConfig] = {}
    for name, tenant in file.tenant.items():
        for place, text in enumerate(tenant.keys):
            try:
                hashes.setdefault(name, []).append(read_hash(text))
            except ConfigError as error:
                raise ConfigError(f"{path}: tenant.{name}.keys[{place}]: {error}") from None
        if tenant.limits:
            limits[name] = _limits(f"{path}: tenant.{name}.limits", tenant.limits, defaults)
    return TenantKeys(Keys(hashes), limits)


def _limits(where: str, table: dict[str, Any], defaults: LimitsConfig) -> LimitsConfig:
    known = LimitsConfig.__struct_fields__
    for key in table:
        if key not in known:
            raise ConfigError(
                f"{where}.{key}: unknown key{nearest(key, known)}; "
                f"expected one of {', '.join(sorted(known))}"
            )
    try:
        return msgspec.convert({**msgspec.to_builtins(defaults), **table}, LimitsConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None
