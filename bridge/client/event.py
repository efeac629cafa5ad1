"""An event as a reader gets it, and which ones it wants. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from flashfeed.models.event_format import decode_event
from flashfeed.models.event_schemas import EVENT_TYPES
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


_NAMES: Final = {f"flashfeed.{name}": name for name in EVENT_TYPES}


def read_data(
    type_: str, value: bytes | str, content_type: str = "application/json"
) -> FlashReady | DataUpdated:
    """The data of an event of that CloudEvents type; ValueError where it is none."""
    name = _NAMES.get(type_)
    if name is None:
        raise ValueError(f"expected one of {', '.join(_NAMES)}, got type {type_!r}")
    return decode_event(name, value, content_type)


def removed_answer(key: bytes | None) -> AnswerRemoved:
    """What a tombstone on the answers topic says; ValueError where its key is none."""
    session_id, slash, query_id = (key or b"").decode(errors="replace").rpartition("/")
    if not slash or not query_id.isdecimal():
        raise ValueError(f"expected a key session/query, got {key!r}")
    return AnswerRemoved(session_id, int(query_id))
