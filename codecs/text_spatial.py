r"""Positions as lines: where, how fast and whether faster than before, which way.

    12.3 -4.52 0 1.2 E                      x, y, z in m, speed in m/s, the heading's sector
    13.5 -4.52 0 1.4 up E                   and which way the speed went
    1538 -410 15.6 5.11 down S

The sector is that of the compass, clockwise from north. A number has 3 significant digits, at
most 2 decimals, and never less than its whole: the finer ones, the names of the coordinates and
the heading's degrees cost tokens, and no question that was tried was answered better for them
(docs/CONFIDENCE.md).
"""

from __future__ import annotations

import re
from typing import Final

from ..models.records import Spatial, StreamType
from .text import NUMBER, Written, fixed_text, fixed_tolerance, match_line
from .text_facts import DOWN, SAME, UP, FactsMemory, fact, heading_sector, remembered

PLACES: Final = 2
"""Decimals of a number below 10; one less from there on, none from 100 on."""

_LINE: Final = re.compile(
    rf"(?P<x>{NUMBER}) (?P<y>{NUMBER}) (?P<z>{NUMBER}) (?P<spd>{NUMBER})"
    rf"(?: (?P<direction>{UP}|{DOWN}|{SAME}))? (?P<sector>[NESW]{{1,2}})\n"
)


class SpatialLine:
    """Position, speed and how it changed, heading with its sector."""

    name = "spatial"
    record_type: StreamType = "spatial"
    legend = (
        "Each line is one position: x, y, z in metres, speed in m/s and whether it went up or "
        "down, and the compass sector it heads to."
    )
    leaves_out = "the heading's degrees; the time"
    precision: Final = {
        **dict.fromkeys(
            ("x", "y", "z", "spd"), "3 significant digits or the whole, at most 2 decimals"
        ),
        "direction": "exact",
        "sector": "exact",
    }

    def remember(self, memory: FactsMemory | None, record: Spatial) -> FactsMemory:
        """How the speed went through the block."""
        return remembered(memory, record, self.record_type)

    def render(self, record: Spatial, memory: FactsMemory | None) -> str:
        """The record's line."""
        x, y, z, spd = (
            fixed_text(value, _places(value))
            for value in (record.x, record.y, record.z, record.spd)
        )
        direction = fact("direction", record, memory, self.record_type)
        course = "" if direction is None else f" {direction}"
        return f"{x} {y} {z} {spd}{course} {heading_sector(record.hdg)}\n"

    def parse(self, line: str, memory: FactsMemory | None) -> dict[str, float | str]:
        """The fields a line says."""
        groups = match_line(_LINE, line)
        words = ("direction", "sector")
        return {name: text if name in words else float(text) for name, text in groups.items()}

    def written(self, record: Spatial, memory: FactsMemory | None) -> dict[str, Written]:
        """The fields the record's line must say."""
        written = {
            name: Written(value, fixed_tolerance(value, _places(value)))
            for name in ("x", "y", "z", "spd")
            for value in (getattr(record, name),)
        }
        written["sector"] = Written(heading_sector(record.hdg))
        direction = fact("direction", record, memory, self.record_type)
        if direction is not None:
            written["direction"] = Written(str(direction))
        return written


def _places(value: float) -> int:
    size = abs(value)
    return PLACES if size < 10 else PLACES - 1 if size < 100 else 0
