"""Units and decimals: what a source's number is in the field's own unit."""

from __future__ import annotations

import base64
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.casts import BadValue
from flashfeed.codecs.mapping import Mapping, Source
from flashfeed.codecs.units import UNITS, decimal_number, in_unit, unit_cast, units_of
from flashfeed.models.errors import ConfigError
from flashfeed.models.feed import MappingSpec

SOURCE = Source(b"k", "t", 0)


@pytest.mark.parametrize(
    ("model", "field", "unit", "value", "expected"),
    [
        ("vitals", "temp", "degF", 98.6, 37.0),
        ("vitals", "temp", "K", "310.15", 37.0),
        ("vitals", "bp_s", "kPa", 16, 120.00987),
        ("vitals", "spo2", "1", 0.97, 97.0),
        ("vitals", "hr", "Hz", 1.2, 72.0),
        ("spatial", "spd", "km/h", 36, 10.0),
        ("spatial", "hdg", "rad", 3.141592653589793, 180.0),
        ("trade", "p", "pennies", 512, 5.12),
        ("ohlcv", "o", 1e-9, 3720250000000, 3720.25),
        ("iot", "val", "degF", 32, 0.0),
        ("ohlcv", "o", "decimal:2", "Oqo=", 150.18),
    ],
)
def test_units(model: str, field: str, unit: str | float, value: object, expected: float) -> None:
    _, cast = unit_cast(model, field, unit)
    assert cast(value) == pytest.approx(expected, abs=1e-4)


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=4, min_value=-(10**12), max_value=10**12
    )
)
def test_a_decimal_comes_back_as_it_was_written(value: Decimal) -> None:
    unscaled = int(value.scaleb(4))
    data = unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)
    assert decimal_number(data, 4) == float(value)
    assert decimal_number(base64.b64encode(data).decode(), 4) == float(value)


@pytest.mark.parametrize("value", ["", "no base64!", b"", b"x" * 65, 3, None, "é"])
def test_what_is_no_decimal_is_a_bad_value(value: object) -> None:
    with pytest.raises(BadValue):
        decimal_number(value, 2)


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ({"temp": "kPa"}, "mapping.units.temp: no unit 'kPa' for vitals.temp"),
        ({"temp": "degf"}, "did you mean 'degF'"),
        ({"temp": 0}, "not 0"),
        ({"temp": "decimal:x"}, "decimal:N"),
        ({"tmp": "degF"}, "did you mean 'temp'"),
        ({"avpu": "%"}, "a field that is a number"),
    ],
)
def test_bad_units_are_config_errors(units: dict[str, str | float], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Mapping(MappingSpec(model="vitals", key="@key", map={"temp": "t"}, units=units))
    assert said in str(caught.value)


def test_a_fault_names_the_unit() -> None:
    spec = MappingSpec(model="vitals", key="@key", map={"temp": "t"}, units={"temp": "degF"})
    [fault] = Mapping(spec)({"t": "warm"}, SOURCE).faults
    assert fault.detail == 'expected number, got "warm" at $.t'


def test_every_unit_of_a_field_is_of_its_dimension() -> None:
    assert set(units_of("vitals", "temp")) == {"Cel", "C", "degC", "[degF]", "degF", "F", "K"}
    assert set(units_of("iot", "val")) == set(UNITS)
    with pytest.raises(BadValue, match=r"a unit of vitals\.hr"):
        in_unit("vitals", "hr", 60, "mm[Hg]")
