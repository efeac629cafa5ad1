"""Pivots: one record of items that carry a name each."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.mapping import Mapping, Source
from flashfeed.models.errors import ConfigError
from flashfeed.models.feed import MappingSpec, PivotSpec
from flashfeed.models.records import Vitals

SOURCE = Source(b"p1", "obx", 5_000)
SPEC = MappingSpec(
    model="vitals",
    key="@key",
    pivot=PivotSpec(items="obx|.", name="code", value="value", unit="unit"),
    map={"hr": "HR", "spo2": "SPO2-F|SPO2", "temp": "T", "avpu": "AVPU"},
)


def item(code: Any, value: Any, unit: Any = None) -> dict[str, Any]:
    return {"code": code, "value": value, "unit": unit}


def one(value: Any) -> Vitals:
    [record] = Mapping(SPEC)(value, SOURCE).records
    assert isinstance(record.record, Vitals)
    return record.record


def test_items_become_the_fields_of_one_record() -> None:
    record = one({"obx": [item("HR", "72", "/min"), item("T", 98.6, "[degF]"), item("X", 1)]})
    assert record == Vitals(hr=72.0, temp=pytest.approx(37.0), timestamp=5.0)


def test_the_part_itself_may_be_the_item() -> None:
    assert one(item("AVPU", "a")).avpu == "A"


def test_the_most_trusted_name_counts_whatever_the_order() -> None:
    for items in ([item("SPO2", 90), item("SPO2-F", 97)], [item("SPO2-F", 97), item("SPO2", 90)]):
        assert one({"obx": items}).spo2 == 97.0
    assert one({"obx": [item("SPO2", 90), item("SPO2-F", None)]}).spo2 == 90.0


@pytest.mark.parametrize(
    "value", [{"obx": []}, {"obx": [item("HR", None)]}, {}, item("X", 1), {"obx": [3]}]
)
def test_nothing_known_is_a_skip(value: Any) -> None:
    mapped = Mapping(SPEC)(value, SOURCE)
    assert (mapped.skipped, mapped.records, mapped.faults) == (1, (), ())


@pytest.mark.parametrize(
    ("value", "path", "detail"),
    [
        (
            {"obx": [item("T", 1), item("HR", "fast")]},
            "$.obx[1].value",
            'got "fast" at $.obx[1].value',
        ),
        ({"obx": [item("HR", 60, "mm[Hg]")]}, "$.obx[0].unit", "expected a unit of vitals.hr"),
        (item("T", 37, ["Cel"]), "$.unit", "expected text, got an array at $.unit"),
        (item("AVPU", "Z"), "$.value", "expected one of A, C, V, P, U"),
    ],
)
def test_a_fault_names_the_item(value: Any, path: str, detail: str) -> None:
    [fault] = Mapping(SPEC)(value, SOURCE).faults
    assert fault.path == path
    assert detail in fault.detail


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"map": {}}, "mapping.map: expected the names"),
        ({"map": {"hr": "A|B", "rr": "B"}}, "mapping.map.rr: expected names that stand once"),
        ({"map": {"hr": ""}}, "names that stand once"),
        ({"units": {"temp": "degF"}}, "mapping.units: a pivot has `unit`"),
        ({"pivot": PivotSpec(name="a..b", value="v")}, "mapping.pivot.name"),
        ({"pivot": PivotSpec(name="^^n", value="v")}, "mapping.pivot.name: expected at most 1 `^`"),
    ],
)
def test_bad_pivots_are_config_errors(changes: dict[str, Any], said: str) -> None:
    table = {"model": "vitals", "key": "@key", "pivot": SPEC.pivot, "map": SPEC.map, **changes}
    with pytest.raises(ConfigError) as caught:
        Mapping(MappingSpec(**table))
    assert said in str(caught.value)


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(
        ["HR", "T", "SPO2", "SPO2-F", "AVPU", "A", "[degF]", "Cel", "%", "1", "72", "NaN"]
    )
)
items = st.dictionaries(
    st.sampled_from(["code", "value", "unit"]), leaves | st.lists(leaves, max_size=2)
)
values = st.one_of(
    leaves, items, st.fixed_dictionaries({"obx": st.lists(items | leaves, max_size=5)})
)


@given(values)
def test_any_value_is_a_record_a_skip_or_a_fault_and_the_walk_agrees(value: Any) -> None:
    compiled, walked = Mapping(SPEC), Mapping(SPEC)
    walked._map_part = lambda *_: 1 / 0  # type: ignore[assignment, return-value]
    mapped = compiled(value, SOURCE)
    assert repr(mapped) == repr(walked(value, SOURCE))
    assert len(mapped.records) + len(mapped.faults) + mapped.skipped == 1
