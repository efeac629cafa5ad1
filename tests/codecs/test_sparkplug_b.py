from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.agents.births import BirthBook
from flashfeed.agents.metrics import Metrics
from flashfeed.codecs.codec import BirthWanted
from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.registry import codec
from flashfeed.codecs.sparkplug_payload import PAYLOAD_BYTES_MAX, Payload, scalar
from flashfeed.models.errors import ConfigError, DecodeFault
from flashfeed.models.feed import MappingSpec

from codec_samples import born, outside, source, sparkplug

# A payload as eclipse/tahu's protoc-made class writes it, field by field in hexadecimal:
# timestamp 1000, one metric {name "t", alias 5, datatype 10, double_value 1.5}, seq 3.
TAHU = bytes.fromhex("08e80712100a01741005200a69000000000000f83f1803")


def reader(book: BirthBook | None = None, **options: Any) -> Any:
    return codec("sparkplug_b", options, outside(births=book or born()))


def test_the_wire_format() -> None:
    (value,) = reader()(TAHU, source(key=b"spBv1.0/g/NBIRTH/n"))
    assert value == {
        "group": "g",
        "node": "n",
        "edge": "g/n",
        "verb": "NBIRTH",
        "timestamp": 1000,
        "seq": 3,
        "metrics": [{"name": "t", "value": 1.5, "datatype": 10, "timestamp": 1000, "alias": 5}],
    }
    assert sparkplug(3, {"name": "t", "alias": 5, "datatype": 10, "double_value": 1.5}) == TAHU


def test_a_birth_names_what_the_data_behind_it_says_by_alias() -> None:
    book = BirthBook(Metrics())
    read = reader(book)
    data = sparkplug(2, {"alias": 7, "int_value": 2**32 - 3, "timestamp": 990})
    where = source(key=b"spBv1.0/g/DDATA/n/d")
    with pytest.raises(BirthWanted) as wanted:
        read(data, where)
    assert (wanted.value.edge, wanted.value.wait_s) == ("g/n/d", 30.0)
    birth = sparkplug(1, {"name": "level", "alias": 7, "datatype": 3, "int_value": 1})
    read(birth, source(key=b"spBv1.0/g/DBIRTH/n/d"))
    (value,) = read(data, where)
    assert value["device"] == "d" and value["edge"] == "g/n/d"
    (metric,) = value["metrics"]
    assert metric == {"name": "level", "value": -3, "datatype": 3, "timestamp": 990, "alias": 7}
    (write,) = book.take_writes("births")
    assert (write.topic, write.key) == ("births", b"g/n/d")
    assert not book.take_writes("births")
    # What one worker wrote, another reads.
    with pytest.raises(DecodeFault) as caught:
        read(sparkplug(3, {"alias": 8, "int_value": 1}), where)
    assert (caught.value.reason, caught.value.path) == ("birth_missing", "$.metrics[0].alias")


def test_mapped_to_readings() -> None:
    mapping = Mapping(
        MappingSpec(
            model="iot",
            key="^edge",
            each="metrics[]",
            when={"value": {"type": "number"}},
            time="timestamp:ms",
            map={"sid": "name", "val": "value"},
        )
    )
    data = sparkplug(
        1,
        {"alias": 1, "double_value": 21.5},
        {"alias": 2, "int_value": 255},
        {"name": "state", "datatype": 12, "string_value": "on"},
        {"alias": 1, "is_null": True},
    )
    (value,) = reader()(data, source(key=b"spBv1.0/g/NDATA/n"))
    mapped = mapping(value, source())
    assert [(one.record.sid, one.record.val, one.record.timestamp) for one in mapped.records] == [
        ("temp", 21.5, 1.0),
        ("level", -1.0, 1.0),
    ]
    assert mapped.skipped == 2 and not mapped.faults


@pytest.mark.parametrize(
    ("beside", "options"),
    [
        (source(key=b"spBv1.0/g/NDATA/n"), {}),
        (source(key=None, headers=[("mqtt.topic", b"spBv1.0/g/NDATA/n")]), {}),
        (source(key=b"x", topic="spBv1.0.g.NDATA.n"), {}),
        (source(topic="spBv1.0.g.NDATA.n"), {"mqtt_topic": "@topic"}),
        (source(headers=[("t", b"spBv1.0/g/NDATA/n")]), {"mqtt_topic": "@header.t"}),
    ],
)
def test_where_the_mqtt_topic_may_stand(beside: Any, options: dict[str, Any]) -> None:
    (value,) = reader(**options)(sparkplug(1), beside)
    assert (value["edge"], value["verb"]) == ("g/n", "NDATA")


@pytest.mark.parametrize(
    "key",
    [b"", b"x/g/NDATA/n", b"spBv1.0/g/NDATA", b"spBv1.0/g/DDATA/n", b"spBv1.0/g/MDATA/n",
     b"spBv1.0/g/NDATA/n/d", b"spBv1.0//NDATA/n"],
)  # fmt: skip
def test_a_topic_that_is_none_is_bad_framing(key: bytes) -> None:
    with pytest.raises(DecodeFault) as caught:
        reader()(sparkplug(1), source(key=key, topic="plant"))
    assert caught.value.reason == "bad_framing"


@pytest.mark.parametrize("key", [b"spBv1.0/STATE/host", b"spBv1.0/g/NCMD/n", b"spBv1.0/g/DCMD/n/d"])
def test_what_is_no_measurement_has_no_value(key: bytes) -> None:
    assert reader()(b"{}", source(key=key)) == ()


def test_a_compressed_payload() -> None:
    body = sparkplug(4, {"name": "a", "datatype": 10, "double_value": 2.0})
    for algorithm, packed in (("GZIP", gzip.compress(body)), ("DEFLATE", zlib.compress(body))):
        payload = Payload(uuid="SPBV1.0_COMPRESSED", body=packed)
        payload.metrics.add(name="algorithm", datatype=12, string_value=algorithm)
        (value,) = reader()(payload.SerializeToString(), source(key=b"spBv1.0/g/NDATA/n"))
        assert value["metrics"][0]["value"] == 2.0 and value["seq"] == 4


@pytest.mark.parametrize(
    "body", [zlib.compress(b"\0" * (PAYLOAD_BYTES_MAX + 1)), b"x", zlib.compress(b"abc")[:-2]]
)
def test_a_bomb_and_a_broken_body_are_faults(body: bytes) -> None:
    payload = Payload(uuid="SPBV1.0_COMPRESSED", body=body)
    with pytest.raises(DecodeFault, match="compressed body"):
        reader()(payload.SerializeToString(), source(key=b"spBv1.0/g/NDATA/n"))


def test_values_of_every_kind() -> None:
    payload = Payload(timestamp=5)
    for name, datatype, field, given_value in (
        ("i8", 1, "int_value", 200),
        ("i64", 4, "long_value", 2**64 - 2),
        ("u64", 8, "long_value", 2**64 - 2),
        ("flag", 11, "boolean_value", True),
        ("at", 13, "long_value", 1_700_000_000_000),
        ("bytes", 17, "bytes_value", b"ab"),
        ("i16s", 23, "bytes_value", b"\x01\x00\xff\xff"),
        ("texts", 33, "bytes_value", b"a\0bc\0"),
        ("flags", 32, "bytes_value", b"\x03\0\0\0\xa0"),
    ):
        payload.metrics.add(name=name, datatype=datatype, **{field: given_value})
    table = payload.metrics.add(name="table", datatype=16).dataset_value
    table.columns.extend(["a", "b"])
    table.types.extend([3, 12])
    row = table.rows.add()
    row.elements.add(int_value=2**32 - 1)
    row.elements.add(string_value="x")
    inner = payload.metrics.add(name="motor", datatype=19).template_value.metrics.add(name="rpm")
    inner.datatype, inner.int_value = 7, 900
    unit = payload.metrics[0].properties
    unit.keys.append("engUnit")
    unit.values.add(type=12, string_value="Cel")
    (value,) = reader()(payload.SerializeToString(), source(key=b"spBv1.0/g/NDATA/n"))
    assert {one["name"]: one["value"] for one in value["metrics"]} == {
        "i8": -56,
        "i64": -2,
        "u64": 2**64 - 2,
        "flag": True,
        "at": 1_700_000_000_000,
        "bytes": b"ab",
        "i16s": [1, -1],
        "texts": ["a", "bc"],
        "flags": [True, False, True],
        "table": {"columns": ["a", "b"], "rows": [[-1, "x"]]},
        "motor": {"rpm": 900},
    }
    assert value["metrics"][0]["properties"] == {"engUnit": "Cel"}


@given(st.sampled_from([(1, 8), (2, 16), (3, 32), (4, 64)]), st.data())
def test_signed_integers_come_back(kind: tuple[int, int], data: st.DataObject) -> None:
    datatype, bits = kind
    value = data.draw(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
    assert scalar(value & (2**64 - 1), datatype) == value


def test_it_needs_the_births_topic() -> None:
    with pytest.raises(ConfigError, match="births topic"):
        codec("sparkplug_b", {}, outside())
