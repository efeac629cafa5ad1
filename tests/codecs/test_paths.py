from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs import paths
from flashfeed.codecs.paths import (
    Choice,
    Constant,
    Each,
    Index,
    Name,
    Path,
    Select,
    Template,
    parse_choice,
    parse_each,
    parse_expression,
    parse_root,
    parse_time,
)
from flashfeed.models.errors import ConfigError


def path(*steps: object, **start: object) -> Path:
    return Path(steps=tuple(Name(s) if isinstance(s, str) else s for s in steps), **start)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a", [path("a")]),
        ("a.b.c", [path("a", "b", "c")]),
        ("a[0].b[-1]", [path("a", Index(0), "b", Index(-1))]),
        ("[4]", [path(Index(4))]),
        ("code.coding[system=http://loinc.org].code",
         [path("code", "coding", Select("system", "http://loinc.org"), "code")]),
        ("a[k=].b", [path("a", Select("k", ""), "b")]),
        ('"a.b"."c \\" d"', [path("a.b", 'c " d')]),
        ("a-b.dc:title", [path("a-b", "dc:title")]),
        ("a|b.c|@topic", [path("a"), path("b", "c"), Path(origin="topic")]),
        (".|component", [Path(), path("component")]),
        ("^", [Path(up=1)]),
        ("^.", [Path(up=1)]),
        ("^^.a", [path("a", up=2)]),
        ("^tags.host", [path("tags", "host", up=1)]),
        ("@key", [Path(origin="key")]),
        ("@k", [Path(origin="k")]),
        ("@v", [Path()]),
        ("@header.content.type|@ts", [Path(origin="header", header="content.type"),
                                      Path(origin="ts")]),
    ],
)  # fmt: skip
def test_choices(text: str, tree: list[Path]) -> None:
    assert parse_choice(text) == Choice(tuple(tree))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("=70", Constant("70")),
        ("=", Constant("")),
        ("={a}", Constant("{a}")),
        ("{a}:{b.c|d}",
         Template((Choice((path("a"),)), ":", Choice((path("b", "c"), path("d")))))),
        ("x{{{a}}}", Template(("x{", Choice((path("a"),)), "}"))),
    ],
)  # fmt: skip
def test_expressions(text: str, tree: object) -> None:
    assert parse_expression(text) == tree


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("[]", [Each((), "[]", False)]),
        ("[]?", [Each((), "[]", True)]),
        ("fields{}", [Each((("fields",),), "{}", False)]),
        ("a.b[]", [Each((("a",), ("b",)), "[]", False)]),
        (
            "metrics[]?.fields{}",
            [Each((("metrics",),), "[]", True), Each((("fields",),), "{}", False)],
        ),
        ("a|b.c[]", [Each((("a", "b"), ("c",)), "[]", False)]),
        ("[].{}", [Each((), "[]", False), Each((), "{}", False)]),
    ],
)
def test_each(text: str, levels: list[Each]) -> None:
    assert parse_each(text) == tuple(levels)


@pytest.mark.parametrize("unit", paths.TIME_UNITS)
def test_time_and_root(unit: str) -> None:
    assert parse_time(f"a:b|c:{unit}") == (Choice((path("a:b"), path("c"))), unit)
    assert parse_root("data?") == (Choice((path("data"),)), True)
    assert parse_root("data") == (Choice((path("data"),)), False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a name at character 1"),
        ("a..b", "a name at character 3"),
        ("a.", "a name at character 3"),
        (".a", "leading `.`"),
        ("a[", "`[place]` or `[key=value]` at character 2"),
        ("a[b]", "`[place]`"),
        ("a|", "a name at character 3"),
        ("a b", "a `.`, `[`, `|` or the end at character 2"),
        ("@key.a", "with no steps after"),
        ("@keys", "one of @key"),
        ("@", "one of @key"),
        ("a^", "at character 2"),
        ('"a', "a name at character 1"),
        ("a" * 1001, "at most 1000 characters"),
        (".".join("a" * 33), "at most 32 steps"),
    ],
)
def test_bad_paths_say_where(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_choice(text)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["{a", "a}", "{}", "{a}{", "{a..b}"])
def test_bad_templates(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_expression(text)


@pytest.mark.parametrize("text", ["", "a", "a[].b", "[]x", "a[].", "a..b[]", "[]??", "{"])
def test_bad_each(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_each(text)


@pytest.mark.parametrize("text", ["a", "a:", ":s", "a:min", "s"])
def test_bad_times(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_time(text)


@given(st.text(alphabet="ab.[]{}|^@?=\"\\ :é\n'", max_size=20))
def test_any_text_parses_or_is_a_config_error(text: str) -> None:
    for parse in (parse_expression, parse_choice, parse_each, parse_time, parse_root):
        with contextlib.suppress(ConfigError):
            parse(text)


@given(st.text(min_size=1).filter(lambda s: "\n" not in s))
def test_any_key_can_be_quoted(key: str) -> None:
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    assert parse_choice(f'"{quoted}"') == Choice((path(key),))
