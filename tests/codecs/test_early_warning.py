"""The points of the NEWS2 chart at each of its borders, the bands, and what is missing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.early_warning import early_warning
from flashfeed.models.records import Vitals

WELL: dict[str, Any] = {
    "rr": 16.0,
    "spo2": 98.0,
    "o2": 0.0,
    "bp_s": 120.0,
    "hr": 70.0,
    "avpu": "A",
    "temp": 37.0,
}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rr", {8: 3, 9: 1, 11: 1, 12: 0, 20: 0, 21: 2, 24: 2, 25: 3, 8.4: 3, 8.5: 1}),
        ("spo2", {91: 3, 92: 2, 93: 2, 94: 1, 95: 1, 96: 0, 100: 0}),
        ("o2", {0: 0, 0.5: 2, 4: 2}),
        ("bp_s", {90: 3, 91: 2, 100: 2, 101: 1, 110: 1, 111: 0, 219: 0, 220: 3}),
        (
            "hr",
            {40: 3, 41: 1, 50: 1, 51: 0, 90: 0, 91: 1, 110: 1, 111: 2, 130: 2, 131: 3},
        ),
        ("avpu", {"A": 0, "C": 3, "V": 3, "P": 3, "U": 3}),
        (
            "temp",
            {35.0: 3, 35.1: 1, 36.0: 1, 36.1: 0, 38.0: 0, 38.1: 1, 39.0: 1, 39.1: 2, 35.04: 3},
        ),
    ],
)
def test_the_points_of_each_parameter(name: str, values: dict[Any, int]) -> None:
    for value, points in values.items():
        one = value if isinstance(value, str) else float(value)
        found = early_warning(Vitals(**WELL | {name: one}))
        assert (found.score, found.missing, found.confidence) == (points, (), 1.0), value
        assert found.name == "NEWS2"


@pytest.mark.parametrize(
    ("changed", "score", "band"),
    [
        ({}, 0, "low"),
        ({"hr": 111.0, "temp": 39.1}, 4, "low"),
        ({"rr": 25.0}, 3, "low-medium"),
        ({"hr": 111.0, "temp": 39.1, "spo2": 95.0}, 5, "medium"),
        ({"rr": 25.0, "hr": 131.0}, 6, "medium"),
        ({"rr": 25.0, "hr": 131.0, "spo2": 95.0}, 7, "high"),
        ({"avpu": "U", "rr": 25.0, "hr": 131.0, "spo2": 91.0, "bp_s": 80.0}, 15, "high"),
    ],
)
def test_the_bands(changed: dict[str, Any], score: int, band: str) -> None:
    found = early_warning(Vitals(**WELL | changed))
    assert (found.score, found.band) == (score, band)


def test_a_value_beyond_all_scales_has_points() -> None:
    for name in ("rr", "spo2", "bp_s", "hr", "temp"):
        for value in (1.8e307, -1.8e307):
            assert early_warning(Vitals(**WELL | {name: value})).score in (0, 2, 3)


def test_what_is_missing_is_said() -> None:
    found = early_warning(Vitals(hr=131.0, bp_s=120.0, spo2=98.0, temp=37.0))
    assert found == (3, "low-medium", ("rr", "o2", "avpu"), 4 / 7)
    assert found.name == "partial"


@given(st.sets(st.sampled_from(sorted(WELL)), min_size=1), st.sampled_from("ACVPU"))
def test_a_missing_parameter_lowers_the_confidence_and_never_raises_the_score(
    there: set[str], avpu: str
) -> None:
    every = WELL | {"avpu": avpu, "hr": 131.0, "o2": 2.0}
    whole = early_warning(Vitals(**every))
    part = early_warning(Vitals(**{name: every[name] for name in there}))
    assert part.score <= whole.score
    assert {*part.missing} == every.keys() - there
    assert (part.name == "NEWS2") == (part.confidence == 1.0) == (there == every.keys())
