"""Envelopes: what is inside, what is skipped, where a fault lies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.mapping import Mapping, Source
from flashfeed.codecs.unwrap import Unwrap, unwrap
from flashfeed.models.feed import MappingSpec

SOURCE = Source(b"k", "t", 0)
ROW = {"sid": "a", "val": 1.5}
KINDS: tuple[Unwrap, ...] = ("debezium", "connect", "cloudevents", "ksql")


def reading(kind: Unwrap) -> Mapping:
    return Mapping(MappingSpec(model="iot", key="sid", unwrap=kind))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("debezium", {"before": None, "after": ROW, "op": "c", "ts_ms": 1}),
        ("debezium", {"schema": None, "payload": {"before": ROW, "after": ROW, "op": "u"}}),
        ("debezium", {"payload": {"after": ROW, "op": "r"}}),
        ("debezium", ROW),
        ("debezium", {**ROW, "__deleted": "false"}),
        ("connect", {"schema": {"type": "struct"}, "payload": ROW}),
        ("connect", ROW),
        ("cloudevents", {"specversion": "1.0", "id": "1", "data": ROW}),
        ("cloudevents", {"specversion": "1.0", "data_base64": "eyJzaWQiOiJhIiwidmFsIjoxLjV9"}),
        ("cloudevents", ROW),
        ("ksql", {"SID": "a", "VAL": 1.5}),
    ],
)
def test_the_row_comes_out(kind: Unwrap, value: Any) -> None:
    [record] = reading(kind)(value, SOURCE).records
    assert (record.key, record.record.val) == ("a", 1.5)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"payload": None},
        {"before": ROW, "after": None, "op": "d"},
        {"before": None, "after": None, "op": "t"},
        {"op": "m", "after": None},
        {**ROW, "__deleted": "true"},
    ],
)
def test_what_is_no_row_is_skipped(value: Any) -> None:
    mapped = reading("debezium")(value, SOURCE)
    assert (mapped.skipped, mapped.records, mapped.faults) == (1, (), ())


@pytest.mark.parametrize(
    ("kind", "value", "path", "detail"),
    [
        ("debezium", {"op": "x", "after": ROW}, "$.op", 'got "x" at $.op'),
        ("debezium", {"payload": {"op": "c", "after": [1]}}, "$.payload.after", "a row"),
        (
            "debezium",
            {"payload": {"op": "c", "after": {"sid": "a", "val": "n/a"}}},
            "$.payload.after.val",
            'expected number, got "n/a" at $.payload.after.val',
        ),
        (
            "cloudevents",
            {"specversion": "1.0", "data": {"sid": "a"}},
            "$.data.val",
            "nothing at $.data.val",
        ),
        ("cloudevents", {"specversion": "1.0", "data_base64": "%%"}, "$.data_base64", "base64"),
    ],
)
def test_a_fault_says_where_in_the_message(
    kind: Unwrap, value: Any, path: str, detail: str
) -> None:
    [fault] = reading(kind)(value, SOURCE).faults
    assert fault.path == path
    assert detail in fault.detail


def test_a_decimal_without_its_scale_is_a_fault() -> None:
    field = {"field": "val", "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal"}
    value = {"schema": {"fields": [field]}, "payload": {"sid": "a", "val": "Oqo="}}
    [fault] = reading("connect")(value, SOURCE).faults
    assert (fault.path, fault.detail.startswith("expected a decimal with its scale")) == (
        "$.payload.val",
        True,
    )
    field["parameters"] = {"scale": "2"}  # type: ignore[assignment]
    [record] = reading("connect")(value, SOURCE).records
    assert record.record.val == 150.18  # type: ignore[union-attr]


def test_a_decimal_of_a_scale_of_its_own() -> None:
    field = {"field": "val", "name": "io.debezium.data.VariableScaleDecimal", "type": "struct"}
    row = {"sid": "a", "val": {"scale": 2, "value": "Oqo="}}
    value = {"schema": {"fields": [field]}, "payload": row}
    [record] = reading("connect")(value, SOURCE).records
    assert record.record.val == 150.18  # type: ignore[union-attr]


names = st.sampled_from(
    [
        "payload",
        "schema",
        "op",
        "after",
        "before",
        "fields",
        "field",
        "name",
        "data",
        "specversion",
        "data_base64",
        "parameters",
        "scale",
        "type",
        "sid",
        "val",
        "__deleted",
    ]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["c", "d", "org.apache.kafka.connect.data.Decimal", "Oqo=", "bytes", "sid"])
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5)
)


@given(st.sampled_from(KINDS), values)
def test_any_value_is_a_row_a_skip_or_a_fault(kind: Unwrap, value: Any) -> None:
    unwrap(kind, value)
    mapped = reading(kind)(value, SOURCE)
    assert len(mapped.records) + len(mapped.faults) + mapped.skipped == 1
