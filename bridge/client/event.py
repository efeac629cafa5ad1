"""An event as a reader gets it, and which ones it wants. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from flashfeed.models.events import DataUpdated, FlashReady


class AnswerRemoved(msgspec.Struct, frozen=True):
    """A standing question is gone, with its session or alone (on the answers topic only)."""

    session_id: str
    query_id: int


Data: TypeAlias = FlashReady | DataUpdated | AnswerRemoved


class Event(msgspec.Struct, frozen=True):
    """One event. `id` is its CloudEvents id: the same cause has the same id. `place` is
    where it was read: `topic/partition/offset`, or the session's URL."""

    id: str
    data: Data
    place: str


@dataclass(frozen=True)
class Wanted:
    """Which events to deliver: of one session, of one question (by its name), only answers
    that `changed`. What is not said is not asked for."""

    session: str | None = None
    query: str | None = None
    changed: bool = False

    def __call__(self, data: Data) -> bool:
        """Whether such an event is wanted."""
        if self.session is not None and data.session_id != self.session:
            return False
        if isinstance(data, AnswerRemoved):
            return True  # it names no question: whoever holds its answer must hear of it
        if isinstance(data, DataUpdated):
            return self.query is None and not self.changed
        if self.query is not None and data.name != self.query:
            return False
        return data.changed or not self.changed


_Decoder: TypeAlias = msgspec.json.Decoder[FlashReady] | msgspec.json.Decoder[DataUpdated]

_DECODERS: Final[dict[str, _Decoder]] = {
    "flashfeed.flash_ready": msgspec.json.Decoder(FlashReady),
    "flashfeed.data_updated": msgspec.json.Decoder(DataUpdated),
}


def read_data(type_: str, value: bytes | str) -> FlashReady | DataUpdated:
    """The data of an event of that CloudEvents type; ValueError where it is none."""
    decoder = _DECODERS.get(type_)
    if decoder is None:
        raise ValueError(f"expected one of {', '.join(_DECODERS)}, got type {type_!r}")
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"no {type_}: {error}") from None


def removed_answer(key: bytes | None) -> AnswerRemoved:
    """What a tombstone on the answers topic says; ValueError where its key is none."""
    session_id, slash, query_id = (key or b"").decode(errors="replace").rpartition("/")
    if not slash or not query_id.isdecimal():
        raise ValueError(f"expected a key session/query, got {key!r}")
    return AnswerRemoved(session_id, int(query_id))
