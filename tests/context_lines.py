"""What records are in a session's context, by the text codec itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flashfeed.codecs.registry import text_codec
from flashfeed.models.records import make_record


def lines_of(stream_type: str, records: Iterable[dict[str, Any]]) -> list[str]:
    """The lines of records of a type, the first of them without one before it."""
    codec = text_codec("", stream_type)
    memory, lines = None, []
    for fields in records:
        record = make_record(stream_type, fields)
        lines.append(codec.render(record, memory))
        memory = codec.remember(memory, record)
    return lines
