from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs import casts
from flashfeed.codecs.casts import BadValue

NAN, INF = math.nan, math.inf
REFUSED = object()

TABLE: list[tuple[str, Any, Any]] = [
    ("number", 1, 1.0),
    ("number", -2.5, -2.5),
    ("number", "1.5", 1.5),
    ("number", "-1e3", -1000.0),
    ("number", ".5", 0.5),
    ("number", True, REFUSED),
    ("number", None, REFUSED),
    ("number", NAN, REFUSED),
    ("number", INF, REFUSED),
    ("number", "nan", REFUSED),
    ("number", "inf", REFUSED),
    ("number", "1e400", REFUSED),
    ("number", 10**400, REFUSED),
    ("number", "1_000", REFUSED),
    ("number", " 1", REFUSED),
    ("number", "", REFUSED),
    ("number", "٣", REFUSED),
    ("number", [1], REFUSED),
    ("integer", 3, 3),
    ("integer", 3.0, 3),
    ("integer", "-7", -7),
    ("integer", 3.5, REFUSED),
    ("integer", "3.0", REFUSED),
    ("integer", False, REFUSED),
    ("integer", INF, REFUSED),
    ("text", "a", "a"),
    ("text", 5, "5"),
    ("text", 1.5, "1.5"),
    ("text", True, REFUSED),
    ("text", NAN, REFUSED),
    ("text", 10**100, REFUSED),
    ("text", {}, REFUSED),
    ("flag", True, True),
    ("flag", "TRUE", True),
    ("flag", "false", False),
    ("flag", 1, REFUSED),
    ("flag", "yes", REFUSED),
    ("iso_time", "1970-01-01T00:00:01Z", 1.0),
    ("iso_time", "1970-01-01T00:00:00.123456789Z", 0.123456),
    ("iso_time", "1970-01-01T01:00:00+01:00", 0.0),
    ("iso_time", "1970-01-01", 0.0),
    ("iso_time", "yesterday", REFUSED),
    ("iso_time", 1, REFUSED),
    ("session_key", "", REFUSED),
]


@pytest.mark.parametrize(("cast", "value", "result"), TABLE)
def test_casts(cast: str, value: Any, result: Any) -> None:
    run = getattr(casts, cast)
    if result is REFUSED:
        with pytest.raises(BadValue):
            run(value)
    else:
        assert run(value) == result
        assert type(run(value)) is type(result)


@pytest.mark.parametrize(
    ("unit", "value", "result"),
    [
        ("s", 951868800, 951868800.0),
        ("s", "951868800.5", 951868800.5),
        ("ms", 951868800123, 951868800.123),
        ("us", 951868800123456, 951868800.123456),
        ("ns", 951868800000000000, 951868800.0),
        ("iso", "2000-03-01T00:00:00Z", 951868800.0),
    ],
)
def test_times(unit: Any, value: Any, result: float) -> None:
    assert casts.time_cast(unit)(value) == pytest.approx(result, abs=1e-6)


def test_a_unit_mistaken_for_another_is_refused() -> None:
    with pytest.raises(BadValue, match="unit"):
        casts.time_cast("s")(951868800123)


@pytest.mark.parametrize(
    ("value", "wanted", "result"),
    [("a", "a", True), (1, "1", True), (1.0, "1", True), (True, "1", False), (1, "true", False),
     (True, "true", True), (None, "null", False), ("1", "1.0", False), ([], "", False)],
)  # fmt: skip
def test_selects(value: Any, wanted: str, result: bool) -> None:
    assert casts.selects(value, wanted) is result


def test_same_scalar_keeps_booleans_from_numbers() -> None:
    assert casts.same_scalar(1, 1.0)
    assert not casts.same_scalar(True, 1)
    assert casts.same_scalar(True, True)


def test_the_last_header_counts() -> None:
    headers = [("a", b"1"), ("b", b"2"), ("a", b"3")]
    assert casts.header_text(headers, "a") == "3"
    assert casts.header_text(headers, "x") is None
    with pytest.raises(BadValue):
        casts.header_text([("a", b"\xff")], "a")


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(ANY | st.just(10**5000))
def test_show_is_short_and_on_one_line(value: Any) -> None:
    shown = casts.show(value)
    assert len(shown) < 80
    assert "\n" not in shown


@given(ANY)
def test_a_cast_gives_a_value_or_bad_value(value: Any) -> None:
    for cast in (casts.number, casts.integer, casts.text, casts.flag, casts.iso_time):
        try:
            result = cast(value)  # type: ignore[operator]
        except BadValue:
            continue
        assert not isinstance(result, float) or math.isfinite(result)


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1900, 1, 1)))
def test_iso_round_trip(moment: datetime) -> None:
    assert casts.iso_time(moment.isoformat()) == moment.timestamp()
