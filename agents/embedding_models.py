"""Which of the configured models give embeddings, as far as their files say so."""

from __future__ import annotations

from pathlib import Path

from flashfeed.engine.embed import embedding_refusal
from flashfeed.engine.gguf import read_header
from flashfeed.models.config import Config
from flashfeed.models.errors import ModelRefused


def embedding_models(config: Config) -> list[str]:
    """The names of the `[model.NAME]` tables whose file is on this machine and gives
    embeddings. What would have to be downloaded first is left out."""
    return [name for name, model in config.model.items() if _embeds(model.source)]


def _embeds(source: str) -> bool:
    path = Path(source).expanduser()
    try:
        return path.is_file() and not embedding_refusal(read_header(path))
    except ModelRefused:
        return False
