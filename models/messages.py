"""The messages on `flashfeed.records`: everything that changes a session, in order.

The Kafka key is the session id, so one partition's order is the session's only
history. A message is a JSON object with `op`; what follows depends on it. `idempotency_key`
lets the owner drop a repeated write.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from .errors import DecodeFault
from .records import RecordType
from .session import FlashQuery, SessionSpec
from .trace_context import Followed

Fields: TypeAlias = dict[str, Any]


class Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where on `flashfeed.control` a message was asked for, and the topic ("": none) and
    the words under which its outcome is awaited."""

    topic: str
    partition: int
    offset: int
    reply_to: str = ""
    correlation_id: str = ""


class _Message(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="op", kw_only=True):
    """What every message may carry."""

    idempotency_key: str = ""
    asked: Asked | None = None


class PackedRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One record and where in its source topic it came from.

    `offset` and `index` place it in the source partition; `received_ms` is the source
    record's Kafka timestamp (ms), which end-to-end latency is measured from.
    """

    offset: int
    index: int
    received_ms: int
    fields: Fields


def pushed_text(fields: Fields) -> str | None:
    """The text of a record that is nothing but text, which a session of any type takes;
    None for a record of a type."""
    text = fields.get("text")
    return text if len(fields) == 1 and isinstance(text, str) else None


class Records(_Message, frozen=True, kw_only=True, tag="records"):
    """Records of one fetch for one session, all from one source partition.

    `template` names the session template that creates the session where it is not
    there yet. `topic` is "" for records pushed over HTTP: those have no source
    offsets, and `idempotency_key` alone tells a repeat. `may_change`: a candle may come
    again, and is final when the next one begins. `feed` is whose limits on new sessions
    hold. A record may be nothing but text (`pushed_text`), whatever the type. `replays`: how
    often the record was a dead letter before; it lies behind its origin's watermark then, so
    it is not held against it, and `idempotency_key` alone tells a repeat. `traces` has those
    of its records that are followed (a push has the offset 0).
    """

    type: RecordType
    records: tuple[PackedRecord, ...]
    topic: str = ""
    partition: int = 0
    template: str = ""
    feed: str = ""
    may_change: bool = False
    replays: int = 0
    traces: tuple[Followed, ...] = ()


class Create(_Message, frozen=True, kw_only=True, tag="create"):
    """A new session from a spec."""

    spec: SessionSpec
    created_ms: int = 0


class Append(_Message, frozen=True, kw_only=True, tag="append"):
    """Text that becomes part of the context, as a window item of its own."""

    text: str

    @classmethod
    def of_generation(cls, prompt: str, answer: str) -> Append:
        """A generation that stays: one item, the prompt and the answer as a dialogue."""
        asked = f"Q: {prompt.strip()}\n" if prompt.strip() else ""
        return cls(text=f"{asked}A: {answer.strip()}")


class MarkPrefix(_Message, frozen=True, kw_only=True, tag="mark_prefix"):
    """What the session holds now is its frozen prefix: instructions, not data. The
    window is empty after it, and the prefix never slides out."""


class AddQuery(_Message, frozen=True, kw_only=True, tag="add_query"):
    """One more standing question; the owner gives it its id."""

    query: FlashQuery


class RemoveQuery(_Message, frozen=True, kw_only=True, tag="remove_query"):
    """A standing question less."""

    query_id: int


class Outcome(_Message, frozen=True, kw_only=True, tag="outcome"):
    """What the true answer turned out to be (outcomes.py) to the question of that name or id:
    of the answer at a data version (0: not named so), or with that event id. It changes no
    answer, and no data version."""

    query: int | str
    label: str
    data_version: int = 0
    event_id: str = ""
    time: float | None = None


class Delete(_Message, frozen=True, kw_only=True, tag="delete"):
    """The end of the session. With `idle_since` only where no message came for the session
    after that offset of `flashfeed.records`."""

    idle_since: int | None = None


Message: TypeAlias = (
    Records | Create | Append | MarkPrefix | AddQuery | RemoveQuery | Outcome | Delete
)

_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def encode_message(message: Message) -> bytes:
    """A message as the JSON value that is written to Kafka."""
    return msgspec.json.encode(message)


def decode_message(value: bytes | None) -> Message:
    """The message in a Kafka value; raises DecodeFault, naming the path, where it is none."""
    if not value:
        raise DecodeFault("expected a session message, got an empty value")
    try:
        return _decoder.decode(value)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        message, _, path = str(error).partition(" - at `")
        raise DecodeFault(f"not a session message: {message}", path.rstrip("`") or "$") from None
