"""A session's state as its changelog holds it.

One `Entry` is one applied batch: the head (all that a new owner must know) and the
items that the batch added. The newest entry's head plus the window's items is the
whole session, so recovery needs no older history. Keys are `session/slot`; a step that
adds no items overwrites the one slot HEAD_SLOT, so that a session that only answers or
refuses does not grow its changelog.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from .origins import Origin, Watermark
from .session import Answer, SessionSpec

IDEMPOTENCY_KEYS_MAX = 256
HEAD_SLOT = -1


class Item(msgspec.Struct, frozen=True, array_like=True):
    """One window item: the line that was decoded, and the record it says (None: text)."""

    line: str
    fields: dict[str, Any] | None = None


class Counters(msgspec.Struct, frozen=True):
    """What a session has counted since it was created. `dropped` stays 0 while a full
    queue refuses a push rather than dropping what is old."""

    processed: int = 0
    dropped: int = 0
    duplicates: int = 0
    batches: int = 0
    process_us: int = 0


class Head(msgspec.Struct, frozen=True):
    """Everything about a session but its items.

    `version` is the data version; `records_offset` the last applied offset of
    `flashfeed.records`, `first_offset` the session's first one; and the name of
    this life of it; `steps` counts the entries written and orders them, `slots` those
    with items; `items` counts the window's items and
    `records` those of them that are records; `pending` counts the records that waited
    when the last version was answered;
    `prefix_tokens` is where the data begins (0: where the template put it).
    `tokens` is what the session holds. `answers`, `origins`, `evaluated_ms`,
    `event_time`, `ingest_tokens` (new data),
    `decoded_tokens` (questions and answers too) and `update_ms` (time of the step)
    belong to the last version (as does `version_offset`, the last records offset in
    it) and `previous` holds each query's answer before it, so
    that its events can be published again, byte for byte, under the same ids.
    `failed` says why the session takes no more records; "" while it does.
    """

    session_id: str
    spec: SessionSpec
    version: int = 0
    records_offset: int = -1
    first_offset: int = -1
    next_query_id: int = 1
    version_offset: int = -1
    steps: int = 0
    slots: int = 0
    prefix_tokens: int = 0
    items: int = 0
    records: int = 0
    pending: int = 0
    watermarks: dict[str, Watermark] = {}
    idempotency_keys: tuple[str, ...] = ()
    counters: Counters = Counters()
    created_ms: int = 0
    evaluated_ms: int = 0
    event_time: float | None = None
    origins: tuple[Origin, ...] = ()
    answers: tuple[Answer, ...] = ()
    previous: dict[int, str] = {}
    tokens: int = 0
    ingest_tokens: int = 0
    decoded_tokens: int = 0
    update_ms: float = 0.0
    failed: str = ""


class Entry(msgspec.Struct, frozen=True):
    """One changelog message: the head after a batch, and the items of the batch."""

    slot: int
    head: Head
    items: tuple[Item, ...] = ()


_decoder = msgspec.json.Decoder(Entry)


def entry_key(session_id: str, slot: int) -> bytes:
    """The changelog key of a session's slot."""
    return f"{session_id}/{slot}".encode()


def encode_entry(entry: Entry) -> bytes:
    """An entry as the JSON value that is written to the changelog."""
    return orjson.dumps(msgspec.to_builtins(entry, str_keys=True))


def decode_entry(value: bytes) -> Entry:
    """The entry in a changelog value; raises msgspec.DecodeError where it is none."""
    return _decoder.decode(value)
