"""JSON bytes to a value.

An absent or empty payload is a tombstone and decodes to None, which a mapping skips;
the JSON text `null` means the same. Anything else that is not JSON is a DecodeFault
with its position. The standard library's json is not used (and not shadowed: this
module is `flashfeed.codecs.json`).
"""

from __future__ import annotations

from typing import Any

import orjson

from ..models.errors import DecodeFault

_EXCERPT_CHARS = 24


def decode(payload: bytes | None) -> Any:
    """The value in a payload; None for a tombstone. Raises DecodeFault."""
    if not payload:
        return None
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise DecodeFault(
            f"expected JSON, got a fault at line {error.lineno} column {error.colno} "
            f"(character {error.pos} of {len(error.doc)}): {error.msg.split(':')[0]}, "
            f"near {_excerpt(payload, error.pos)}"
        ) from None


def _excerpt(payload: bytes, position: int) -> str:
    start = max(0, position - _EXCERPT_CHARS // 2)
    # The position counts characters; near a fault in UTF-8 text that is close enough.
    return ascii(payload[start : start + _EXCERPT_CHARS].decode("utf-8", "replace"))
