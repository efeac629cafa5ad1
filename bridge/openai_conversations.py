"""OpenAI's conversations: lists of items that responses go on from and add to."""

from __future__ import annotations

import time
from typing import Any, Final

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from flashfeed.models.errors import FlashfeedError

from .caller import Sessions
from .openai_bodies import Json, new_id
from .openai_fields import Body, Metadata, MetadataBody
from .openai_items import items_of
from .openai_pages import After, Limit, Order, page
from .openai_responses_kept import CONVERSATION, add_items, change_conversation, kept_conversation
from .openai_responses_requests import InputItems

router = APIRouter(prefix="/v1/conversations", tags=["OpenAI"])


class ItemUnknown(FlashfeedError):
    """The conversation has no item of that id."""

    status = 404
    code = "not_found"


_ITEMS: Final[list[Any]] = [{"role": "user", "content": "My name is Ada."}]


class ConversationBody(Body):
    """A new conversation."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": _ITEMS}]})

    items: InputItems = Field(default=[])
    metadata: Metadata = Field(default={})


class ItemsBody(Body):
    """Items to add."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": _ITEMS}]})

    items: InputItems = Field(min_length=1)


@router.post("")
async def create_conversation(
    sessions: Sessions, body: ConversationBody | None = None
) -> dict[str, Any]:
    """A new conversation, with or without items."""
    body = body or ConversationBody()
    conversation_id = new_id("conv_")
    conversation = {
        "id": conversation_id,
        "object": "conversation",
        "created_at": int(time.time()),
        "metadata": body.metadata,
    }
    kept = {"conversation": conversation, "items": items_of(body.items, "items")}
    await sessions.documents.put(CONVERSATION, conversation_id, kept)
    return conversation


@router.get("/{conversation_id}")
async def retrieve_conversation(conversation_id: str, sessions: Sessions) -> dict[str, Any]:
    """A conversation, without its items."""
    conversation: Json = kept_conversation(sessions.documents, conversation_id)["conversation"]
    return conversation


@router.post("/{conversation_id}")
async def update_conversation(
    conversation_id: str, body: MetadataBody, sessions: Sessions
) -> dict[str, Any]:
    """Change a conversation's metadata."""

    def change(kept: Json) -> Json:
        return kept | {"conversation": kept["conversation"] | {"metadata": body.metadata}}

    changed = await change_conversation(sessions.documents, conversation_id, change)
    conversation: Json = changed["conversation"]
    return conversation


@router.delete("/{conversation_id}")
async def delete_conversation(conversation_id: str, sessions: Sessions) -> dict[str, Any]:
    """Forget a conversation and its items."""
    kept_conversation(sessions.documents, conversation_id)
    await sessions.documents.delete(CONVERSATION, conversation_id)
    return {"id": conversation_id, "object": "conversation.deleted", "deleted": True}


@router.post("/{conversation_id}/items")
async def create_items(conversation_id: str, body: ItemsBody, sessions: Sessions) -> dict[str, Any]:
    """Add items at a conversation's end."""
    items = items_of(body.items, "items")
    await add_items(sessions.documents, conversation_id, items)
    return page(items, "", len(items), "asc")


@router.get("/{conversation_id}/items")
async def list_items(
    conversation_id: str,
    sessions: Sessions,
    after: After = "",
    limit: Limit = 20,
    order: Order = "desc",
) -> dict[str, Any]:
    """A conversation's items."""
    items = kept_conversation(sessions.documents, conversation_id)["items"]
    return page(items, after, limit, order)


@router.get("/{conversation_id}/items/{item_id}")
async def retrieve_item(conversation_id: str, item_id: str, sessions: Sessions) -> dict[str, Any]:
    """One item of a conversation."""
    kept = kept_conversation(sessions.documents, conversation_id)
    return _item(kept, item_id)


@router.delete("/{conversation_id}/items/{item_id}")
async def delete_item(conversation_id: str, item_id: str, sessions: Sessions) -> dict[str, Any]:
    """Take an item out of a conversation; the answer is the conversation."""

    def change(kept: Json) -> Json:
        kept["items"].remove(_item(kept, item_id))
        return kept

    changed = await change_conversation(sessions.documents, conversation_id, change)
    conversation: Json = changed["conversation"]
    return conversation


def _item(kept: Json, item_id: str) -> Json:
    for item in kept["items"]:
        if item["id"] == item_id:
            found: Json = item
            return found
    conversation_id = kept["conversation"]["id"]
    raise ItemUnknown(f"conversation {conversation_id!r} has no item {item_id!r}")
