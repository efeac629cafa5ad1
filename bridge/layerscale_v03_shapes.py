"""The shapes that a LayerScale 0.3 client reads, for type checks and OpenAPI.

layerscale_v03_bodies.py fills them and says what the fields mean.
"""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict

from flashfeed.models.records import StreamType


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
