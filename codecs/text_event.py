r"""Events as lines: what happened, where, how severe, how often.

    login_failed auth-db sev 3 x5
    login_failed auth-db sev 4 +1 x2     severity rose by 1 since the record before

The change of severity stands only where it did change. The count is left out where it is 1.
"""

from __future__ import annotations

import re
from typing import Final

from ..models.records import Event, StreamType
from .text import NAME, RefersToPrevious, Written, match_line, name_text, name_value

_LINE: Final = re.compile(
    rf"(?P<cat>{NAME}) (?P<src>{NAME}) sev (?P<sev>-?\d+)(?: (?P<sev_change>[+-]\d+))?"
    r"(?: x(?P<cnt>-?\d+))?\n"
)


class EventLine(RefersToPrevious):
    """Category, source, severity, count."""

    name = "event"
    record_type: StreamType = "event"
    legend = (
        "Each line is one event: category, source, severity with its change, and how often (x)."
    )
    leaves_out = "the time"
    precision: Final = dict.fromkeys(("src", "cat", "sev", "sev_change", "cnt"), "exact")

    def render(self, record: Event, previous: Event | None) -> str:
        """The record's line."""
        line = f"{name_text(record.cat)} {name_text(record.src)} sev {record.sev}"
        if previous is not None and previous.sev != record.sev:
            line += f" {record.sev - previous.sev:+d}"
        if record.cnt != 1:
            line += f" x{record.cnt}"
        return line + "\n"

    def parse(self, line: str, previous: Event | None) -> dict[str, float | str]:
        """The fields a line says."""
        groups = match_line(_LINE, line)
        fields: dict[str, float | str] = {
            "cat": name_value(groups["cat"]),
            "src": name_value(groups["src"]),
            "sev": int(groups["sev"]),
            "cnt": int(groups.get("cnt", "1")),
        }
        if "sev_change" in groups:
            fields["sev_change"] = int(groups["sev_change"])
        return fields

    def written(self, record: Event, previous: Event | None) -> dict[str, Written]:
        """The fields the record's line must say."""
        written = {
            "cat": Written(record.cat),
            "src": Written(record.src),
            "sev": Written(record.sev),
            "cnt": Written(record.cnt),
        }
        if previous is not None and previous.sev != record.sev:
            written["sev_change"] = Written(record.sev - previous.sev)
        return written


class TextOrEventLine(EventLine):
    """The same, for a session that is mostly pushed texts, each a line as it came."""

    name = "text"
    legend = (
        "Each line is a text, or an event: category, source, severity with its change, and "
        "how often (x)."
    )
