"""Chat completions that were asked to be kept (`store`): read, listed, changed, deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request

from flashfeed.agents.service import Documents
from flashfeed.models.errors import FlashfeedError

from .caller import Sessions
from .openai_bodies import Json
from .openai_fields import MetadataBody
from .openai_messages import content_text
from .openai_pages import After, Limit, Order, page

router = APIRouter(prefix="/v1/chat/completions", tags=["OpenAI"])

KIND: Final = "chat.completion"


class CompletionUnknown(FlashfeedError):
    """No chat completion of that id was kept."""

    status = 404
    code = "not_found"


async def keep_completion(
    documents: Documents,
    completion: Json,
    messages: Sequence[Mapping[str, Any]],
    metadata: Mapping[str, str],
) -> None:
    """Keep a completion with what was asked. Raises RequestError where it is too large."""
    asked = [{"id": f"{completion['id']}-{n}", **one} for n, one in enumerate(messages)]
    kept = {**completion, "metadata": dict(metadata), "input_messages": asked}
    await documents.put(KIND, completion["id"], kept)


@router.get("")
async def list_chat_completions(
    request: Request,
    sessions: Sessions,
    model: Annotated[str, Query(max_length=1024)] = "",
    after: After = "",
    limit: Limit = 20,
    order: Order = "asc",
) -> dict[str, Any]:
    """The completions that were kept; `metadata[KEY]=VALUE` keeps those that have it."""
    wanted = {
        name[len("metadata[") : -1]: value
        for name, value in request.query_params.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
    entries = [
        kept
        for _, kept in sessions.documents.list(KIND)
        if model in ("", kept["model"]) and wanted.items() <= kept["metadata"].items()
    ]
    return page(entries, after, limit, order)


@router.get("/{completion_id}")
async def retrieve_chat_completion(completion_id: str, sessions: Sessions) -> dict[str, Any]:
    """A completion that was kept."""
    return _kept(sessions.documents, completion_id)


@router.post("/{completion_id}")
async def update_chat_completion(
    completion_id: str, body: MetadataBody, sessions: Sessions
) -> dict[str, Any]:
    """Change a kept completion's metadata."""
    changed = {**_kept(sessions.documents, completion_id), "metadata": body.metadata}
    await sessions.documents.put(KIND, completion_id, changed)
    return changed


@router.delete("/{completion_id}")
async def delete_chat_completion(completion_id: str, sessions: Sessions) -> dict[str, Any]:
    """Forget a kept completion."""
    _kept(sessions.documents, completion_id)
    await sessions.documents.delete(KIND, completion_id)
    return {"id": completion_id, "object": "chat.completion.deleted", "deleted": True}


@router.get("/{completion_id}/messages")
async def list_chat_messages(
    completion_id: str,
    sessions: Sessions,
    after: After = "",
    limit: Limit = 20,
    order: Order = "asc",
) -> dict[str, Any]:
    """The messages that a kept completion was asked with."""
    messages = _kept(sessions.documents, completion_id)["input_messages"]
    return page([_message(one) for one in messages], after, limit, order)


def _kept(documents: Documents, completion_id: str) -> Json:
    kept = documents.get(KIND, completion_id)
    if kept is None:
        raise CompletionUnknown(
            f"no chat completion {completion_id!r} is kept; ask with store: true to keep one"
        )
    return kept


def _message(message: Json) -> Json:
    parts = message.get("content") if isinstance(message.get("content"), list) else None
    text = content_text(message.get("content"), "content")
    return {"refusal": None, **message, "content": text, "content_parts": parts}
