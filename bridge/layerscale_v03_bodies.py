"""What a LayerScale 0.3 client reads: views and events in its words. Pure.

Tokens of a session stand at positions 0 to n_tokens - 1, so pos_max is n_tokens - 1
(-1 for none) and pos_next is n_tokens. Times are ms since 1970; `cache_usage` is a
share (0 to 1). Where the client knows a field as optional or not at all, it is extra.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from flashfeed.models.events import DataUpdated, FlashReady
from flashfeed.models.views import (
    AppendAck,
    Inspection,
    PushAck,
    QueryView,
    SessionEvent,
    SessionView,
)

from .layerscale_v03_shapes import (
    Appended,
    Created,
    FlashEntry,
    PrefixMarked,
    Pushed,
    State,
    StreamStatus,
    Summary,
)


def created(view: SessionView) -> Created:
    """A new session."""
    return {
        "session_id": view.session_id,
        "type": view.spec.type,
        "n_tokens": view.n_tokens,
        "context": view.context_tokens,
        "window_size": _window_size(view),
        "flash_queries": len(view.spec.flash),
        "pos_max": view.n_tokens - 1,
    }


def summary(view: SessionView) -> Summary:
    """A session as a line of the list."""
    return {
        "session_id": view.session_id,
        "type": view.spec.type,
        "n_tokens": view.n_tokens,
        "context": view.context_tokens,
        "prefix_end": view.prefix_tokens,
        "cache_usage": _usage(view),
        "created_at": view.created_ms,
        "last_used_at": view.last_used_ms,
        "in_use": view.in_use,
    }


def state(inspection: Inspection) -> State:
    """A session with its context as text."""
    view = inspection.view
    return {
        "session_id": view.session_id,
        "type": view.spec.type,
        "n_tokens": view.n_tokens,
        "context": view.context_tokens,
        "pos_min": 0,
        "pos_max": view.n_tokens - 1,
        "pos_next": view.n_tokens,
        "prefix_end": view.prefix_tokens,
        "data_region": {"start": view.prefix_tokens, "end": view.n_tokens},
        "data_count": view.data_count,
        "data_version": view.version,
        "cache_usage": _usage(view),
        "created_at": view.created_ms,
        "last_used_at": view.last_used_ms,
        "in_use": view.in_use,
        "failed": view.failed,
        "context_text": inspection.text,
    }


def appended(ack: AppendAck) -> Appended:
    """What became of an append."""
    return {
        "n_tokens_added": ack.added_tokens,
        "total_tokens": ack.view.n_tokens,
        "pos_max": ack.view.n_tokens - 1,
    }


def prefix_marked(view: SessionView) -> PrefixMarked:
    """What became of a mark_prefix."""
    return {
        "prefix_end": view.prefix_tokens,
        "message": f"the first {view.prefix_tokens} tokens are the session's prefix",
    }


def pushed(ack: PushAck) -> Pushed:
    """What became of a push. A push is whole or refused, so it drops nothing itself."""
    view = ack.view
    return {
        "pushed": ack.pushed,
        "dropped": 0,
        "queue_size": view.queue_size,
        "queue_capacity": view.queue_capacity,
        "total_enqueued": view.total_enqueued,
        "total_dropped": view.counters.dropped,
        "data_version": view.version,
    }


def stream_status(view: SessionView) -> StreamStatus:
    """A session's queue, counters and data. `running` ends when the session failed."""
    counters = view.counters
    batches = counters.batches
    return {
        "type": view.spec.type,
        "streaming": {
            "initialized": True,
            "running": not view.failed,
            "error": bool(view.failed),
            "queue_size": view.queue_size,
            "queue_capacity": view.queue_capacity,
            "window_size": _window_size(view),
            "process_interval_us": 0,
        },
        "statistics": {
            "total_enqueued": view.total_enqueued,
            "total_dropped": counters.dropped,
            "batches_processed": batches,
            "items_processed": counters.processed,
            "total_process_time_us": counters.process_us,
            "avg_process_time_us": counters.process_us / batches if batches else 0.0,
        },
        "data": {
            "initialized": view.data_count > 0,
            "data_count": view.data_count,
            "total_data_tokens": max(0, view.n_tokens - view.prefix_tokens),
            "pos_next": view.n_tokens,
        },
    }


def flash_entry(view: QueryView) -> FlashEntry:
    """A standing question; before its first answer the answer's fields are empty."""
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
        "evaluated_at": view.evaluated_ms if answer else 0,
    }


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


def _usage(view: SessionView) -> float:
    return view.n_tokens / view.context_tokens if view.context_tokens else 0.0


def _window_size(view: SessionView) -> int:
    """Items; 0 where the session keeps everything."""
    window = view.spec.window
    return 0 if window.mode == "grow" else window.items
