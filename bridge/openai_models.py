"""The models that a request may name, for the clients of every dialect that lists them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from flashfeed.models.errors import ModelUnknown

from .caller import Sessions
from .model_body import model_body
from .openai_asker import known_names

router = APIRouter(prefix="/v1", tags=["OpenAI"])


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
    named = known_names(views).get(model_id.casefold())
    for view in views:
        if view.id == named:
            return model_body(view)
    names = ", ".join(view.id for view in views)
    raise ModelUnknown(f"model: expected one of {names}, got {model_id!r}")
