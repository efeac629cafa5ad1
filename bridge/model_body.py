"""A model as the clients of OpenAI, Anthropic, LayerScale and Llama Stack read it: one body,
of which each reads its own fields."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from flashfeed.models.views import ModelView

PROVIDER: Final = "flashfeed"
"""Who runs the models, in Llama Stack's words."""

_LOADED_AT: Final = datetime.now(UTC).replace(microsecond=0)
"""Models have no date of their own here: what they are known since, the worker's start."""


def model_body(view: ModelView) -> dict[str, Any]:
    """A model. `max_model_len` is what a context of it holds, prompt and answer together;
    an answer needs at least one token of it."""
    metadata = {"context_length": view.context_tokens, "default": view.default}
    return {
        "id": view.id,
        "object": "model",
        "created": int(_LOADED_AT.timestamp()),
        "owned_by": "flashfeed",
        "type": "model",
        "display_name": view.id,
        "created_at": _LOADED_AT.isoformat().replace("+00:00", "Z"),
        "max_model_len": view.context_tokens,
        "max_input_tokens": view.context_tokens - 1,
        "max_tokens": view.context_tokens - 1,
        "lifecycle": "active",
        "identifier": view.id,
        "provider_id": PROVIDER,
        "provider_resource_id": view.id,
        "model_type": "llm",
        "metadata": metadata,
        "custom_metadata": metadata,
    }
