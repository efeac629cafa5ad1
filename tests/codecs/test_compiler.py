"""No text of a mapping table is ever code: the emitted text has our own names alone."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs import compiler
from flashfeed.codecs.mapping import Mapping, Source
from flashfeed.models.errors import ConfigError
from flashfeed.models.feed import MappingSpec
from flashfeed.models.records import Iot

SOURCE = Source(None, "t", 1)
OWN_NAMES = re.compile(r"x\d+|C\d+|value_\d|row(_\d+)?|source|k|Record|total|fields")
STATEMENTS = ast.FunctionDef | ast.Assign | ast.If | ast.Return | ast.Raise | ast.Expr
ALLOWED_ATTRIBUTES = {"key", "topic", "timestamp_ms", "headers"}
NASTY = [
    "'", '"', "\\", "\\'", '"""', "');import os#", "']+__import__('os').system('x')+['",
    "{__import__('os')}", "\n    raise SystemExit\n", "\r", "\u2028", "\x00", "\ud800",
    "__class__", "x1", "C0", "map_part", "#", "%s", "{0.__class__}",
]  # fmt: skip
TEXTS = st.text(max_size=12) | st.sampled_from(NASTY) | st.lists(
    st.sampled_from(NASTY), max_size=3
).map("".join)  # fmt: skip


def check_source(source: str) -> None:
    """Only assignments, tests, returns and calls, and only of names we chose."""
    functions = ast.parse(source).body
    assert 1 <= len(functions) <= 2  # of a part; of a Row
    assert all(isinstance(one, ast.FunctionDef) and one.name == "map_part" for one in functions)
    for node in ast.walk(ast.Module(functions, [])):
        assert not isinstance(
            node, ast.Import | ast.ImportFrom | ast.Lambda | ast.Await | ast.Delete
        )
        if isinstance(node, ast.JoinedStr):  # names alone, no text and no format
            for part in node.values:
                assert isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name)
                assert part.conversion == -1 and part.format_spec is None
        if isinstance(node, ast.stmt):
            assert isinstance(node, STATEMENTS)
        if isinstance(node, ast.Name):
            assert node.id in compiler._NAMES or OWN_NAMES.fullmatch(node.id), node.id
        if isinstance(node, ast.Attribute):
            assert isinstance(node.value, ast.Name) and node.value.id == "source"
            assert node.attr in ALLOWED_ATTRIBUTES


def quoted(key: str) -> str:
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(key=TEXTS.filter(lambda s: bool(s) and "\n" not in s), literal=TEXTS, allowed=TEXTS)
def test_texts_of_the_table_come_out_as_they_are(key: str, literal: str, allowed: str) -> None:
    literal_text = literal.replace("{", "{{").replace("}", "}}")
    in_braces = "}" not in key and "{" not in key
    path = quoted(key)
    mapping = Mapping(
        MappingSpec(
            model="iot",
            key=f"k{literal_text}{{{path}}}" if in_braces else "@topic",
            when={"w": [allowed, "other"], "u": allowed},
            map={"sid": "=" + literal, "val": "nested." + path if in_braces else "n"},
        )
    )
    check_source(mapping.generated)
    value: dict[str, Any] = {"w": allowed, "u": allowed, "n": 1, "nested": {key: 1}}
    if key not in value:
        value[key] = "there"
        mapped = mapping(value, SOURCE)
        assert [m.record for m in mapped.records] == [Iot(sid=literal, val=1.0, timestamp=0.001)]
        assert mapped.records[0].key == (f"k{literal}there" if in_braces else "t")


@given(st.dictionaries(st.sampled_from(["sid", "val", "lo"]), TEXTS), TEXTS, TEXTS, TEXTS)
def test_any_table_compiles_to_our_own_names_or_is_refused(
    fields: dict[str, str], key: str, time: str, when: str
) -> None:
    try:
        mapping = Mapping(
            MappingSpec(model="iot", key=key, time=time + ":s", when={when: 1}, map=fields)
        )
    except ConfigError:
        return
    check_source(mapping.generated)
    mapping({"a": 1}, SOURCE)


@pytest.mark.parametrize("text", ["a['b']", "a[k='].b", "@header.x') or exit("])
def test_odd_but_legal_paths(text: str) -> None:
    try:
        mapping = Mapping(MappingSpec(model="iot", key=text))
    except ConfigError:
        return
    check_source(mapping.generated)


def test_the_function_sees_no_builtins() -> None:
    mapping = Mapping(MappingSpec(model="iot", key="@topic"))
    assert mapping._map_part.__globals__["__builtins__"] == {}


def test_the_check_itself_can_fail() -> None:
    with pytest.raises(AssertionError):
        check_source("def map_part(k):\n    return open('x')\n")
