from __future__ import annotations

import pytest

from flashfeed.codecs.text_vitals import VitalsLine
from flashfeed.models.records import Vitals

FULL = Vitals(hr=82, bp_s=120, bp_d=80, spo2=97, temp=36.8, rr=16, o2=0, avpu="A")


@pytest.mark.parametrize(
    ("record", "previous", "line"),
    [
        (FULL, None, "hr 82 bp 120/80 spo2 97 temp 36.8 rr 16 air alert\n"),
        (FULL, FULL, "hr 82 bp 120/80 spo2 97 temp 36.8 rr 16 air alert\n"),
        (Vitals(hr=87, bp_s=118, spo2=95, o2=2, avpu="C"), FULL,
         "hr 87 up bp 118/- spo2 95 down o2 2 confused\n"),
        (Vitals(bp_d=61.5), None, "bp -/61.5\n"),
        (Vitals(temp=36.84), FULL, "temp 36.8\n"),
        (Vitals(avpu="U"), None, "unresponsive\n"),
        (Vitals(rr=12), Vitals(hr=80), "rr 12\n"),
    ],
)  # fmt: skip
def test_lines(record: Vitals, previous: Vitals | None, line: str) -> None:
    assert VitalsLine().render(record, previous) == line


def test_air_is_no_oxygen() -> None:
    assert VitalsLine().parse("hr 80 air\n", None) == {"hr": 80.0, "o2": 0.0}
