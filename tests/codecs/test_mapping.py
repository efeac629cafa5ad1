"""What a mapping makes of values: rules as tables, and properties over arbitrary JSON."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.mapping import Mapping, Source
from flashfeed.models.errors import ConfigError
from flashfeed.models.feed import Mapped, MappedRecord, MappingSpec
from flashfeed.models.records import Iot, Ohlcv, Vitals, record_fields

SOURCE = Source(b"k1", "topic-a", 5_500, [("unit", b"mg")])

CANDLES = MappingSpec(
    model="ohlcv",
    key="{sym}:{k.i|interval}",
    time="k.t:ms",
    when={"e": ["kline", "bar"]},
    final="k.x",
    map={"o": "k.o", "h": "k.h", "l": "k.l", "c": "k.c", "v": "k.v", "sym": "sym"},
)


def candle(**changes: Any) -> dict[str, Any]:
    k = {"t": 1000, "i": "1m", "o": "1.5", "h": 2, "l": 1.0, "c": "1.75", "v": "10", "x": True}
    return {"e": "kline", "sym": "AB", "k": {**k, **changes}}


class Both:
    """A mapping and its reference: what is compiled must give what the walk alone gives."""

    def __init__(self, spec: MappingSpec) -> None:
        self.compiled = Mapping(spec)
        self.walked = Mapping(spec)
        self.walked._map_part = gives_up

    def __call__(self, value: Any, source: Source) -> Mapped:
        mapped = self.compiled(value, source)
        # As text, because a NaN does not equal itself.
        assert repr(mapped) == repr(self.walked(value, source))
        return mapped


def gives_up(*_: Any) -> MappedRecord | None:
    raise LookupError


def readings(**spec: Any) -> Both:
    return Both(MappingSpec(model="iot", **{"key": "@topic", **spec}))


def test_casts_strings_and_integers() -> None:
    mapped = Both(CANDLES)(candle(), SOURCE)
    record = Ohlcv(o=1.5, h=2.0, l=1.0, c=1.75, v=10.0, sym="AB", timestamp=1.0)
    assert mapped.records == (MappedRecord("AB:1m", 0, record),)
    assert type(record.h) is float
    assert mapped.faults == () and mapped.skipped == 0


@pytest.mark.parametrize(
    ("value", "path", "detail"),
    [
        (candle(c="n/a"), "$.k.c", 'expected number, got "n/a" at $.k.c'),
        (candle(c=None), "$.k.c", "expected number, got nothing at $.k.c"),
        (candle(c=True), "$.k.c", "expected number, got true at $.k.c"),
        (candle(c=float("nan")), "$.k.c", "expected finite number, got nan at $.k.c"),
        (candle(c="NaN"), "$.k.c", 'expected number, got "NaN" at $.k.c'),
        (candle(v=[1]), "$.k.v", "expected number, got an array at $.k.v"),
        (candle(t="soon"), "$.k.t", 'expected number, got "soon" at $.k.t'),
        (candle(x="maybe"), "$.k.x", 'expected true or false, got "maybe" at $.k.x'),
        (candle(i=None), "$.k.i|$.interval", "got nothing at $.k.i|$.interval"),
        (candle(i={}), "$.k.i", "expected text, got an object at $.k.i"),
        ({**candle(), "sym": None}, "$.sym", "expected text, got nothing at $.sym"),
        ({"e": "bar"}, "$.k.x", "expected true or false, got nothing at $.k.x"),
    ],
)
def test_faults_name_the_path_and_what_was_there(value: Any, path: str, detail: str) -> None:
    mapped = Both(CANDLES)(value, SOURCE)
    assert mapped.records == () and mapped.skipped == 0
    (fault,) = mapped.faults
    assert (fault.reason, fault.path, fault.index) == ("map", path, 0)
    assert detail in fault.detail


def test_a_broken_rule_of_the_type_is_a_validation_fault() -> None:
    (fault,) = Both(CANDLES)(candle(h=0.5), SOURCE).faults
    assert fault.reason == "validate"
    assert "expected high >= low, got h=0.5 l=1.0" in fault.detail


def test_all_faults_of_a_record_are_told_at_once() -> None:
    (fault,) = Both(CANDLES)(candle(o="x", c="y"), SOURCE).faults
    assert "$.k.o" in fault.detail and "$.k.c" in fault.detail
    (fault,) = Both(CANDLES)({"e": "bar", "k": {"x": True}}, SOURCE).faults
    assert fault.detail.endswith("and 3 more")


@pytest.mark.parametrize(
    "value",
    [{**candle(), "e": "trade"}, {}, candle(x=False), candle(x="false"), None, [], "text", 7],
)
def test_rules_skip_without_fault(value: Any) -> None:
    mapped = Both(CANDLES)(value, SOURCE)
    assert (mapped.records, mapped.faults, mapped.skipped) == ((), (), 1)


def test_always_final_reads_no_flag() -> None:
    spec = MappingSpec(model="ohlcv", key="=all", final="always")
    value = {"o": 1, "h": 1, "l": 1, "c": 1, "v": 1}
    (mapped,) = Both(spec)(value, SOURCE).records
    assert mapped.key == "all"
    assert mapped.record.timestamp == 5.5


@pytest.mark.parametrize(
    ("allowed", "value", "kept"),
    [
        ("a", "a", True),
        (1, 1, True),
        (1, True, False),
        (True, True, True),
        (True, 1, False),
        ([1, "b"], "b", True),
        ([1, "b"], [1], False),
        ({"type": "number"}, 1.5, True),
        ({"type": "number"}, True, False),
        ({"type": ["string", "null"]}, "x", True),
        ({"type": "null"}, None, True),
    ],
)
def test_when(allowed: Any, value: Any, kept: bool) -> None:
    mapping = readings(when={"w": allowed}, map={"sid": "=s", "val": "=1"})
    mapped = mapping({"w": value}, SOURCE)
    assert len(mapped.records) == kept
    assert mapped.skipped == (not kept)


@pytest.mark.parametrize(
    ("path", "value", "sid"),
    [
        ("a.b", {"a": {"b": "x"}}, "x"),
        ("a[1]", {"a": ["x", "y"]}, "y"),
        ("a[-1]", {"a": ["x", "y"]}, "y"),
        ("a[k=two].v", {"a": [3, {"k": "one"}, {"k": "two", "v": "x"}, {"k": "two"}]}, "x"),
        ("a[k=2].v", {"a": [{"k": 2, "v": "x"}]}, "x"),
        ("[0]", ["x"], "x"),
        ("a|b", {"a": None, "b": "x"}, "x"),
        ("a.z|b[0]|c", {"a": "no object", "b": [], "c": "x"}, "x"),
        ("@key", {}, "k1"),
        ("@topic", {}, "topic-a"),
        ("@header.unit", {}, "mg"),
        ("@header.none|@ts", {}, "5500"),
        ("{a}/{@header.unit}", {"a": 7}, "7/mg"),
        ("{{{a}}}", {"a": 7}, "{7}"),
        ("@v", "x", "x"),
        (".", "x", "x"),
        ('"a.b"', {"a.b": "x"}, "x"),
        ("=fixed", {}, "fixed"),
    ],
)
def test_paths(path: str, value: Any, sid: str) -> None:
    mapped = readings(map={"sid": path, "val": "=1"})(value, SOURCE)
    assert [m.record for m in mapped.records] == [Iot(sid=sid, val=1.0, timestamp=5.5)]


@pytest.mark.parametrize(
    ("path", "value"),
    [("a[0]", {"a": "string"}), ("a[5]", {"a": [1]}), ("a[k=v]", {"a": {"k": "v"}}),
     ("a.b", {"a": ["b"]}), ("@header.none", {}), ("a|b", {})],
)  # fmt: skip
def test_a_path_that_leads_nowhere_is_a_fault(path: str, value: Any) -> None:
    mapped = readings(map={"sid": path, "val": "=1"})(value, SOURCE)
    assert [f.reason for f in mapped.faults] == ["map"]
    assert "got nothing" in mapped.faults[0].detail


def test_a_key_that_is_no_text_is_a_fault() -> None:
    mapping = readings(key="@key", map={"sid": "=s", "val": "=1"})
    assert (
        "non-empty key, got nothing at @key" in mapping({}, Source(None, "t", 0)).faults[0].detail
    )
    assert "UTF-8" in mapping({}, Source(b"\xff", "t", 0)).faults[0].detail
    assert 'non-empty key, got ""' in mapping({}, Source(b"", "t", 0)).faults[0].detail


def test_without_any_time_the_record_has_none() -> None:
    mapped = readings(map={"sid": "=s", "val": "=1"})({}, Source(None, "t", None))
    assert mapped.records[0].record.timestamp is None


def test_one_bad_part_leaves_its_neighbours() -> None:
    mapping = readings(each="[]", map={"sid": "s", "val": "n"})
    mapped = mapping([{"s": "a", "n": 1}, {"s": "b", "n": "x"}, 7, {"s": "c", "n": 3}], SOURCE)
    assert [(m.index, m.record.val) for m in mapped.records if isinstance(m.record, Iot)] == [
        (0, 1.0),
        (3, 3.0),
    ]
    assert [(f.index, f.path) for f in mapped.faults] == [(1, "$[1].n"), (2, "$[2].s")]


def test_parents_and_keys_of_nested_levels() -> None:
    mapping = readings(
        root="data?",
        each="rooms[].sensors{}",
        key="{^^site}",
        map={"sid": "{^name}.{@k}", "val": "v"},
    )
    data = {"site": "S", "rooms": [{"name": "hall", "sensors": {"t": {"v": 1}, "h": {"v": "x"}}}]}
    for value, prefix in ((data, "$"), ({"data": data}, "$")):
        mapped = mapping(value, SOURCE)
        assert [(m.key, m.record.sid) for m in mapped.records if isinstance(m.record, Iot)] == [
            ("S", "hall.t")
        ]
        assert mapped.faults[0].path == prefix + ".rooms[0].sensors.h.v"


def test_a_required_root_and_container() -> None:
    mapping = readings(root="data", each="list[]", map={"sid": "s", "val": "n"})
    assert mapping({}, SOURCE).faults[0].path == "$.data"
    assert mapping({"data": {}}, SOURCE).faults[0].detail == (
        "expected an array, got nothing at $.data.list"
    )
    assert mapping({"data": {"list": 3}}, SOURCE).faults[0].detail == (
        "expected an array, got 3 at $.data.list"
    )
    assert mapping({"data": {"list": [{"s": 1, "n": "x"}]}}, SOURCE).faults[0].path == (
        "$.data.list[0].n"
    )
    assert mapping({"data": {"list": []}}, SOURCE).records == ()


def test_an_optional_container_may_be_absent_but_not_of_another_kind() -> None:
    mapping = readings(each="list[]?", map={"sid": "s", "val": "n"})
    assert len(mapping({"s": 1, "n": 2}, SOURCE).records) == 1
    assert mapping({"s": 1, "n": 2, "list": {}}, SOURCE).faults[0].detail == (
        "expected an array, got an object at $.list"
    )
    either = readings(each="[]?", map={"sid": "s", "val": "n"})
    assert len(either({"s": 1, "n": 2}, SOURCE).records) == 1
    assert len(either([{"s": 1, "n": 2}] * 2, SOURCE).records) == 2


def test_unmapped_fields_are_read_by_name() -> None:
    alone = Both(MappingSpec(model="vitals", key="=p"))
    assert alone({"hr": 80, "avpu": "A"}, SOURCE).records[0].record == Vitals(
        hr=80.0, avpu="A", timestamp=5.5
    )
    assert alone({}, SOURCE).faults[0].reason == "validate"
    assert "one of A, C, V, P, U" in alone({"avpu": "alert"}, SOURCE).faults[0].detail
    # A partial map picks up no optional field by accident, but still needs the required ones.
    partial = readings(map={"sid": "s"})
    assert partial({"s": "a", "val": 1, "hi": "no number"}, SOURCE).records[0].record == Iot(
        sid="a", val=1.0, timestamp=5.5
    )
    assert partial({"s": "a"}, SOURCE).faults[0].path == "$.val"


def test_constants_are_cast_when_built() -> None:
    mapped = readings(map={"sid": "=s", "val": "v", "hi": "=180"})({"v": 1}, SOURCE)
    assert mapped.records[0].record == Iot(sid="s", val=1.0, hi=180.0, timestamp=5.5)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"key": "a..b"}, ["mapping.key", "'a..b'"]),
        ({"key": ""}, ["mapping.key"]),
        ({"key": "="}, ["mapping.key"]),
        ({"time": "t"}, ["mapping.time", "path:unit"]),
        ({"each": "a"}, ["mapping.each"]),
        ({"each": "[]." * 8 + "[]"}, ["mapping.each", "at most 8"]),
        ({"root": "?"}, ["mapping.root"]),
        ({"final": "a["}, ["mapping.final"]),
        ({"map": {"sid": "a["}}, ["mapping.map.sid"]),
        ({"map": {"vla": "a"}}, ["mapping.map.vla", "did you mean 'val'"]),
        ({"map": {"timestamp": "t"}}, ["mapping.map.timestamp", "time ="]),
        ({"map": {"val": "=x"}}, ["mapping.map.val", "constant 'x'"]),
        ({"when": {"a": None}}, ["mapping.when.a"]),
        ({"when": {"a": []}}, ["mapping.when.a"]),
        ({"when": {"a": {"type": "float"}}}, ["mapping.when.a", "number"]),
        ({"when": {"a": {"is": "number"}}}, ["mapping.when.a"]),
        ({"when": {"a[": 1}}, ["mapping.when.a["]),
        ({"key": "^a"}, ["mapping.key", "at most 0 `^`"]),
        ({"key": "{@k}"}, ["mapping.key", "@k needs an `each`"]),
        ({"each": "[]", "time": "^^t:s"}, ["mapping.time", "at most 1 `^`"]),
    ],
)
def test_bad_tables_are_config_errors_naming_the_key(spec: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        readings(**spec)
    for words in said:
        assert words in str(caught.value)


# Values close to what the mappings look for, so that many of them map.
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 2000)
    | st.floats()
    | st.sampled_from(["kline", "1.5", "true", "nan", "", "AB", "2000-01-01"])
    | st.text(max_size=3)
)
KEYS = st.sampled_from(["e", "k", "t", "i", "o", "h", "l", "c", "v", "x", "sym", "m", "fields"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=8),
    max_leaves=25,
)
NEARLY = st.fixed_dictionaries(
    {"e": st.just("kline"), "sym": LEAVES},
    optional={
        "k": st.fixed_dictionaries(
            {name: st.sampled_from([1, 2.0, "1.5", None, "x"]) for name in "ohlcv"},
            optional={"t": LEAVES, "i": LEAVES, "x": st.sampled_from([True, "true", False, 1])},
        )
    },
)
SPECS = [
    CANDLES,
    MappingSpec(model="vitals", key="@key", map={"hr": "o|h", "avpu": "x", "temp": "k[i=1].t"}),
    MappingSpec(model="iot", key="{e}", each="m[]?.fields{}", map={"sid": "@k", "val": "@v"}),
    MappingSpec(model="iot", key="sym", each="[]?", map={"sid": "x", "val": "v", "lo": "l|o"}),
    MappingSpec(model="event", key="sym|e", time="t:iso",
                map={"src": "e", "sev": "o", "cat": "x", "cnt": "k.v"}),
    MappingSpec(model="spatial", key="@topic", root="k?", time="t|i:ms", when={"e": [1, True]},
                map={"x": "o", "y": "h", "z": "l", "spd": "c", "hdg": "v[0]|v"}),
]  # fmt: skip
MAPPINGS = [Both(spec) for spec in SPECS]


@given(st.sampled_from(MAPPINGS), VALUES | NEARLY, st.binary(max_size=3) | st.none())
def test_never_raises_agrees_and_accounts_for_every_part(
    mapping: Both, value: Any, key: bytes | None
) -> None:
    mapped = mapping(value, Source(key, "t", 1))
    indexes = [m.index for m in mapped.records] + [f.index for f in mapped.faults]
    assert len(set(indexes)) == len(indexes)
    assert all(f.detail and f.path for f in mapped.faults)
    spec = mapping.compiled.spec
    if not spec.each and not spec.root:
        assert len(indexes) + mapped.skipped == 1


FLAT_TYPES = {
    "ohlcv": "o h l c v sym",
    "trade": "p q side sym",
    "iot": "sid val lo hi",
    "vitals": "hr bp_s bp_d spo2 temp rr o2 avpu",
    "spatial": "x y z spd hdg",
    "event": "src sev cat cnt",
}
FLAT = [
    Both(MappingSpec(model=model, key="@topic", map={name: name for name in names.split()}, **rule))
    for model, names in FLAT_TYPES.items()
    for rule in ({"time": "t:s"}, {"final": "t"})
]
NUMBERS = st.sampled_from([0.0, 1.0, 2, "3.5", -1.0, 1e308, -1e308]) | st.floats()
FIELDS = NUMBERS | st.none() | st.sampled_from(["buy", "A", "AB", True, 2**60])


@given(
    st.sampled_from(FLAT),
    st.sampled_from([1.0, 1_700_000_000, 1e13, -1.0, None, True]) | st.floats(),
    st.lists(FIELDS | NUMBERS, min_size=9, max_size=9),
)
def test_a_records_rules_hold_without_the_record_and_a_row_is_its_object(
    mapping: Both, t: Any, values: list[Any]
) -> None:
    """What is packed is what the type's own rules let through, and no more or less."""
    names = [name for name in mapping.compiled.spec.map or {} if name]
    value = {"t": t, **dict(zip(names, values, strict=False))}
    mapped = mapping(value, SOURCE)
    parts = mapping.compiled.parts(value, SOURCE)
    for record in mapped.records:  # made by the type, which has checked it
        assert parts == (("topic-a", record_fields(record.record)),)
    assert mapping.compiled.fields == tuple(sorted({"t", *names}))
    row = tuple(value.get(name) for name in mapping.compiled.fields)
    assert repr(mapping.compiled(row, SOURCE)) == repr(
        mapping.compiled({name: one for name, one in value.items() if one is not None}, SOURCE)
    )
