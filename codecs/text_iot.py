r"""Readings as lines: the value, its change, and a word where it is beyond a limit.

    glucose 258 high        the sensor opens the line where it is not the one before
    260 +2 high             the same sensor again: value and change, no name
    181 -3
    68 -4 low

The change is against the same sensor's reading before and stands only where there is one.
`high` and `low` stand where the record has the limit and the value is beyond it.
"""

from __future__ import annotations

import math
import re
from typing import Final

from ..models.records import Iot, StreamType
from .text import (
    NAME,
    NUMBER,
    SIGNED,
    RefersToPrevious,
    Written,
    decimals,
    fixed_text,
    fixed_tolerance,
    match_line,
    name_text,
    name_value,
    number_text,
    tolerance,
)

_LINE: Final = re.compile(
    rf"(?:(?P<sid>{NAME}) )?(?P<val>{NUMBER})(?: (?P<change>{SIGNED}))?"
    r"(?: (?P<limit>high|low))?\n"
)


class IotLine(RefersToPrevious):
    """Sensor where it is another one, value, change, limit."""

    name = "iot"
    record_type: StreamType = "iot"
    legend = (
        "Each line is one reading: the sensor where it is another one, the value, its change, "
        "and high or low where it is beyond a limit."
    )
    leaves_out = "the limits themselves; the time"
    precision: Final = {
        "sid": "exact",
        "val": "5 significant digits, at least 2 decimals",
        "change": "the decimals of the value",
        "limit": "exact",
    }

    def render(self, record: Iot, previous: Iot | None) -> str:
        """The record's line."""
        change = _change(record, previous)
        parts = [] if change is not None else [name_text(record.sid)]
        parts.append(number_text(record.val))
        if change is not None:
            parts.append(_change_text(change, record.val))
        limit = _limit(record)
        if limit is not None:
            parts.append(limit)
        return " ".join(parts) + "\n"

    def parse(self, line: str, previous: Iot | None) -> dict[str, float | str]:
        """The fields a line says."""
        groups = match_line(_LINE, line)
        fields: dict[str, float | str] = {"val": float(groups["val"])}
        if "change" in groups:
            fields["change"] = float(groups["change"])
        if "sid" in groups:
            fields["sid"] = name_value(groups["sid"])
        if "limit" in groups:
            fields["limit"] = groups["limit"]
        return fields

    def written(self, record: Iot, previous: Iot | None) -> dict[str, Written]:
        """The fields the record's line must say."""
        written = {"val": Written(record.val, tolerance(record.val))}
        change = _change(record, previous)
        if change is None:
            written["sid"] = Written(record.sid)
        else:
            written["change"] = Written(change, fixed_tolerance(change, decimals(record.val)))
        limit = _limit(record)
        if limit is not None:
            written["limit"] = Written(limit)
        return written


def _change(record: Iot, previous: Iot | None) -> float | None:
    if previous is None or previous.sid != record.sid:
        return None
    change = record.val - previous.val
    return change if math.isfinite(change) else None


def _change_text(change: float, value: float) -> str:
    text = fixed_text(change, decimals(value), "+")
    return text if text[0] in "+-" else f"+{text}"


def _limit(record: Iot) -> str | None:
    if record.hi is not None and record.val > record.hi:
        return "high"
    if record.lo is not None and record.val < record.lo:
        return "low"
    return None
