r"""The grammar of a mapping's paths, as text to a small tree. No data is read here.

    path      a.b.c            keys of objects; "..." around a key with dots or spaces
              a[0] a[-1]       an element of an array by place
              a[k=v].b         the first element whose k is v
              ^.a ^^.a ^a      from the part's parent: the value `each` went out from
              .                the part itself
              @key @topic @ts @header.NAME    the message: key, topic, timestamp in ms, header
              @k @v            the part's key (or place) in its container, and its value
    choice    x|y              the first that is present; null counts as absent
    field     choice | template "{a}:{b}" ({{ and }} are braces) | constant "=70"
    each      a[] a{} [] {}    the elements of an array, the values of an object;
              a[]?             where it is absent the value itself is the one part;
              a[]?.b{}         a chain: for each element, each value of its b
              a|b.c[]          where a is absent, b.c
    time      path:unit        s, ms, us, ns since 1970, iso, or hl7 (YYYYMMDDHHMMSS)

Every fault is a ConfigError that quotes the text and says what was expected where.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

import msgspec

from ..models.errors import ConfigError

TimeUnit: TypeAlias = Literal["s", "ms", "us", "ns", "iso", "hl7"]
Origin: TypeAlias = Literal["value", "key", "topic", "ts", "header", "k"]

TIME_UNITS: Final[tuple[TimeUnit, ...]] = ("s", "ms", "us", "ns", "iso", "hl7")
PATH_CHARS_MAX: Final = 1000
STEPS_MAX: Final = 32


class Name(msgspec.Struct, frozen=True):
    """A key of an object."""

    key: str


class Index(msgspec.Struct, frozen=True):
    """A place in an array, from the end where negative."""

    place: int


class Select(msgspec.Struct, frozen=True):
    """The first element of an array whose `key` is `wanted`."""

    key: str
    wanted: str


Step: TypeAlias = Name | Index | Select


class Path(msgspec.Struct, frozen=True):
    """Where to start (`up` levels above the part, or an origin in the message), and the steps."""

    origin: Origin = "value"
    up: int = 0
    header: str = ""
    steps: tuple[Step, ...] = ()


class Choice(msgspec.Struct, frozen=True):
    """Paths of which the first present one counts."""

    paths: tuple[Path, ...]


class Template(msgspec.Struct, frozen=True):
    """Literal texts and choices, joined."""

    parts: tuple[str | Choice, ...]


class Constant(msgspec.Struct, frozen=True):
    """A text that stands for itself."""

    text: str


Expression: TypeAlias = Choice | Template | Constant


class Each(msgspec.Struct, frozen=True):
    """One level of fanning out: the names that lead to the container, each the first one
    present of its alternatives; its kind, and whether it may be absent."""

    names: tuple[tuple[str, ...], ...]
    kind: Literal["[]", "{}"]
    optional: bool


_NAME: Final = re.compile(r'"((?:[^"\\]|\\.)+)"|([^.\[\]|{}"^@\s]+)')
_INDEX: Final = re.compile(r"\[(-?\d{1,6})\]")
_SELECT: Final = re.compile(r"\[([^\[\]=|^@.\s]+)=([^\]]*)\]")
_HEADER: Final = re.compile(r"@header\.([^|{}\s]+)")
_WORD: Final = re.compile(r"@(key|topic|ts|k|v)(?![\w.\[])")
_LEVEL: Final = re.compile(r"(\[\]|\{\})(\?)?")
_UNESCAPE: Final = re.compile(r"\\(.)")


def parse_expression(text: str) -> Expression:
    """A field's text: a constant, a template or a choice."""
    if text.startswith("="):
        return Constant(text[1:])
    if "{" in text or "}" in text:
        return _parse_template(text)
    return parse_choice(text)


def parse_choice(text: str) -> Choice:
    """Paths separated by `|`."""
    if len(text) > PATH_CHARS_MAX:
        raise ConfigError(f"expected a path of at most {PATH_CHARS_MAX} characters")
    paths = []
    position = 0
    while True:
        path, position = _parse_path(text, position)
        paths.append(path)
        if position == len(text):
            return Choice(tuple(paths))
        if text[position] != "|":
            raise _bad(text, position, "a `.`, `[`, `|` or the end")
        position += 1


def parse_root(text: str) -> tuple[Choice, bool]:
    """A root's choice, and whether it may be absent (`?` at its end)."""
    optional = text.endswith("?")
    return parse_choice(text[:-1] if optional else text), optional


def parse_time(text: str) -> tuple[Choice, TimeUnit]:
    """A time's choice and its unit."""
    path, colon, unit = text.rpartition(":")
    for known in TIME_UNITS:
        if colon and unit == known:
            return parse_choice(path), known
    raise ConfigError(f"bad time {text!r}: expected `path:unit`, unit one of {_units()}")


def parse_each(text: str) -> tuple[Each, ...]:
    """A chain of levels."""
    levels: list[Each] = []
    names: list[tuple[str, ...]] = []
    position = 0
    while position < len(text):
        level = _LEVEL.match(text, position)
        if level is None:
            key, position = _parse_name(text, position, "a name, `[]` or `{}`")
            alternatives = [key]
            while text.startswith("|", position):
                key, position = _parse_name(text, position + 1, "a name")
                alternatives.append(key)
            names.append(tuple(alternatives))
        else:
            kind: Literal["[]", "{}"] = "[]" if level[1] == "[]" else "{}"
            levels.append(Each(tuple(names), kind, optional=level[2] is not None))
            names = []
            position = level.end()
            if position < len(text) and text[position] != ".":
                raise _bad(text, position, "a `.` or the end")
        if position < len(text) and text[position] == ".":
            position += 1
            if position == len(text):
                raise _bad(text, position, "a name")
    if names or not levels:
        raise _bad(text, len(text), "`[]` or `{}`")
    return tuple(levels)


def _parse_template(text: str) -> Template:
    parts: list[str | Choice] = []
    literal = ""
    position = 0
    while position < len(text):
        char = text[position]
        if char in "{}" and text[position + 1 : position + 2] == char:
            literal += char
            position += 2
        elif char == "{":
            end = text.find("}", position)
            if end < 0:
                raise _bad(text, len(text), "a closing `}`")
            if literal:
                parts.append(literal)
                literal = ""
            parts.append(parse_choice(text[position + 1 : end]))
            position = end + 1
        elif char == "}":
            raise _bad(text, position, "no single `}` (write `}}`)")
        else:
            literal += char
            position += 1
    if literal:
        parts.append(literal)
    return Template(tuple(parts))


def _parse_path(text: str, position: int) -> tuple[Path, int]:
    if text.startswith("@", position):
        return _parse_origin(text, position)
    up = 0
    while text.startswith("^", position):
        up += 1
        position += 1
    if text.startswith(".", position):
        position += 1
        if position == len(text) or text[position] == "|":
            return Path(up=up), position
        if not up:
            raise _bad(text, position, "nothing after a path's leading `.`")
    elif up and (position == len(text) or text[position] == "|"):
        return Path(up=up), position
    steps: list[Step] = []
    if not text.startswith("[", position):
        key, position = _parse_name(text, position, "a name")
        steps.append(Name(key))
    while position < len(text) and text[position] in ".[":
        if text[position] == ".":
            key, position = _parse_name(text, position + 1, "a name")
            steps.append(Name(key))
        else:
            step, position = _parse_bracket(text, position)
            steps.append(step)
    if len(steps) > STEPS_MAX:
        raise ConfigError(f"bad path {text!r}: expected at most {STEPS_MAX} steps")
    return Path(up=up, steps=tuple(steps)), position


def _parse_origin(text: str, position: int) -> tuple[Path, int]:
    header = _HEADER.match(text, position)
    if header is not None:
        return Path(origin="header", header=header[1]), header.end()
    word = _WORD.match(text, position)
    if word is None:
        raise _bad(text, position, "one of @key @topic @ts @k @v @header.NAME, with no steps after")
    origins: dict[str, Origin] = {"key": "key", "topic": "topic", "ts": "ts", "k": "k"}
    return Path(origin=origins.get(word[1], "value")), word.end()


def _parse_name(text: str, position: int, expected: str) -> tuple[str, int]:
    name = _NAME.match(text, position)
    if name is None:
        raise _bad(text, position, expected)
    quoted, plain = name.groups()
    return plain if quoted is None else _UNESCAPE.sub(r"\1", quoted), name.end()


def _parse_bracket(text: str, position: int) -> tuple[Step, int]:
    index = _INDEX.match(text, position)
    if index is not None:
        return Index(int(index[1])), index.end()
    select = _SELECT.match(text, position)
    if select is not None:
        return Select(select[1], select[2]), select.end()
    raise _bad(text, position, "`[place]` or `[key=value]`")


def _bad(text: str, position: int, expected: str) -> ConfigError:
    return ConfigError(f"bad path {text!r}: expected {expected} at character {position + 1}")


def _units() -> str:
    return ", ".join(TIME_UNITS)
