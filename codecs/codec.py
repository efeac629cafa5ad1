"""What a codec is: a message's bytes to the values in it.

A codec is called with the payload and what the message has beside it, and returns the
values in order: none for a tombstone, one, or several (JSON Lines, SenML). In the place
of a value that could not be read may stand its DecodeFault, so that its neighbours are
read all the same. Where nothing can be read the codec raises a DecodeFault; where it
first needs something from outside, a Wanted. It raises nothing else, whatever the bytes.

Each format's module has its options (a table of the configuration) and `build`, which
checks them and raises ConfigError. What a codec needs from the world is handed to `build`
as an Outside, because nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from ..models.errors import ConfigError, FlashfeedError
from .parts import Source

Codec: TypeAlias = Callable[[bytes | None, Source], Sequence[Any]]
Row: TypeAlias = tuple[Any, ...]
"""A value as the mapping reads it: what is under Outside.fields, in their order; None where
there is nothing. No other value is a tuple."""

RegistryKind: TypeAlias = Literal["confluent", "apicurio", "apicurio_v2"]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A codec's own table in the configuration, `[feeds.NAME.codec_options]`."""


class SchemaRef(NamedTuple):
    """How a message names its schema: which kind of id, and the id."""

    kind: Literal["id", "guid", "content_id", "global_id"]
    value: int | str

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')} {self.value}"


class SchemaText(msgspec.Struct, frozen=True):
    """A schema as a registry keeps it.

    `type` is AVRO, PROTOBUF or JSON. `text` is the schema; Protobuf's is the file
    descriptor in base64 or the text of the .proto file. `references` are the schemas it
    builds on, by the name it calls them, each before those that need it.
    """

    type: str
    text: str
    references: tuple[tuple[str, str], ...] = ()


class Birth(msgspec.Struct, frozen=True):
    """What a Sparkplug birth says: each alias's metric name and data type."""

    metrics: dict[int, tuple[str, int]]


class Wanted(FlashfeedError):
    """The message cannot be read before somebody brings what it needs. `what` says what."""

    retriable = True

    def __init__(self, what: str) -> None:
        super().__init__(f"wanted: {what}")
        self.what = what


class SchemaWanted(Wanted):
    """A schema that was not asked for yet."""

    def __init__(self, reference: SchemaRef) -> None:
        super().__init__(f"the schema of {reference}")
        self.reference = reference


class BirthWanted(Wanted):
    """The birth of a Sparkplug edge node or device, waited for at most `wait_s`."""

    def __init__(self, edge: str, wait_s: float) -> None:
        super().__init__(f"the birth of {edge}")
        self.edge = edge
        self.wait_s = wait_s


class Schemas(Protocol):
    """The schemas that are at hand."""

    kind: RegistryKind

    def find(self, reference: SchemaRef) -> SchemaText:
        """The schema. Raises SchemaWanted where it was not fetched yet, UnknownSchema
        where the registry has none."""
        ...


class Births(Protocol):
    """The births that are at hand."""

    def note(self, edge: str, birth: Birth) -> None:
        """A birth was read: it counts from now on, and is kept."""
        ...

    def find(self, edge: str, wait_s: float) -> Birth:
        """The birth. Raises BirthWanted where it may still come, BirthMissing where it
        was waited for in vain."""
        ...

    def sequence(self, topic: str, node: str, number: int) -> None:
        """An edge node's message had that sequence number (0 to 255): gaps are counted."""
        ...


@dataclass(frozen=True, slots=True)
class Outside:
    """What a codec may ask of the world; None: that is not configured.

    `fields` are the names that the mapping reads of a value, where that is all it reads: a
    codec may then give a Row.
    """

    read_file: Callable[[str], bytes]
    schemas: Schemas | None = None
    births: Births | None = None
    fields: tuple[str, ...] | None = None


def read_option_file(outside: Outside, option: str, path: str) -> bytes:
    """The file that an option names. Raises ConfigError, naming the option."""
    try:
        return outside.read_file(path)
    except OSError as error:
        raise ConfigError(f"{option}: cannot read {path}: {error.strerror or error}") from None


def header(headers: Sequence[tuple[str, bytes]], name: str) -> bytes | None:
    """The last header of that name, which is the one that counts in Kafka."""
    for key, payload in reversed(headers):
        if key == name:
            return payload
    return None


def text_headers(headers: Sequence[tuple[str, bytes]], prefix: str) -> Mapping[str, str]:
    """The headers that begin with a prefix, without it; bytes that are no UTF-8 replaced."""
    return {
        key[len(prefix) :]: (payload or b"").decode("utf-8", "replace")
        for key, payload in headers
        if key.startswith(prefix)
    }
