"""Sessions and their data as LayerScale clients read them: views in their words. Pure.

Tokens of a session stand at positions 0 to n_tokens - 1, so pos_max is n_tokens - 1
(-1 for none) and pos_next is n_tokens. Times are ms since 1970 for 0.3, seconds for 0.8;
`cache_usage` is a share (0 to 1). Where a client knows a field as optional or not at all,
it is extra.
"""

from __future__ import annotations

from collections.abc import Sequence

from flashfeed.models.views import AppendAck, Inspection, PushAck, SessionView

from .layerscale_shapes import (
    Appended,
    Created,
    DataRegion,
    Deleted,
    PrefixMarked,
    Pushed,
    Session,
    SessionList,
    State,
    StreamStatus,
    Summary,
)


def created(view: SessionView) -> Created:
    """A new session (0.3)."""
    return {
        "session_id": view.session_id,
        "type": view.spec.type,
        "n_tokens": view.n_tokens,
        "context": view.context_tokens,
        "window_size": _window_size(view),
        "flash_queries": len(view.spec.flash),
        "pos_max": view.n_tokens - 1,
    }


def session(view: SessionView) -> Session:
    """A session (0.8). All that it holds is durable, so `data_end` is `tokens`; `kv_tokens`
    is less while it waits to be decoded again, after a crash or an eviction."""
    body: Session = {
        "id": view.session_id,
        "object": "session",
        "created": view.created_ms // 1000,
        "last_used": view.last_used_ms // 1000,
        "tokens": view.n_tokens,
        "kv_tokens": view.kv_tokens,
        "busy": view.in_use,
        "turns": view.turns,
        "data_end": view.n_tokens,
        "data_version": view.version,
        "pending": view.queue_size,
        "pre_decode": view.spec.pre_decode,
        "ready": view.ready is not None,
        "evicted": view.evicted,
    }
    if view.prefix_tokens:
        body["frozen_end"] = view.prefix_tokens
    if view.spec.window_tokens:
        body["window"] = view.spec.window_tokens
    if view.ready is not None:
        body["ready_token"] = view.ready.first_token
        body["ready_gap"] = view.ready.logit_gap
    return body


def session_list(views: Sequence[SessionView], sessions_max: int) -> SessionList:
    """All sessions, the oldest first."""
    ordered = sorted(views, key=lambda view: (view.created_ms, view.session_id))
    return {
        "sessions": [_summary(view) for view in ordered],
        "count": len(ordered),
        "max_sessions": sessions_max,
        "object": "list",
        "data": [session(view) for view in ordered],
    }


def _summary(view: SessionView) -> Summary:
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
    """A session with its context as text (0.3)."""
    view = inspection.view
    region: DataRegion = {"start": view.prefix_tokens, "end": view.n_tokens}
    if window_size := _window_size(view):
        region["window_size"] = window_size
    return {
        "session_id": view.session_id,
        "type": view.spec.type,
        "n_tokens": view.n_tokens,
        "context": view.context_tokens,
        "pos_min": 0,
        "pos_max": view.n_tokens - 1,
        "pos_next": view.n_tokens,
        "prefix_end": view.prefix_tokens,
        "data_region": region,
        "data_count": view.data_count,
        "data_version": view.version,
        "cache_usage": _usage(view),
        "created_at": view.created_ms,
        "last_used_at": view.last_used_ms,
        "in_use": view.in_use,
        "failed": view.failed,
        "context_text": inspection.text,
    }


def deleted(session_id: str) -> Deleted:
    """What became of a delete."""
    return {
        "success": True,
        "session_id": session_id,
        "id": session_id,
        "object": "session.deleted",
        "deleted": True,
    }


def appended(ack: AppendAck) -> Appended:
    """What became of an append (0.3)."""
    return {
        "n_tokens_added": ack.added_tokens,
        "total_tokens": ack.view.n_tokens,
        "pos_max": ack.view.n_tokens - 1,
    }


def prefix_marked(view: SessionView) -> PrefixMarked:
    """What became of a mark_prefix (0.3)."""
    return {
        "prefix_end": view.prefix_tokens,
        "message": f"the first {view.prefix_tokens} tokens are the session's prefix",
    }


def pushed(ack: PushAck) -> Pushed:
    """What became of a push. It is whole or refused; what it `dropped` are the oldest that
    waited, where the queue is full.

    `data_version` is one that what was pushed is not in: client 0.8 waits until the
    session's is past it.
    """
    view = ack.view
    return {
        "pushed": ack.pushed,
        "dropped": ack.dropped,
        "queue_size": view.queue_size,
        "queue_capacity": view.queue_capacity,
        "total_enqueued": view.total_enqueued,
        "total_dropped": view.counters.dropped,
        "pending": view.queue_size,
        "pending_bytes": view.queue_bytes,
        "total_pushed": view.total_enqueued,
        "data_version": ack.version,
    }


def stream_status(view: SessionView) -> StreamStatus:
    """A session's queue, counters and data (0.3). `running` ends when the session failed;
    there is no `process_interval_us`: what comes is taken at once."""
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


def _usage(view: SessionView) -> float:
    return view.n_tokens / view.context_tokens if view.context_tokens else 0.0


def _window_size(view: SessionView) -> int:
    """Items; 0 where the session keeps everything, or its window counts tokens."""
    window = view.spec.window
    return 0 if window.mode == "grow" or view.spec.window_tokens else window.items
