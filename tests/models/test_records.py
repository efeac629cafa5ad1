from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.models.errors import ValidationFault
from flashfeed.models.records import (
    RECORD_TYPES,
    Event,
    Iot,
    Ohlcv,
    Record,
    Spatial,
    Vitals,
    make_record,
    record_fields,
)

CANDLE: dict[str, Any] = {"o": 1.5, "h": 2.0, "l": 1.0, "c": 1.75, "v": 10.0}
GOOD: list[tuple[str, dict[str, Any], Record]] = [
    ("ohlcv", CANDLE, Ohlcv(**CANDLE)),
    ("ohlcv", {**CANDLE, "h": 2, "timestamp": 5}, Ohlcv(**CANDLE, timestamp=5.0)),
    ("ohlcv", {**CANDLE, "sym": "A"}, Ohlcv(**CANDLE, sym="A")),
    ("iot", {"sid": "t", "val": 1}, Iot(sid="t", val=1.0)),
    ("iot", {"sid": "t", "val": 1.0, "lo": None}, Iot(sid="t", val=1.0)),
    ("vitals", {"hr": 80}, Vitals(hr=80.0)),
    ("vitals", {"avpu": "C", "o2": 0}, Vitals(avpu="C", o2=0.0)),
    ("spatial", dict.fromkeys(("x", "y", "z", "spd", "hdg"), 0.5),
     Spatial(x=0.5, y=0.5, z=0.5, spd=0.5, hdg=0.5)),
    ("event", {"src": "a", "sev": 1, "cat": "b", "cnt": 2}, Event(src="a", sev=1, cat="b", cnt=2)),
]  # fmt: skip


@pytest.mark.parametrize(("stream_type", "fields", "record"), GOOD)
def test_makes_typed_records(stream_type: str, fields: dict[str, Any], record: Record) -> None:
    made = make_record(stream_type, fields)
    assert made == record
    assert isinstance(made, RECORD_TYPES[stream_type])
    for name in made.__struct_fields__:
        value = getattr(made, name)
        assert not isinstance(value, int) or stream_type == "event"


@pytest.mark.parametrize(
    ("stream_type", "fields", "path", "said"),
    [
        ("ohlcv", {"o": 1.0, "h": 1.0, "l": 1.0, "v": 1.0}, "$", "`c`"),
        ("ohlcv", {**CANDLE, "c": "1.75"}, "$.c", "got `str`"),
        ("ohlcv", {**CANDLE, "c": True}, "$.c", "got `bool`"),
        ("ohlcv", {**CANDLE, "c": None}, "$.c", "got `null`"),
        ("ohlcv", {**CANDLE, "x": 1}, "$", "`x`"),
        ("ohlcv", {**CANDLE, "h": 0.5}, "$", "expected high >= low, got h=0.5 l=1.0"),
        ("ohlcv", {**CANDLE, "v": -1}, "$", "expected volume >= 0, got v=-1"),
        ("ohlcv", {**CANDLE, "c": math.nan}, "$", "finite number, got nan in field c"),
        ("iot", {"sid": "t", "val": math.inf}, "$", "finite number, got inf in field val"),
        ("iot", {"sid": "t", "val": 1.0, "timestamp": -math.inf}, "$", "field timestamp"),
        ("iot", {"sid": 5, "val": 1.0}, "$.sid", "got `int`"),
        ("vitals", {}, "$", "expected at least one of hr"),
        ("vitals", {"timestamp": 1.0}, "$", "expected at least one of hr"),
        ("vitals", {"avpu": "alert"}, "$.avpu", "Invalid enum value 'alert'"),
        ("event", {"src": "a", "sev": 1.5, "cat": "b", "cnt": 1}, "$.sev", "got `float`"),
    ],
)
def test_faults_name_the_field(
    stream_type: str, fields: dict[str, Any], path: str, said: str
) -> None:
    with pytest.raises(ValidationFault) as caught:
        make_record(stream_type, fields)
    assert caught.value.path == path
    assert said in str(caught.value)
    assert caught.value.reason == "validate"
    assert caught.value.status == 400


@pytest.mark.parametrize(("stream_type", "fields", "record"), GOOD)
def test_fields_make_the_same_record_again(
    stream_type: str, fields: dict[str, Any], record: Record
) -> None:
    again = record_fields(record)
    assert None not in again.values()
    assert make_record(stream_type, again) == record


@given(
    st.sampled_from(sorted(RECORD_TYPES)),
    st.dictionaries(
        st.sampled_from([*"ohlcvxyz", "sid", "val", "hr", "avpu", "spd", "hdg", "src", "sev"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    ),
)
def test_any_fields_make_a_record_or_a_validation_fault(
    stream_type: str, fields: dict[str, Any]
) -> None:
    try:
        record = make_record(stream_type, fields)
    except ValidationFault as fault:
        assert str(fault)
        return
    for name in record.__struct_fields__:
        value = getattr(record, name)
        assert not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize("time", [1_700_000_000_000, -8e10, float("inf")])
def test_a_time_that_no_calendar_has_is_refused(time: float) -> None:
    with pytest.raises(ValidationFault, match=r"timestamp|finite"):
        make_record("iot", {"sid": "a", "val": 1.0, "timestamp": time})


@pytest.mark.parametrize(
    ("stream_type", "fields"),
    [
        ("event", {"src": "a", "sev": 10**30, "cat": "b", "cnt": 1}),
        ("event", {"src": "a" * 201, "sev": 1, "cat": "b", "cnt": 1}),
        ("iot", {"sid": "s" * 201, "val": 1.0}),
    ],
)
def test_what_would_not_fit_a_message_is_refused(stream_type: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationFault):
        make_record(stream_type, fields)


def test_an_unknown_field_is_told_which_ones_there_are() -> None:
    with pytest.raises(ValidationFault, match=r"unknown field `sid`; .* event has src, "):
        make_record("event", {"sid": 1})
