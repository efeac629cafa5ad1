"""Who owns which partition of `flashfeed.records`, as `flashfeed.owners` says it.

The topic's key is the partition's number, its value an `Owner`. A worker claims a
partition before it reads the partition's changelog (`live` false), and says so when the
sessions are rebuilt (`live` true). `epoch` rises by one with each claim.
"""

from __future__ import annotations

import msgspec
import orjson

from .errors import DecodeFault
from .views import SessionView


class Owner(msgspec.Struct, frozen=True):
    """A partition's owner: the name of the worker's process, and where its bridge is ("":
    it has none)."""

    partition: int
    epoch: int
    worker: str
    url: str
    live: bool


class OwnedSessions(msgspec.Struct, frozen=True):
    """The sessions of the partitions that are live at one worker."""

    partitions: tuple[int, ...]
    sessions: tuple[SessionView, ...]


_owner_decoder = msgspec.json.Decoder(Owner)
_sessions_decoder = msgspec.json.Decoder(OwnedSessions)


def encode_owner(owner: Owner) -> bytes:
    """An owner as the JSON value that is written to Kafka."""
    return orjson.dumps(msgspec.to_builtins(owner))


def decode_owner(value: bytes) -> Owner:
    """The owner in a Kafka value; raises DecodeFault where it is none."""
    try:
        return _owner_decoder.decode(value)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DecodeFault(f"not an owner: {error}") from None


def encode_sessions(sessions: OwnedSessions) -> bytes:
    """A worker's sessions as the JSON that another worker asks for."""
    return msgspec.json.encode(sessions)


def decode_sessions(body: bytes) -> OwnedSessions:
    """A worker's sessions; raises DecodeFault where the body is none."""
    try:
        return _sessions_decoder.decode(body)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DecodeFault(f"not a worker's sessions: {error}") from None
