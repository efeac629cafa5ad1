"""What LayerScale clients read, as examples for OpenAPI; each has the shape of its route."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from .layerscale_answer_shapes import (
    FlashAdded,
    FlashEntry,
    FlashList,
    FlashQuery,
    FlashRemoved,
    Generated,
    WarmedTurn,
)
from .layerscale_shapes import (
    Appended,
    Created,
    Deleted,
    PrefixMarked,
    Pushed,
    Session,
    SessionList,
    State,
    StreamStatus,
)
from .stats import OhlcvStats

Responses: TypeAlias = dict[int | str, dict[str, Any]]


def answers(example: Any) -> Responses:
    """A route's `responses`: its answer by an example."""
    return {200: {"content": {"application/json": {"example": example}}}}


def frames(example: str) -> Responses:
    """The same for a route that answers with server-sent events."""
    return {200: {"content": {"text/event-stream": {"example": example}}}}


_ID: Final[str] = "3f2a9c51d7e84b6f9a0c1e2d3b4a5968"
_TREND: Final[str] = "Is the trend bullish or bearish?"

CREATED: Final[Created] = {
    "session_id": _ID,
    "type": "ohlcv",
    "n_tokens": 52,
    "context": 4096,
    "window_size": 0,
    "flash_queries": 2,
    "pos_max": 51,
}
SESSION: Final[Session] = {
    "id": "ticker-feed",
    "object": "session",
    "created": 1_733_000_000,
    "last_used": 1_733_000_060,
    "tokens": 118,
    "kv_tokens": 118,
    "busy": False,
    "turns": 3,
    "data_end": 118,
    "data_version": 2,
    "pending": 0,
    "pre_decode": False,
    "ready": False,
    "evicted": 0,
    "window": 1024,
}
SESSIONS: Final[SessionList] = {
    "sessions": [
        {
            "session_id": "ticker-feed",
            "type": "event",
            "n_tokens": 118,
            "context": 4096,
            "prefix_end": 0,
            "cache_usage": 0.0288,
            "created_at": 1_733_000_000_000,
            "last_used_at": 1_733_000_060_000,
            "in_use": False,
        }
    ],
    "count": 1,
    "max_sessions": 16,
    "object": "list",
    "data": [SESSION],
}
STATE: Final[State] = {
    "session_id": _ID,
    "type": "ohlcv",
    "n_tokens": 67,
    "context": 4096,
    "pos_min": 0,
    "pos_max": 66,
    "pos_next": 67,
    "prefix_end": 52,
    "data_region": {"start": 52, "end": 67},
    "data_count": 1,
    "data_version": 1,
    "cache_usage": 0.0164,
    "created_at": 1_733_000_000_000,
    "last_used_at": 1_733_000_060_000,
    "in_use": False,
    "failed": "",
    "context_text": "<|im_start|>system\nYou are an analyst. ...\nAAPL 150.70 1.2M\n",
}
DELETED: Final[Deleted] = {
    "success": True,
    "session_id": _ID,
    "id": _ID,
    "object": "session.deleted",
    "deleted": True,
}
APPENDED: Final[Appended] = {"n_tokens_added": 8, "total_tokens": 75, "pos_max": 74}
PREFIX_MARKED: Final[PrefixMarked] = {
    "prefix_end": 52,
    "message": "the first 52 tokens are the session's prefix",
}
PUSHED: Final[Pushed] = {
    "pushed": 2,
    "dropped": 0,
    "queue_size": 2,
    "queue_capacity": 10_000,
    "total_enqueued": 12,
    "total_dropped": 0,
    "pending": 2,
    "pending_bytes": 164,
    "total_pushed": 12,
    "data_version": 4,
}
STREAM_STATUS: Final[StreamStatus] = {
    "type": "ohlcv",
    "streaming": {
        "initialized": True,
        "running": True,
        "error": False,
        "queue_size": 0,
        "queue_capacity": 10_000,
        "window_size": 64,
        "process_interval_us": 0,
    },
    "statistics": {
        "total_enqueued": 12,
        "total_dropped": 0,
        "batches_processed": 5,
        "items_processed": 12,
        "total_process_time_us": 913_204,
        "avg_process_time_us": 182_640.8,
    },
    "data": {"initialized": True, "data_count": 12, "total_data_tokens": 176, "pos_next": 228},
}
STATS: Final[OhlcvStats] = {
    "type": "ohlcv",
    "count": 2,
    "max_high": 186.5,
    "max_high_index": 1,
    "min_low": 185.1,
    "min_low_index": 0,
    "max_volume": 12_500.0,
    "first_open": 185.5,
    "last_close": 186.3,
    "avg_close": 186.05,
    "change": 0.8,
    "change_pct": 0.4313,
}
FLASH_ADDED: Final[FlashAdded] = {
    "id": 1,
    "object": "flash.query",
    "query": _TREND,
    "max_tokens": 4,
    "tokens": 9,
    "fresh": True,
    "value": "Bullish",
    "data_version": 5,
    "confidence": 0.71,
    "abstained": False,
    "evaluated_at": 1_733_000_060,
    "n_tokens": 9,
    "total_flash_queries": 1,
    "name": "",
    "choices": [],
}
_ENTRY: Final[FlashEntry] = {
    "id": 1,
    "query": _TREND,
    "name": "",
    "choices": [],
    "max_tokens": 4,
    "n_tokens": 9,
    "has_answer": True,
    "value": "Bullish",
    "data_version": 5,
    "confidence": 0.71,
    "abstained": False,
    "evaluated_at": 1_733_000_060_000,
}
_QUERY: Final[FlashQuery] = {
    "id": 1,
    "object": "flash.query",
    "query": _TREND,
    "max_tokens": 4,
    "tokens": 9,
    "fresh": True,
    "value": "Bullish",
    "data_version": 5,
    "confidence": 0.71,
    "abstained": False,
    "evaluated_at": 1_733_000_060,
}
FLASH_LIST: Final[FlashList] = {
    "flash_queries": [_ENTRY],
    "count": 1,
    "current_data_version": 5,
    "object": "list",
    "data": [_QUERY],
    "data_version": 5,
}
FLASH_REMOVED: Final[FlashRemoved] = {
    "success": True,
    "remaining": 0,
    "id": 1,
    "object": "flash.query.deleted",
    "deleted": True,
}
GENERATED: Final[Generated] = {
    "id": "gen_5d0c6a0f3c5b4c55a2f8b1f0f4f6a9d2",
    "object": "session.generation",
    "session_id": _ID,
    "text": "The price rose from 185.80 to 186.30.",
    "n_tokens": 17,
    "total_tokens": 228,
    "pos_max": 227,
    "finish_reason": "stop",
    "data_version": 5,
    "confidence": 0.64,
    "usage": {
        "prompt_tokens": 246,
        "completion_tokens": 17,
        "total_tokens": 263,
        "prompt_tokens_details": {"cached_tokens": 228},
    },
}
WARMED: Final[WarmedTurn] = {
    "id": "warm_0a7a3f6f6d1f4f3c8ad0a9a54d8c1b11",
    "object": "session.warm",
    "session_id": "ticker-feed",
    "finish_reason": "warmed",
    "prompt_tokens": 246,
    "cached_tokens": 228,
    "prefix_cached_tokens": 0,
    "data_version": 5,
}
EVENTS: Final[str] = """event: connected
data: {"session_id":"ticker-feed","data_version":4,"flash_queries":1}

event: flash_ready
data: {"id":1,"query":"Up?","value":"yes","data_version":5,"confidence":0.7,"evaluated_at":1733}

event: data_updated
data: {"data_version":5,"tokens":30,"pending":0,"data_count":12,"pos_next":228}

"""
