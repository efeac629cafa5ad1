"""A session's state as its changelog holds it.

One `Entry` is one applied batch: the head (all that a new owner must know) and the
items that the batch added. The newest entry's head plus the window's items is the
whole session, so recovery needs no older history. Keys are `session/slot`:

- A step that adds no items overwrites the one slot HEAD_SLOT, so that a session that
  only answers or refuses does not grow its changelog.
- What is left of a deleted session for a while is under `session/GRAVE_SLOT`.
- A step that adds items writes the next slot of a ring of 2N + 1 (N = window.items). A
  window holds fewer than 2N items and an entry has one at least, so what the ring
  overwrites lies before the window. Under `grow` there is no ring: every slot stays.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .assembly import Assembly
from .merged import Merged
from .origins import Origin, Watermark
from .session import Answer, SessionSpec, WindowSpec
from .trace_context import TraceContext

IDEMPOTENCY_KEYS_MAX = 256
HEAD_SLOT = -1
GRAVE_SLOT = "grave"
FORMAT = 1
"""Of an entry. One that a later flashfeed wrote in another says so, and is not guessed at."""
QUARANTINED = "changelog_corrupt: "


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One window item: the line that was decoded, the record it says (None: text), the
    offset on `flashfeed.records` of the message that brought it, and where the record is
    made of several, of which. `live`: it is a candle that is not final."""

    line: str
    fields: dict[str, Any] | None = None
    offset: int = -1
    merged: Merged | None = None
    live: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is one record, and final: its volume is of the same time as others'."""
        return self.merged is None and not self.live


class Prior(msgspec.Struct, frozen=True, array_like=True):
    """What a question's answers favour (heads/prior.py): the mean log-probability of each
    choice over the last `count` answers."""

    count: int = 0
    means: dict[str, float] = {}


class Counters(msgspec.Struct, frozen=True):
    """What a session has counted since it was created. Among the `processed` are the
    `dropped`, which a full queue had no place for, and the `coalesced`, which stand in a line
    together with others. Of candles: `final` became lines for good, `live` is how often one
    was written that was not final yet, `corrected` came again with other values, or after
    one that is newer."""

    processed: int = 0
    dropped: int = 0
    duplicates: int = 0
    late: int = 0
    corrected: int = 0
    final: int = 0
    live: int = 0
    coalesced: int = 0
    batches: int = 0
    process_us: int = 0


class Head(msgspec.Struct, frozen=True):
    """Everything about a session but its items.

    `version` is the data version; `records_offset` the last applied offset of
    `flashfeed.records`, `first_offset` the session's first one; and the name of
    this life of it; `steps` counts the entries written and orders them, `slots` those
    with items.

    The window: `count` counts the items applied since the frozen prefix or the last
    halving, `base` those before that; the context holds the last `items` of them
    (models/window.py), `records` of which are records. `frozen` are the lines of the
    frozen prefix after the template's; `prefix_tokens` is where the data begins (0:
    where the template put it). `window_items` is N where it was halved for lack of
    room, 0 where it is the spec's. `tokens` is what the session holds.

    `answers`, `origins`, `evaluated_ms`, `event_time`, `ingest_tokens` (new data),
    `decoded_tokens` (questions and answers too), `update_ms` (time of the step),
    `pending` (records that waited when it was answered), `version_records` (records in
    its context), `version_first` and `version_offset` (records offsets of the oldest and
    the newest item in it), `ready` (what the model says next by itself, under
    `pre_decode`), `trace` (the step that made it, where that is followed) belong to the last
    version, and `previous` holds each query's answer before it, so that its events can be
    published again, byte for byte, under the same ids; `abstained_before` are the queries whose
    answer before abstained. `priors` are by query id, and so are `hidden_means`, of questions that
    learn (heads/moved.py); `assembly` is
    what later records are put together with. `feed` is the feed that made the session by
    itself ("": somebody asked for it). `asked` is, by partition of the control topic, the
    highest offset whose message came here, in this life or the one before: each is taken once.
    `failed` says why the session takes no more records; "" while it does.
    """

    session_id: str
    spec: SessionSpec
    version: int = 0
    records_offset: int = -1
    first_offset: int = -1
    next_query_id: int = 1
    version_records: int = 0
    version_first: int = -1
    version_offset: int = -1
    steps: int = 0
    slots: int = 0
    prefix_tokens: int = 0
    frozen: tuple[str, ...] = ()
    window_items: int = 0
    base: int = 0
    count: int = 0
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
    abstained_before: tuple[int, ...] = ()
    priors: dict[int, Prior] = {}
    hidden_means: dict[int, bytes] = {}
    tokens: int = 0
    ingest_tokens: int = 0
    decoded_tokens: int = 0
    update_ms: float = 0.0
    ready: Answer | None = None
    failed: str = ""
    asked: dict[str, int] = {}
    assembly: Assembly = Assembly()
    feed: str = ""
    trace: TraceContext | None = None

    @property
    def window(self) -> WindowSpec:
        """The window as it is now: the spec's, or what is left of it."""
        window = self.spec.window
        if not self.window_items:
            return window
        return msgspec.structs.replace(window, items=self.window_items)

    @property
    def quarantined(self) -> bool:
        """Whether the session failed because its changelog could not be read: it then has no
        place in the engine."""
        return self.failed.startswith(QUARANTINED)

    @property
    def written(self) -> int:
        """Items ever applied in this life of the session."""
        return self.base + self.count

    @property
    def evicted(self) -> int:
        """Items that have slid out of the window in this life of the session."""
        return self.written - self.items - len(self.frozen)


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One changelog message: the head after a batch, and the items of the batch."""

    slot: int
    head: Head
    items: tuple[Item, ...] = ()
    format: int = FORMAT


class Grave(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is left of a deleted session: messages of its partition up to `records_offset`, and of
    the control topic up to the offsets `asked`, were taken."""

    session_id: str
    records_offset: int
    asked: dict[str, int] = {}


class _Format(msgspec.Struct, frozen=True):
    """What of an entry is read first, whatever else it holds."""

    format: int = FORMAT


_decoder = msgspec.json.Decoder(Entry)
_format_decoder = msgspec.json.Decoder(_Format)
_grave_decoder = msgspec.json.Decoder(Grave)


def ring_slots(window: WindowSpec) -> int | None:
    """How many slots a session's items go round in; None where they never come back."""
    return None if window.mode == "grow" else 2 * window.items + 1


def entry_slot(head: Head) -> int:
    """The slot of the last step with items. The ring is the spec's, whatever is left of
    the window, so that it is one ring for all of the session's life."""
    ring = ring_slots(head.spec.window)
    return head.slots - 1 if ring is None else (head.slots - 1) % ring


def used_slots(head: Head) -> list[int]:
    """Every slot that the session has written."""
    ring = ring_slots(head.spec.window)
    return [HEAD_SLOT, *range(head.slots if ring is None else min(head.slots, ring))]


def entry_key(session_id: str, slot: int) -> bytes:
    """The changelog key of a session's slot."""
    return f"{session_id}/{slot}".encode()


def grave_key(session_id: str) -> bytes:
    """The changelog key of a deleted session's grave."""
    return f"{session_id}/{GRAVE_SLOT}".encode()


def decode_grave(value: bytes) -> Grave:
    """The grave in a changelog value; raises msgspec.DecodeError where it is none."""
    return _grave_decoder.decode(value)


def encode_entry(entry: Entry) -> bytes:
    """An entry as the JSON value that is written to the changelog."""
    return msgspec.json.encode(entry)


def decode_entry(value: bytes) -> Entry:
    """The entry in a changelog value; raises msgspec.DecodeError where it is none, or of
    another format."""
    try:
        entry = _decoder.decode(value)
    except msgspec.ValidationError:
        _check_format(_format_decoder.decode(value).format)
        raise
    _check_format(entry.format)
    return entry


def _check_format(found: int) -> None:
    if found != FORMAT:
        raise msgspec.DecodeError(f"format {found} is another flashfeed's; this one has {FORMAT}")
