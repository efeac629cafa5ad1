"""Questions, answers and events as LayerScale clients read them. Pure.

`confidence` is a probability (0 to 1) and `logit_gap` stands beside it, for both clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

import msgspec

from flashfeed.models.chat import ToolCall
from flashfeed.models.events import DataUpdated, FlashReady
from flashfeed.models.views import QueryView, SessionEvent, SessionView, Warmed

from .layerscale_answer_shapes import (
    CalledTool,
    FlashAdded,
    FlashEntry,
    FlashList,
    FlashQuery,
    FlashRemoved,
    WarmedTurn,
)


def flash_list(queries: Sequence[QueryView], version: int) -> FlashList:
    """The standing questions of a session whose data version is `version`."""
    return {
        "flash_queries": [_flash_entry(query) for query in queries],
        "count": len(queries),
        "current_data_version": version,
        "object": "list",
        "data": [flash_query(query, version) for query in queries],
        "data_version": version,
    }


def _flash_entry(view: QueryView) -> FlashEntry:
    """A standing question (0.3); before its first answer the answer's fields are empty."""
    answer = view.answer
    return {
        "id": view.query.id,
        "query": view.query.query,
        "name": view.query.name,
        "choices": list(view.query.choices),
        "max_tokens": view.query.max_tokens,
        "n_tokens": view.n_tokens,
        "has_answer": answer is not None,
        "value": answer.value if answer else "",
        "data_version": view.data_version if answer else 0,
        "confidence": answer.confidence if answer else 0.0,
        "abstained": answer.abstained if answer else False,
        "evaluated_at": view.evaluated_ms if answer else 0,
    }


def flash_query(view: QueryView, version: int) -> FlashQuery:
    """A standing question (0.8); fresh where its answer is of the session's version."""
    answer = view.answer
    body: FlashQuery = {
        "id": view.query.id,
        "object": "flash.query",
        "query": view.query.query,
        "max_tokens": view.query.max_tokens,
        "tokens": view.n_tokens,
        "fresh": answer is not None and view.data_version == version,
    }
    if answer is not None:
        body["value"] = answer.value
        body["data_version"] = view.data_version
        body["confidence"] = answer.confidence
        body["abstained"] = answer.abstained
        body["evaluated_at"] = view.evaluated_ms // 1000
    return body


def flash_added(view: QueryView, version: int, total: int) -> FlashAdded:
    """A new standing question."""
    return {
        **flash_query(view, version),
        "n_tokens": view.n_tokens,
        "total_flash_queries": total,
        "name": view.query.name,
        "choices": list(view.query.choices),
    }


def flash_removed(query_id: int, remaining: int) -> FlashRemoved:
    """What became of a standing question's removal."""
    return {
        "success": True,
        "remaining": remaining,
        "id": query_id,
        "object": "flash.query.deleted",
        "deleted": True,
    }


def warmed_turn(session_id: str, warmed: Warmed) -> WarmedTurn:
    """What became of a warm turn. What is cached is the session's own, none of it another
    request's prefix."""
    return {
        "id": f"warm_{uuid4().hex}",
        "object": "session.warm",
        "session_id": session_id,
        "finish_reason": warmed.finish_reason,
        "prompt_tokens": warmed.prompt_tokens,
        "cached_tokens": warmed.cached_tokens,
        "prefix_cached_tokens": 0,
        "data_version": warmed.view.version,
    }


def called_tools(calls: Sequence[ToolCall]) -> list[CalledTool]:
    """Calls as the next turn's `messages` take them back."""
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in calls
    ]


def connected(view: SessionView, n_queries: int) -> dict[str, Any]:
    """The first event of every stream."""
    return {
        "session_id": view.session_id,
        "data_version": view.version,
        "flash_queries": n_queries,
    }


def session_event(event: SessionEvent) -> tuple[str, dict[str, Any]]:
    """An event's name and data.

    All that the Kafka event says goes along, but the record type is called
    `stream_type`: the client takes a `type` in the data for the event's name.
    """
    data: dict[str, Any] = msgspec.to_builtins(event)
    data["stream_type"] = data.pop("type")
    if isinstance(event, FlashReady):
        data["evaluated_at"] = iso_ms(event.evaluated_at)
        return "flash_ready", data
    return "data_updated", data | _moved(event)


def _moved(event: DataUpdated) -> dict[str, Any]:
    return {"updated_at": iso_ms(event.updated_at), "pos_next": event.n_tokens}


def iso_ms(text: str) -> int:
    """ISO 8601 as ms since 1970."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)
