"""What the outside may see of a session: the values that the session service returns.

A bridge turns these into its dialect's words; it never reaches behind them.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from .events import DataUpdated, FlashReady
from .session import Answer, FlashQuery, SessionSpec
from .state import Counters


class SessionView(msgspec.Struct, frozen=True):
    """A session as its owner holds it now.

    Tokens: `n_tokens` the session holds, `prefix_tokens` of them before the data,
    `context_tokens` its window, `kv_tokens` those whose keys and values are there now (a
    session that was evicted comes back when it is used). Items: `data_count` records in the
    context, `evicted` what has slid out of it. Queue (records and texts): `queue_size`
    written and not yet applied, `queue_bytes` of messages, `queue_capacity` the bound.
    `turns` are the generations that this worker ended, and `ready` is what the model says
    next by itself (None but under `pre_decode`). Times: ms since 1970. `model` is the name
    of what answers, as clients see it.
    """

    session_id: str
    spec: SessionSpec
    version: int
    n_tokens: int
    context_tokens: int
    prefix_tokens: int
    data_count: int
    queue_size: int
    queue_capacity: int
    counters: Counters
    answers: tuple[Answer, ...]
    evaluated_ms: int
    created_ms: int
    last_used_ms: int
    in_use: bool
    failed: str = ""
    model: str = ""
    kv_tokens: int = 0
    evicted: int = 0
    queue_bytes: int = 0
    turns: int = 0
    ready: Answer | None = None

    @property
    def total_enqueued(self) -> int:
        """Records and texts ever accepted: processed (the dropped among them) and still queued."""
        return self.counters.processed + self.queue_size


class PushAck(msgspec.Struct, frozen=True):
    """What became of a push: records and texts written, and the session's view after it.
    `version` is a data version that they are not in: once they are applied, it is past.
    `dropped` of the oldest that waited have no room any more."""

    pushed: int
    view: SessionView
    version: int = 0
    dropped: int = 0


class Warmed(msgspec.Struct, frozen=True):
    """What became of a warm turn. warmed: the whole conversation is decoded. covered: it
    was before. cancelled: a turn took over. Tokens: `prompt_tokens` of data and
    conversation, `cached_tokens` of them that the session held already (of a cancelled
    one: the data's alone)."""

    finish_reason: Literal["warmed", "covered", "cancelled"]
    prompt_tokens: int
    cached_tokens: int
    view: SessionView


class AppendAck(msgspec.Struct, frozen=True):
    """What became of an append: tokens added, and the session's view after it."""

    added_tokens: int
    view: SessionView


class QueryView(msgspec.Struct, frozen=True):
    """A standing question, its cost in prompt tokens, and its latest answer."""

    query: FlashQuery
    n_tokens: int
    answer: Answer | None
    data_version: int
    evaluated_ms: int


class ModelView(msgspec.Struct, frozen=True):
    """A model that a request may name; `context_tokens` is what a session of it holds.
    `aliases` are other names of it that a request may use."""

    id: str
    default: bool
    context_tokens: int
    aliases: tuple[str, ...] = ()


class Embeddings(msgspec.Struct, frozen=True):
    """A vector of length 1 for each text, in order; `n_tokens` is what the model read of
    them all, `model` its name."""

    model: str
    vectors: tuple[tuple[float, ...], ...]
    n_tokens: int


SessionEvent: TypeAlias = FlashReady | DataUpdated


class Inspection(msgspec.Struct, frozen=True):
    """A session's context as text, for a person to read."""

    view: SessionView
    text: str


Fields: TypeAlias = dict[str, Any]
