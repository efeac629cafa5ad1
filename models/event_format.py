"""How an event's value is written: JSON, or Avro or Protobuf in a registry's framing.

The framing is Confluent's: a zero byte, the schema's id in 4 bytes, under Protobuf the
place of the message in its file (the first: a zero byte), then the value.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import msgspec
import orjson

from .event_avro import avro_schema, decode_avro, encode_avro
from .event_protobuf import decode_protobuf, encode_protobuf, proto_text
from .event_schemas import EVENT_TYPES
from .events import JSON, DataUpdated, FlashReady

EventFormat: TypeAlias = Literal["json", "avro", "protobuf"]

CONTENT_TYPES: Final[dict[EventFormat, str]] = {
    "json": "application/json",
    "avro": "application/avro",
    "protobuf": "application/protobuf",
}
_FORMATS: Final = {content_type: name for name, content_type in CONTENT_TYPES.items()}
_ID_BYTES: Final = 4
_FIRST_MESSAGE: Final = b"\0"


class EventEncoding:
    """The format that a worker writes, and the ids of its schemas by the event's name:
    they are known when it has registered them."""

    def __init__(self, format_: EventFormat = "json") -> None:
        self.format = format_
        self.schema_ids: dict[str, int] = {}

    @property
    def content_type(self) -> str:
        """The media type of the values."""
        return CONTENT_TYPES[self.format]

    def encode(self, data: FlashReady | DataUpdated) -> bytes:
        """An event's value. The same event gives the same bytes."""
        name = event_name(data)
        if self.format == "json":
            return JSON.encode(data)
        framing = b"\0" + self.schema_ids[name].to_bytes(_ID_BYTES, "big")
        if self.format == "avro":
            return framing + encode_avro(name, data)
        return framing + _FIRST_MESSAGE + encode_protobuf(name, data)


def event_name(data: FlashReady | DataUpdated) -> str:
    """The name that an event has in EVENT_TYPES."""
    return "flash_ready" if isinstance(data, FlashReady) else "data_updated"


def decode_event(
    name: str, value: bytes | str, content_type: str = "application/json"
) -> FlashReady | DataUpdated:
    """The event of that name in a value; ValueError where it is none. Avro is read by the
    schema of this version of flashfeed, whatever the id: its writer has to be of the same."""
    kind: Any = EVENT_TYPES[name]
    format_ = _FORMATS.get(content_type.partition(";")[0].strip())
    if format_ is None:
        raise ValueError(f"expected one of {', '.join(_FORMATS)}, got {content_type!r}")
    try:
        if format_ == "json":
            event = msgspec.json.decode(value, type=kind)
        else:
            event = msgspec.convert(_unframed(name, value, format_), kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"no {name}: {error}") from None
    assert isinstance(event, FlashReady | DataUpdated)
    return event


def _unframed(name: str, value: bytes | str, format_: EventFormat) -> Any:
    if not isinstance(value, bytes) or len(value) <= _ID_BYTES or value[:1] != b"\0":
        raise ValueError("expected a zero byte and a schema id in front of the value")
    body = value[1 + _ID_BYTES :]
    if format_ == "avro":
        return decode_avro(name, body)
    if body[:1] != _FIRST_MESSAGE:
        raise ValueError("expected the first message of its .proto file")
    return decode_protobuf(name, body[1:])


def registered_schema(name: str, format_: EventFormat) -> tuple[str, str]:
    """What a registry keeps for an event: the schema's type, and its text."""
    if format_ == "avro":
        return "AVRO", orjson.dumps(avro_schema(name)).decode()
    return "PROTOBUF", proto_text(name)
