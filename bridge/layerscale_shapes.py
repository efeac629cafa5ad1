"""The shapes of sessions and their data as LayerScale clients read them, for type checks
and OpenAPI. Of clients 0.3 and 0.8: where both read one body, it has the fields of both.

layerscale_bodies.py fills them and says what the fields mean; those of questions and
answers are in layerscale_answer_shapes.py.
"""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from flashfeed.models.records import StreamType


class Created(TypedDict):
    """The answer to a create (0.3)."""

    session_id: str
    type: StreamType
    n_tokens: int
    context: int
    window_size: int
    flash_queries: int
    pos_max: int


class Session(TypedDict):
    """A session (0.8). Absent: `frozen_end` and `window` where they are not set,
    `ready_token` and `ready_gap` where it is not ready."""

    id: str
    object: Literal["session"]
    created: int
    last_used: int
    tokens: int
    kv_tokens: int
    busy: bool
    turns: int
    data_end: int
    data_version: int
    pending: int
    pre_decode: bool
    ready: bool
    evicted: int
    frozen_end: NotRequired[int]
    window: NotRequired[int]
    ready_token: NotRequired[int]
    ready_gap: NotRequired[float]


class Summary(TypedDict):
    """A session in the list (0.3)."""

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
    """All sessions: `sessions` for 0.3, `data` for 0.8, the same ones in the same order."""

    sessions: list[Summary]
    count: int
    max_sessions: int
    object: Literal["list"]
    data: list[Session]


class DataRegion(TypedDict):
    """Where in the context the data stands."""

    start: int
    end: int
    window_size: NotRequired[int]


class State(TypedDict):
    """A session with its context (0.3)."""

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
    id: str
    object: Literal["session.deleted"]
    deleted: bool


class Appended(TypedDict):
    """The answer to an append (0.3)."""

    n_tokens_added: int
    total_tokens: int
    pos_max: int


class PrefixMarked(TypedDict):
    """The answer to mark_prefix (0.3)."""

    prefix_end: int
    message: str


class Pushed(TypedDict):
    """The acknowledgement of a push, of records or of texts: `queue_*` and `total_enqueued`
    are what 0.3 calls `pending` and `total_pushed` in 0.8."""

    pushed: int
    dropped: int
    queue_size: int
    queue_capacity: int
    total_enqueued: int
    total_dropped: int
    pending: int
    pending_bytes: int
    total_pushed: int
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
    """A session's queue, counters and data (0.3)."""

    type: StreamType
    streaming: Streaming
    statistics: Statistics
    data: DataInfo
