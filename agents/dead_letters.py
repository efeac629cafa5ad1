"""What becomes of a record that cannot be used: a dead letter that says why.

Value, key and headers are the original's; what we know stands in further headers
(`flashfeed_*`): source topic, partition, offset, index in the message, the feed or
session, reason, path, and the sentence a person reads; what a replay needs beside
(letters.py): the record's time, its feed, of a session's letter the record's type and the
template, and how often it was replayed before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from flashfeed.models.errors import DecodeFault, FlashfeedError

from .kafka_writer import Write

# Together below RECORD_BYTES_MAX: a letter that Kafka does not take would stop its feed for
# ever. The whole record stands at its origin.
VALUE_BYTES_MAX = 900_000
BESIDE_BYTES_MAX = 64_000  # the original's key and headers

ALWAYS: Final = ("topic", "partition", "offset", "reason", "path", "detail", "where")
SOMETIMES: Final = (
    "index",
    "cut_from_bytes",
    "left_out_bytes",
    "timestamp_ms",
    "feed",
    "type",
    "template",
    "replays",
)


def header_schema() -> dict[str, Any]:
    """The JSON Schema of the headers that a letter has beside the original's, as text."""
    headers = {f"flashfeed_{name}": {"type": "string"} for name in (*ALWAYS, *SOMETIMES)}
    required = [f"flashfeed_{name}" for name in ALWAYS]
    return {"type": "object", "properties": headers, "required": required}


class DeadLetter(NamedTuple):
    """One record that could not be used, and why."""

    topic: str
    partition: int
    offset: int
    reason: str
    path: str
    detail: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    part: int | None = None
    where: str = ""
    timestamp_ms: int = 0
    feed: str = ""
    type: str = ""
    template: str = ""
    replays: int = 0

    def write(self, dead_letter_topic: str) -> Write:
        """The letter as a Kafka record."""
        known = {
            "topic": self.topic,
            "partition": str(self.partition),
            "offset": str(self.offset),
            "reason": self.reason,
            "path": self.path[:1000],
            "detail": self.detail[:1000],
            "where": self.where,
        }
        value = self.value
        if value is not None and len(value) > VALUE_BYTES_MAX:
            known["cut_from_bytes"] = str(len(value))
            value = value[:VALUE_BYTES_MAX]
        key, headers = self.key, self.headers
        beside_bytes = len(key or b"") + sum(len(name) + len(at or b"") for name, at in headers)
        if beside_bytes > BESIDE_BYTES_MAX:
            known["left_out_bytes"] = str(beside_bytes)
            key, headers = key and key[:BESIDE_BYTES_MAX], ()
        if self.part is not None:
            known["index"] = str(self.part)
        beside = {
            "timestamp_ms": self.timestamp_ms,
            "feed": self.feed,
            "type": self.type,
            "template": self.template,
            "replays": self.replays,
        }
        known |= {name: str(value) for name, value in beside.items() if value}
        ours = [(f"flashfeed_{name}", text.encode()) for name, text in known.items()]
        return Write(dead_letter_topic, key, value, [*headers, *ours])


def letter_of(raw: Any, error: FlashfeedError, where: str) -> DeadLetter:
    """The letter of a whole Kafka message that cannot be used; `where` says what it was for."""
    return DeadLetter(
        topic=raw.topic,
        partition=raw.partition,
        offset=int(raw.offset),
        reason=error.reason,
        path=error.path if isinstance(error, DecodeFault) else "$",
        detail=str(error),
        key=raw.key,
        value=raw.value,
        headers=raw.headers,
        where=where,
    )
