"""The models of a configuration: by which names, from where, with which settings."""

from __future__ import annotations

from pathlib import Path

import msgspec

from flashfeed.engine.model_download import Download, DownloadLimits, host_allowed
from flashfeed.engine.model_source import (
    Catalogue,
    ModelFile,
    PackagedModel,
    Source,
    default_name,
    parse_source,
)
from flashfeed.models.config import Config, EngineConfig
from flashfeed.models.errors import ConfigError


def catalogue(config: Config) -> Catalogue:
    """The models that the configuration names, and what else a request may.

    Raises ConfigError with the key where a source means nothing.
    """
    limits = DownloadLimits(
        allow_hosts=config.models.allow_hosts,
        size_max_bytes=config.models.size_max_bytes,
        total_max_bytes=config.models.downloads_max_bytes,
    )
    named: dict[str, Source] = {}
    for name, model in config.model.items():
        try:
            named[name] = _allowed(parse_source(model.source, model.sha256), limits)
        except ConfigError as error:
            raise ConfigError(f"model.{name}.source: {error}") from None
    default = config.engine.model
    if default not in named:
        try:
            source = _allowed(parse_source(default), limits)
            default = default_name(default)
        except ConfigError as error:
            raise ConfigError(f"engine.model: {error}") from None
        if default in named:
            raise ConfigError(
                f"engine.model: expected another name than that of model.{default}, "
                f"got {config.engine.model!r}"
            )
        named[default] = source
    dirs = tuple(Path(folder).expanduser() for folder in config.models.dirs)
    return Catalogue(named, default, dirs, limits)


def _allowed(source: Source, limits: DownloadLimits) -> Source:
    if isinstance(source, Download) and not host_allowed(source.url, limits.allow_hosts):
        raise ConfigError(
            f"expected a host of models.allow_hosts ({', '.join(limits.allow_hosts) or 'empty'}), "
            f"got {source.url}"
        )
    return source


def engine_of(config: Config, name: str) -> EngineConfig:
    """The engine's settings for a model: its own where it has some, else `[engine]`'s."""
    model = config.model.get(name)
    if model is None:
        return config.engine
    own = {
        key: getattr(model, key)
        for key in ("context_tokens", "gpu_layers", "kv_type")
        if getattr(model, key) is not None
    }
    return msgspec.structs.replace(config.engine, **own)


def default_engine(config: Config) -> EngineConfig:
    """The engine's settings for the default model."""
    return engine_of(config, config.engine.model)


def describe(source: Source) -> str:
    """Where a model comes from, for a person."""
    if isinstance(source, PackagedModel):
        return "the packaged one"
    if isinstance(source, ModelFile):
        return f"{source.path}{'' if source.path.is_file() else ' (not there)'}"
    if isinstance(source, Download):
        return source.url
    return f"hf:{source.repo}/{source.file}"
