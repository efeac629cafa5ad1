r"""Positions as lines: where, how fast, which way, and how far from the record before.

    x12.3 y-4.5 z0 1.2m/s 90 E
    x13.5 y-4.5 z0 1.2m/s 90 E moved 1.2

Metres and degrees; the letters are the compass sector of the heading, clockwise from north.
"""

from __future__ import annotations

import math
import re
from typing import Final

from ..models.records import Spatial, StreamType
from .text import NUMBER, RefersToPrevious, Written, fixed_text, fixed_tolerance, match_line

PLACES: Final = 2
HEADING_PLACES: Final = 1
SECTORS: Final = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")

_LINE: Final = re.compile(
    rf"x(?P<x>{NUMBER}) y(?P<y>{NUMBER}) z(?P<z>{NUMBER}) (?P<spd>{NUMBER})m/s "
    rf"(?P<hdg>{NUMBER}) (?P<sector>[NESW]{{1,2}})(?: moved (?P<moved>{NUMBER}))?\n"
)


class SpatialLine(RefersToPrevious):
    """Position, speed, heading with its sector, distance moved."""

    name = "spatial"
    record_type: StreamType = "spatial"
    legend = (
        "Each line is one position: x, y, z in metres, speed, heading in degrees with its "
        "compass sector, and the distance moved in metres since the line before."
    )
    leaves_out = "the time"
    precision: Final = {
        **dict.fromkeys(("x", "y", "z", "spd", "moved"), "2 decimals"),
        "hdg": "1 decimal",
        "sector": "exact",
    }

    def render(self, record: Spatial, previous: Spatial | None) -> str:
        """The record's line."""
        x, y, z, spd = (fixed_text(v, PLACES) for v in (record.x, record.y, record.z, record.spd))
        hdg = fixed_text(record.hdg, HEADING_PLACES)
        moved = _moved(record, previous)
        end = "" if moved is None else f" moved {fixed_text(moved, PLACES)}"
        return f"x{x} y{y} z{z} {spd}m/s {hdg} {heading_sector(record.hdg)}{end}\n"

    def parse(self, line: str, previous: Spatial | None) -> dict[str, float | str]:
        """The fields a line says."""
        groups = match_line(_LINE, line)
        return {name: text if name == "sector" else float(text) for name, text in groups.items()}

    def written(self, record: Spatial, previous: Spatial | None) -> dict[str, Written]:
        """The fields the record's line must say."""
        written = {
            name: Written(value, fixed_tolerance(value, PLACES))
            for name in ("x", "y", "z", "spd")
            for value in (getattr(record, name),)
        }
        written["hdg"] = Written(record.hdg, fixed_tolerance(record.hdg, HEADING_PLACES))
        written["sector"] = Written(heading_sector(record.hdg))
        moved = _moved(record, previous)
        if moved is not None:
            written["moved"] = Written(moved, fixed_tolerance(moved, PLACES))
        return written


def heading_sector(heading: float) -> str:
    """The compass sector of a heading in degrees."""
    return SECTORS[round(heading % 360 / 45) % 8]


def _moved(record: Spatial, previous: Spatial | None) -> float | None:
    if previous is None:
        return None
    moved = math.dist((record.x, record.y, record.z), (previous.x, previous.y, previous.z))
    return moved if math.isfinite(moved) else None
