"""What a grammar's rules are written in: regular expressions that may name rules. Pure.

`gbnf.py` and `json_schema.py` make them, `grammar_rules.py` compiles them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

CODE_POINT_MAX: Final = 0x10FFFF

Range: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Text:
    """These characters."""

    text: str


@dataclass(frozen=True, slots=True)
class Chars:
    """One character in one of the ranges of code points, both ends included."""

    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Ref:
    """What the rule of that name says."""

    name: str


@dataclass(frozen=True, slots=True)
class Seq:
    """One after the other; empty, it is the empty text."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alt:
    """One of them."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """The node from `least` to `most` times; without an end where `most` is None."""

    node: Node
    least: int
    most: int | None


Node: TypeAlias = Text | Chars | Ref | Seq | Alt | Repeat


def except_chars(ranges: tuple[Range, ...]) -> Chars:
    """One character that is in none of the ranges."""
    kept, low = [], 0
    for first, last in sorted(ranges):
        if first > low:
            kept.append((low, first - 1))
        low = max(low, last + 1)
    if low <= CODE_POINT_MAX:
        kept.append((low, CODE_POINT_MAX))
    return Chars(tuple(kept))
