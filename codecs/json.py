"""JSON and JSON Lines.

An absent or empty payload is a tombstone and has no value; the JSON text `null` is None,
which a mapping skips. Anything else that is not JSON is a DecodeFault with its position;
a bad line leaves the other lines alone. A schema registry's frame before the JSON is
taken off; the schema is not asked for, because the mapping checks what it needs. The
standard library's json is not used (and not shadowed: this module is
`flashfeed.codecs.json`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import orjson

from ..models.errors import DecodeFault
from .codec import Codec, Options, Outside
from .framing import UNFRAME
from .parts import Source

_EXCERPT_CHARS = 24


class JsonOptions(Options, frozen=True, kw_only=True):
    """`framing`: whose serializers put a schema id before the JSON, if any did."""

    framing: Literal["none", "confluent", "apicurio", "apicurio_v2"] = "none"


class JsonLinesOptions(Options, frozen=True, kw_only=True):
    """None."""


def build(options: JsonOptions, outside: Outside) -> Codec:
    """A codec of one JSON value a message."""
    if options.framing == "none":
        return _one
    unframe = UNFRAME[options.framing]

    def framed(payload: bytes | None, source: Source) -> Sequence[Any]:
        if not payload:
            return ()
        frame = unframe(payload, source.headers)
        return (decode(payload if frame.in_header else payload[frame.ahead_at :]),)

    return framed


def build_lines(options: JsonLinesOptions, outside: Outside) -> Codec:
    """A codec of one JSON value a line; empty lines are passed over."""
    return _lines


def _one(payload: bytes | None, source: Source) -> Sequence[Any]:
    return (decode(payload),) if payload else ()


def _lines(payload: bytes | None, source: Source) -> Sequence[Any]:
    values: list[Any] = []
    for place, line in enumerate((payload or b"").split(b"\n")):
        if not line.strip():
            continue
        try:
            values.append(decode(line))
        except DecodeFault as fault:
            values.append(DecodeFault(f"line {place + 1}: {fault}", f"$[{place}]"))
    return values


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
