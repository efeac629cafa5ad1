"""How a message names its schema: the bytes before the value, or a header beside it.

    confluent    0x00, 4-byte id | 0x01, 16-byte GUID; or the same in __value_schema_id
    apicurio     0x00, 4-byte content id; or apicurio.value.contentId / .globalId, 8 bytes
    apicurio_v2  0x00, 8-byte global id; or the same headers

Numbers are big-endian. Sources: confluent-kafka's schema_registry (the tests run its
serializers) and Apicurio's SerdeConfig, IdHandlers and DefaultHeadersHandler. What does
not fit is a FramingFault: the message was written by another kind of producer.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from ..models.errors import ConfigError, FramingFault
from .codec import Outside, RegistryKind, SchemaRef, header

Framing: TypeAlias = Literal["", "none", "confluent", "apicurio", "apicurio_v2"]

CONFLUENT_HEADER: Final = "__value_schema_id"
APICURIO_CONTENT_HEADER: Final = "apicurio.value.contentId"
APICURIO_GLOBAL_HEADER: Final = "apicurio.value.globalId"
# Confluent's own reader allows 100,000; a path into nested messages needs a handful.
INDEXES_MAX: Final = 32
VARINT_BYTES_MAX: Final = 10


class Frame(NamedTuple):
    """A message's schema, and where things are.

    `ahead` is what stands between the id and the value (Protobuf's message indexes), at
    `ahead_at`; with the id in a header it is in the header, and the value is the whole
    payload.
    """

    reference: SchemaRef
    ahead: bytes
    ahead_at: int
    in_header: bool


Headers: TypeAlias = Sequence[tuple[str, bytes]]
Unframe: TypeAlias = Callable[[bytes, Headers], Frame]


def choose_framing(option: Framing, file_option: str, outside: Outside) -> RegistryKind | None:
    """The framing that the options mean: their own, else that of the registry where no
    schema file is named. Raises ConfigError where it needs a registry and none is there."""
    if option == "none" or (option == "" and (file_option or outside.schemas is None)):
        return None
    if outside.schemas is None:
        raise ConfigError(f"framing: {option} needs a [schema_registry]")
    return option or outside.schemas.kind


def unframe_confluent(payload: bytes, headers: Headers) -> Frame:
    """The frame of a message of Confluent's serializers."""
    for name, value in headers:
        if name == CONFLUENT_HEADER:
            return _confluent(value or b"", in_header=True)
    return _confluent(payload, in_header=False)


def _confluent(framed: bytes, in_header: bool) -> Frame:
    if len(framed) >= 5 and framed[0] == 0:
        identity = int.from_bytes(framed[1:5], "big")
        return Frame(SchemaRef("id", identity), framed, 5, in_header)
    if len(framed) >= 17 and framed[0] == 1:
        guid = str(uuid.UUID(bytes=framed[1:17]))
        return Frame(SchemaRef("guid", guid), framed, 17, in_header)
    place = f"header {CONFLUENT_HEADER}" if in_header else "the value"
    raise FramingFault(
        f"expected 0x00 and a 4-byte schema id, or 0x01 and a 16-byte GUID, "
        f"got {_shown(framed)} in {place}"
    )


def unframe_apicurio(payload: bytes, headers: Headers) -> Frame:
    """The frame of a message of Apicurio 3's serializers as they come."""
    return _apicurio(payload, headers, "content_id", 4)


def unframe_apicurio_v2(payload: bytes, headers: Headers) -> Frame:
    """The frame of a message of Apicurio 2's serializers as they come."""
    return _apicurio(payload, headers, "global_id", 8)


def _apicurio(
    payload: bytes, headers: Headers, kind: Literal["content_id", "global_id"], width: int
) -> Frame:
    if headers:
        content = header(headers, APICURIO_CONTENT_HEADER)
        if content is not None:
            return _apicurio_header("content_id", APICURIO_CONTENT_HEADER, content)
        globally = header(headers, APICURIO_GLOBAL_HEADER)
        if globally is not None:
            return _apicurio_header("global_id", APICURIO_GLOBAL_HEADER, globally)
    if len(payload) > width and payload[0] == 0:
        identity = int.from_bytes(payload[1 : width + 1], "big", signed=width == 8)
        return Frame(SchemaRef(kind, identity), payload, width + 1, False)
    raise FramingFault(
        f"expected 0x00 and a {width}-byte {kind.replace('_', ' ')}, or a header "
        f"{APICURIO_CONTENT_HEADER} or {APICURIO_GLOBAL_HEADER}, got {_shown(payload)}"
    )


def _apicurio_header(kind: Literal["content_id", "global_id"], name: str, value: bytes) -> Frame:
    if len(value) != 8:
        raise FramingFault(f"expected 8 bytes in header {name}, got {len(value)}")
    return Frame(SchemaRef(kind, int.from_bytes(value, "big", signed=True)), value, 8, True)


UNFRAME: Final[dict[RegistryKind, Unframe]] = {
    "confluent": unframe_confluent,
    "apicurio": unframe_apicurio,
    "apicurio_v2": unframe_apicurio_v2,
}


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned varint and where it ends. Raises FramingFault."""
    value = shift = 0
    for place in range(at, min(len(data), at + VARINT_BYTES_MAX)):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    raise FramingFault(f"expected a varint at byte {at}, got {_shown(data[at:])}")


def read_indexes(data: bytes, at: int) -> tuple[tuple[int, ...], int]:
    """Confluent's path to a Protobuf message in its file, and where it ends: zigzag
    varints, the count first; a single 0x00 is (0,). Raises FramingFault."""
    if data[at : at + 1] == b"\x00":
        return (0,), at + 1
    count, at = read_varint(data, at)
    count = (count >> 1) ^ -(count & 1)
    if not 0 < count <= INDEXES_MAX:
        raise FramingFault(f"expected 1 to {INDEXES_MAX} message indexes, got {count}")
    indexes = []
    for _ in range(count):
        index, at = read_varint(data, at)
        indexes.append((index >> 1) ^ -(index & 1))
    return tuple(indexes), at


def _shown(data: bytes) -> str:
    return f"0x{data[:8].hex()}{'...' * (len(data) > 8)}" if data else "nothing"
