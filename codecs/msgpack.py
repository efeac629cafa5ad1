"""MessagePack, read by msgspec: one value a message.

Timestamps (extension -1) come out as datetimes, which `path:iso` takes; other extensions
and binary values as bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..models.errors import DecodeFault
from .codec import Codec, Options, Outside
from .parts import Source


class MsgpackOptions(Options, frozen=True, kw_only=True):
    """None."""


def build(options: MsgpackOptions, outside: Outside) -> Codec:
    """A codec of one MessagePack value a message."""
    decoder = msgspec.msgpack.Decoder(ext_hook=lambda _code, data: bytes(data))

    def decode(payload: bytes | None, source: Source) -> Sequence[Any]:
        if not payload:
            return ()
        try:
            return (decoder.decode(payload),)
        # A map's key may be of a type that cannot be one, a timestamp beyond any calendar.
        except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as bad:
            raise DecodeFault(f"expected MessagePack, got a fault: {bad}") from None

    return decode
