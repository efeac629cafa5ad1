from __future__ import annotations

import pytest

from flashfeed.codecs.text_spatial import SpatialLine
from flashfeed.models.records import Spatial


def at(x: float, hdg: float = 90.0) -> Spatial:
    return Spatial(x=x, y=-4.5, z=0.0, spd=1.2, hdg=hdg)


@pytest.mark.parametrize(
    ("record", "previous", "line"),
    [
        (at(12.3), None, "x12.3 y-4.5 z0 1.2m/s 90 E\n"),
        (at(13.5), at(12.3), "x13.5 y-4.5 z0 1.2m/s 90 E moved 1.2\n"),
        (at(12.3), at(12.3), "x12.3 y-4.5 z0 1.2m/s 90 E moved 0\n"),
        (at(0, 359.96), None, "x0 y-4.5 z0 1.2m/s 360 N\n"),
        (at(0, -45), None, "x0 y-4.5 z0 1.2m/s -45 NW\n"),
        (at(0, 200.25), None, "x0 y-4.5 z0 1.2m/s 200.2 S\n"),
    ],
)
def test_lines(record: Spatial, previous: Spatial | None, line: str) -> None:
    assert SpatialLine().render(record, previous) == line
