"""The models that a request may name: one body for OpenAI's, Anthropic's, LayerScale's and
Llama Stack's clients, each of which reads its own fields of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter

from flashfeed.models.errors import ModelUnknown
from flashfeed.models.views import ModelView

from .caller import Sessions
from .llama_stack_admin import model_words
from .openai_bodies import Json

router = APIRouter(prefix="/v1", tags=["OpenAI"])

_LOADED_AT = datetime.now(UTC).replace(microsecond=0)
"""Models have no date of their own here: what they are known since, the worker's start."""


@router.get("/models")
async def list_models(sessions: Sessions) -> dict[str, Any]:
    """The models that a request may name, the default one first."""
    models = [model_body(view) for view in sessions.models()]
    return {
        "object": "list",
        "data": models,
        "has_more": False,
        "first_id": models[0]["id"],
        "last_id": models[-1]["id"],
    }


@router.get("/models/{model_id:path}")
async def retrieve_model(model_id: str, sessions: Sessions) -> dict[str, Any]:
    """One model, by its name in any case."""
    views = sessions.models()
    for view in views:
        if view.id.casefold() == model_id.casefold():
            return model_body(view)
    names = ", ".join(view.id for view in views)
    raise ModelUnknown(f"model: expected one of {names}, got {model_id!r}")


def model_body(view: ModelView) -> Json:
    """A model. `max_model_len` is what a context of it holds, prompt and answer together;
    an answer needs at least one token of it."""
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
        **model_words(view),
    }
