"""What a LayerScale 0.3 client reads: views and events in its words. Pure.

Tokens of a session stand at positions 0 to n_tokens - 1, so pos_max is n_tokens - 1
(-1 for none) and pos_next is n_tokens. Times are ms since 1970; `cache_usage` is a
share (0 to 1). Where the client knows a field as optional or not at all, it is extra.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NotRequired

import msgspec
from typing_extensions import TypedDict

from flashfeed.models.events import DataUpdated, FlashReady
from flashfeed.models.records import StreamType
from flashfeed.models.views import (
    AppendAck,
    Inspection,
    PushAck,
    QueryView,
    SessionEvent,
    SessionView,
)


class Created(TypedDict):
    """The answer to a create."""

    session_id: str
    type: StreamType
    n_tokens: int
    context: int
    window_size: int
    flash_queries: int
    pos_max: int


class Summary(TypedDict):
    """A session in the list."""

    session_id: str
    type: StreamType
    n_tokens: int
    context: int
    prefix_end: int
    cache_usage: float
    created_at: int
    last_used_at: int
    in_use: bool


class SessionList(TypedDict):
    """All sessions."""

    sessions: list[Summary]
    count: int
    max_sessions: int


class DataRegion(TypedDict):
    """Where in the context the data stands."""

    start: int
    end: int


class State(TypedDict):
    """A session with its context."""

    session_id: str
    type: StreamType
    n_tokens: int
    context: int
    pos_min: int
    pos_max: int
    pos_next: int
    prefix_end: int
    data_region: DataRegion
    data_count: int
    data_version: int
    cache_usage: float
    created_at: int
    last_used_at: int
    in_use: bool
    failed: str
    context_text: str


class Deleted(TypedDict):
    """The answer to a delete."""

    success: bool
    session_id: str


class Appended(TypedDict):
    """The answer to an append."""

    n_tokens_added: int
    total_tokens: int
    pos_max: int


class PrefixMarked(TypedDict):
    """The answer to mark_prefix."""

    prefix_end: int
    message: str


class Pushed(TypedDict):
    """The acknowledgement of a push."""

    pushed: int
    dropped: int
    queue_size: int
    queue_capacity: int
    total_enqueued: int
    total_dropped: int
    data_version: int


class Streaming(TypedDict):
    """The queue of a session."""

    initialized: bool
    running: bool
    error: bool
    queue_size: int
    queue_capacity: int
    window_size: int
    process_interval_us: int


class Statistics(TypedDict):
    """What a session has counted."""

    total_enqueued: int
    total_dropped: int
    batches_processed: int
    items_processed: int
    total_process_time_us: int
    avg_process_time_us: float


class DataInfo(TypedDict):
    """The data in the context."""

    initialized: bool
    data_count: int
    total_data_tokens: int
    pos_next: int


class StreamStatus(TypedDict):
    """A session's queue, counters and data."""

    type: StreamType
    streaming: Streaming
    statistics: Statistics
    data: DataInfo


class FlashEntry(TypedDict):
    """A standing question with its latest answer."""

    id: int
    query: str
    name: str
    choices: list[str]
    max_tokens: int
    n_tokens: int
    has_answer: bool
    value: str
    data_version: int
    confidence: float
    evaluated_at: int


class FlashAdded(FlashEntry):
    """The answer to a new standing question."""

    total_flash_queries: int


class FlashList(TypedDict):
    """All standing questions of a session."""

    flash_queries: list[FlashEntry]
    count: int
    current_data_version: int


class FlashRemoved(TypedDict):
    """The answer to the removal of a standing question."""

    success: bool
    remaining: int


class Generated(TypedDict):
    """A generation's result."""

    text: str
    n_tokens: int
    total_tokens: int
    pos_max: int
    finish_reason: str
    data_version: int
    confidence: float
    flash: NotRequired[bool]
    flash_id: NotRequired[int]
    logit_gap: NotRequired[float]


class Model(TypedDict):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(TypedDict):
    """The models: one."""

    object: Literal["list"]
    data: list[Model]


def created(view: SessionView) -> Created:
    """A new session."""
    return {
        "session_id": view.session_id,
        "type": view.spec.type,
        "n_tokens": view.n_tokens,
        "context": view.context_tokens,
        "window_size": 0,
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
            "window_size": 0,
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
