from __future__ import annotations

import pytest

from flashfeed.codecs.text_iot import IotLine
from flashfeed.models.records import Iot


def reading(val: float, sid: str = "glucose") -> Iot:
    return Iot(sid=sid, val=val, lo=70.0, hi=180.0)


@pytest.mark.parametrize(
    ("record", "previous", "line"),
    [
        (reading(258), None, "glucose 258 high\n"),
        (reading(260), reading(258), "260 +2 high\n"),
        (reading(180), reading(181.5), "180 -1.5\n"),
        (reading(70), reading(70), "70 +0\n"),
        (reading(69.99), reading(70), "69.99 -0.01 low\n"),
        (reading(100, "isig"), reading(100), "isig 100\n"),
        (Iot(sid="t", val=-4.25), Iot(sid="t", val=-4.0), "-4.25 -0.25\n"),
        (Iot(sid="t", val=1e6), Iot(sid="t", val=1.00001), "1000000 +999999\n"),
        (Iot(sid="t", val=98.37563), None, "t 98.376\n"),
        (Iot(sid="5", val=-6.0), None, '"5" -6\n'),
        (Iot(sid="x\n9 high", val=1.0), None, '"x\\u000a9 high" 1\n'),
    ],
)
def test_lines(record: Iot, previous: Iot | None, line: str) -> None:
    assert IotLine().render(record, previous) == line


def test_a_change_beyond_all_numbers_is_left_out() -> None:
    line = IotLine().render(Iot(sid="t", val=-1.5e308), Iot(sid="t", val=1.5e308))
    assert line == "t -1.5000e+308\n"


def test_a_sensor_and_a_value_are_not_a_value_and_a_change() -> None:
    assert IotLine().parse('"5" -6\n', None) == {"sid": "5", "val": -6.0}
    assert IotLine().parse("5 -6\n", None) == {"val": 5.0, "change": -6.0}
