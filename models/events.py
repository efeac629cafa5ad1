"""The events that come out: CloudEvents, built as values and sent elsewhere.

Binary mode (CloudEvents Kafka binding 1.0): attributes are headers `ce_*`, the Kafka
value is the data, as JSON or what `[output]` says. Ids are deterministic (invariant 2): the
same cause gives the same id, so that a consumer drops a repeat by (source, id).
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

from .origins import Origin
from .records import StreamType
from .session import AnsweredBy, Learned, RawAnswer

EventType: TypeAlias = Literal["flashfeed.flash_ready", "flashfeed.data_updated"]
Headers: TypeAlias = list[tuple[str, bytes]]


class FlashReady(msgspec.Struct, frozen=True):
    """One question's answer at one data version. Times: ISO 8601 in UTC.

    `records_first` and `records_last` are the `flashfeed.records` offsets of the oldest
    and the newest message in the context that was asked (its frozen prefix aside).
    `raw` is what the model said before the prior correction; null where the answer was
    not corrected (free text, or `calibrate = false`). `abstained`: it is less sure than the
    question's `min_confidence`. `held`: `hysteresis` kept the value that stood, though another
    choice is likelier; `confidence` is that value's. `learned` is what the question's head made
    of it, where it learns.
    """

    session_id: str
    type: StreamType
    id: int
    name: str
    query: str
    value: str
    confidence: float
    logit_gap: float
    probabilities: dict[str, float]
    previous: str | None
    changed: bool
    data_version: int
    event_time: str | None
    evaluated_at: str
    origins: tuple[Origin, ...]
    records_first: int
    records_last: int
    answered_by: AnsweredBy
    raw: RawAnswer | None = None
    abstained: bool = False
    held: bool = False
    learned: Learned | None = None


class DataUpdated(msgspec.Struct, frozen=True):
    """A session moved to a new data version. Tokens: `tokens` of the new data,
    `decoded_tokens` with the questions and answers, `n_tokens` what the session holds.
    `update_ms` is the time from the update's begin to its answers; `pending` counts the
    records that wait meanwhile. `records_first` and `records_last` as in FlashReady."""

    session_id: str
    type: StreamType
    data_version: int
    data_count: int
    tokens: int
    decoded_tokens: int
    n_tokens: int
    update_ms: float
    pending: int
    event_time: str | None
    updated_at: str
    origins: tuple[Origin, ...]
    records_first: int
    records_last: int


class OutEvent(msgspec.Struct, frozen=True):
    """An event ready to send: Kafka key, headers and value."""

    type: EventType
    key: bytes
    headers: Headers
    value: bytes


def event_id(session_id: str, data_version: int, query_id: int, last_offset: int) -> str:
    """hash(session, data_version, query, last input offset), 32 hex digits."""
    cause = f"{session_id}\0{data_version}\0{query_id}\0{last_offset}"
    return hashlib.sha256(cause.encode()).hexdigest()[:32]


def event_identity(data: FlashReady | DataUpdated) -> str:
    """The CloudEvents id of that event."""
    query_id = data.id if isinstance(data, FlashReady) else 0
    return event_id(data.session_id, data.data_version, query_id, data.records_last)


def event_type(data: FlashReady | DataUpdated) -> EventType:
    """The CloudEvents type of that event."""
    flash = isinstance(data, FlashReady)
    return "flashfeed.flash_ready" if flash else "flashfeed.data_updated"


def iso_time(seconds: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC, to the millisecond; None for None and for
    what no calendar has."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return None


class Encoding(Protocol):
    """How the data of an event is written (event_format.py has others than JSON)."""

    @property
    def content_type(self) -> str:
        """The media type of what `encode` gives."""
        ...

    def encode(self, data: FlashReady | DataUpdated) -> bytes:
        """The data as bytes; the same data gives the same bytes."""
        ...


class _Json:
    """Data as a JSON object."""

    content_type = "application/json"

    def encode(self, data: FlashReady | DataUpdated) -> bytes:
        """The data as bytes."""
        return msgspec.json.encode(data)


JSON: Final[Encoding] = _Json()


def cloud_event(data: FlashReady | DataUpdated, source: str, encoding: Encoding = JSON) -> OutEvent:
    """The event as it goes to Kafka, in binary mode, keyed by session."""
    kind = event_type(data)
    time = data.evaluated_at if isinstance(data, FlashReady) else data.updated_at
    headers: Headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_identity(data).encode()),
        ("ce_source", source.encode()),
        ("ce_type", kind.encode()),
        ("ce_time", time.encode()),
        ("ce_subject", data.session_id.encode()),
        ("ce_partitionkey", data.session_id.encode()),
        ("ce_sequence", f"{data.data_version:020d}".encode()),
        ("content-type", encoding.content_type.encode()),
    ]
    key, value = data.session_id.encode(), encoding.encode(data)
    return OutEvent(type=kind, key=key, headers=headers, value=value)
