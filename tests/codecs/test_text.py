"""How numbers and names are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.text import (
    fixed_text,
    name_text,
    name_value,
    number_text,
    short_text,
    short_tolerance,
    short_value,
    tolerance,
)

FINITE = st.floats(-1e300, 1e300)


@pytest.mark.parametrize(
    ("value", "kept", "text"),
    [
        (130.31, 2, "130.31"),
        (122.0, 2, "122.00"),
        (122.0, 0, "122"),
        (27.81, 2, "27.81"),
        (27.8149, 2, "27.815"),
        (1.08351, 2, "1.0835"),
        (0.000123456, 2, "0.00012346"),
        (67123.456, 2, "67123.46"),
        (258.0, 0, "258"),
        (0.0, 0, "0"),
        (0.0, 2, "0.00"),
        (-0.0, 0, "0"),
        (-4.5, 0, "-4.5"),
        (99.9996, 2, "100.00"),
        (1e15, 2, "1.0000e+15"),
        (-1.5e300, 0, "-1.5000e+300"),
    ],
)
def test_number_text(value: float, kept: int, text: str) -> None:
    assert number_text(value, kept) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(36.84, "+36.8"), (-0.04, "0"), (0.0, "+0"), (-2.0, "-2"), (0.04, "+0")],
)
def test_fixed_text_with_a_sign(value: float, text: str) -> None:
    assert fixed_text(value, 1, "+") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.5, "0.5"),
        (0.0123, "0.012"),
        (1, "1.0"),
        (9.96, "10"),
        (950, "950"),
        (954, "950"),
        (999.6, "1.0K"),
        (1234, "1.2K"),
        (12345, "12K"),
        (123456, "120K"),
        (9616100, "9.6M"),
        (36394700, "36M"),
        (999_600_000, "1.0B"),
        (5e13, "50T"),
        (1e15, "1.0e+15"),
    ],
)
def test_short_text(value: float, text: str) -> None:
    assert short_text(value) == text
    assert abs(short_value(text) - value) <= short_tolerance(value)


@given(FINITE)
def test_numbers_come_back_within_their_tolerance(value: float) -> None:
    assert abs(float(number_text(value)) - value) <= tolerance(value)


@given(FINITE.map(abs))
def test_short_numbers_come_back_within_their_tolerance(value: float) -> None:
    assert abs(short_value(short_text(value)) - value) <= short_tolerance(value)


@given(st.floats(0.01, 1e9))
def test_the_tolerance_is_as_documented(value: float) -> None:
    assert tolerance(value) <= 0.00501
    assert tolerance(value) <= max(0.00501 if value >= 100 else 0, value * 5.0001e-5)
    assert short_tolerance(value) <= value * 0.050001


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("AAPL", "AAPL"),
        ("BTC-USDT", "BTC-USDT"),
        ("cpu.usage_idle", "cpu.usage_idle"),
        ("Küche", "Küche"),
        ("600519.SS", '"600519.SS"'),
        ("kitchen temp", '"kitchen temp"'),
        ('say "x"', '"say \\"x\\""'),
        ("a\nb", '"a\\u000ab"'),
        ("a\u2028b", '"a\\u2028b"'),
        ("\ud800", '"\\ud800"'),
        ("\U000e0001", '"\\U000e0001"'),
        ("", '""'),
    ],
)
def test_name_text(name: str, text: str) -> None:
    assert name_text(name) == text
    assert name_value(text) == name


@given(st.text())
def test_any_name_is_printable_and_comes_back(name: str) -> None:
    text = name_text(name)
    assert text.isprintable()
    assert name_value(text) == name
