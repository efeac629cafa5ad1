from __future__ import annotations

import pytest

from flashfeed.codecs.text_spatial import SpatialLine
from flashfeed.models.records import Spatial


def at(x: float, hdg: float = 90.0, spd: float = 1.2) -> Spatial:
    return Spatial(x=x, y=-4.52, z=0.0, spd=spd, hdg=hdg)


@pytest.mark.parametrize(
    ("record", "previous", "line"),
    [
        (at(12.3), None, "12.3 -4.52 0 1.2 E\n"),
        (at(13.5, spd=1.25), at(12.3), "13.5 -4.52 0 1.25 up E\n"),
        (at(12.3, spd=0), at(12.3), "12.3 -4.52 0 0 down E\n"),
        (at(12.3), at(12.3), "12.3 -4.52 0 1.2 same E\n"),
        (at(9.994), None, "9.99 -4.52 0 1.2 E\n"),
        (at(-12.345), None, "-12.3 -4.52 0 1.2 E\n"),
        (at(54321.6), None, "54322 -4.52 0 1.2 E\n"),
        (at(0, 359.96), None, "0 -4.52 0 1.2 N\n"),
        (at(0, -45), None, "0 -4.52 0 1.2 NW\n"),
        (at(0, 200.25), None, "0 -4.52 0 1.2 S\n"),
    ],
)
def test_lines(record: Spatial, previous: Spatial | None, line: str) -> None:
    codec = SpatialLine()
    memory = None if previous is None else codec.remember(None, previous)
    assert codec.render(record, memory) == line
