"""OpenAI's dialect: its routes together, under /v1. Another dialect that mirrors them
under a prefix of its own includes this router, or one of those that it is made of."""

from __future__ import annotations

from fastapi import APIRouter

from . import (
    openai_chat,
    openai_chat_store,
    openai_completions,
    openai_conversations,
    openai_embeddings,
    openai_models,
    openai_responses,
)

router = APIRouter()
for _part in (
    openai_chat,
    openai_chat_store,
    openai_completions,
    openai_conversations,
    openai_embeddings,
    openai_models,
    openai_responses,
):
    router.include_router(_part.router)
