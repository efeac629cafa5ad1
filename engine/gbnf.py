"""GBNF, llama.cpp's grammar notation, read into rules. Pure.

The notation is that of llama.cpp's grammars/README.md, read as its parser does
(src/llama-grammar.cpp), with these differences: tokens (`<[1]>`, `<think>`) are refused,
and so is what its parser takes silently for something else: {m,n} above its limit or
with n below m, a range that ends before it begins, an empty class, two rules of a name.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

from flashfeed.models.errors import RequestError

from .grammar_nodes import (
    CODE_POINT_MAX,
    Alt,
    Chars,
    Node,
    Range,
    Ref,
    Repeat,
    Seq,
    Text,
    except_chars,
)
from .grammar_rules import NESTING_MAX, REPETITIONS_MAX

_NAME: Final = re.compile(r"[a-zA-Z0-9-]+")
_SPACE: Final = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES: Final = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_BOUNDS: Final = re.compile(r"\{\s*([0-9]{1,9})\s*(?:(,)\s*([0-9]{1,9})?\s*)?\}")
_HEX: Final = {"x": 2, "u": 4, "U": 8}
_ESCAPES: Final = {"t": "\t", "r": "\r", "n": "\n"} | {one: one for one in '\\"[]-'}
_ANY: Final = Chars(((0, CODE_POINT_MAX),))
_REPEATS: Final[dict[str, tuple[int, int | None]]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_SHOWN: Final = 24


def parse_gbnf(text: str) -> dict[str, Node]:
    """The rules of a grammar, by name.

    Raises RequestError saying the line, and what was expected there.
    """
    return _Parser(text).rules()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text: Final = text
        self._at = 0
        self._depth = 0

    def rules(self) -> dict[str, Node]:
        found: dict[str, Node] = {}
        self._skip(_SPACE_AND_LINES)
        while self._at < len(self._text):
            begin = self._at
            name = self._name()
            if name in found:
                self._at = begin
                self._fail(f"one rule named {name!r}, got a second")
            self._skip(_SPACE)
            if not self._take("::="):
                self._fail("'::=' after the rule's name")
            self._skip(_SPACE_AND_LINES)
            found[name] = self._alternates(_SPACE)
            if self._at < len(self._text) and self._text[self._at] not in "\r\n":
                self._fail("the end of the rule")
            self._skip(_SPACE_AND_LINES)
        return found

    def _alternates(self, space: re.Pattern[str]) -> Node:
        nodes = [self._sequence(space)]
        while self._take("|"):
            self._skip(_SPACE_AND_LINES)
            nodes.append(self._sequence(space))
        return nodes[0] if len(nodes) == 1 else Alt(tuple(nodes))

    def _sequence(self, space: re.Pattern[str]) -> Node:
        nodes: list[Node] = []
        while (node := self._item()) is not None:
            self._skip(space)
            n_repeats = 0
            while (bounds := self._bounds()) is not None:
                n_repeats += 1
                if n_repeats > NESTING_MAX:
                    self._fail(f"at most {NESTING_MAX} repetitions of one another")
                node = Repeat(node, *bounds)
                self._skip(space)
            nodes.append(node)
        return nodes[0] if len(nodes) == 1 else Seq(tuple(nodes))

    def _item(self) -> Node | None:
        if self._take('"'):
            return self._literal()
        if self._take("["):
            return self._class()
        if self._take("("):
            return self._group()
        if self._take("."):
            return _ANY
        if _NAME.match(self._text, self._at):
            return Ref(self._name())
        here = self._text[self._at : self._at + 1]
        if here in ("<", "!"):
            self._fail("characters: tokens (<...>) are not supported; write the text instead")
        if here and here in "*+?{":
            self._fail("something to repeat before it")
        return None

    def _literal(self) -> Node:
        characters = []
        while not self._take('"'):
            characters.append(chr(self._character()))
        return Text("".join(characters))

    def _class(self) -> Node:
        negated = self._take("^")
        ranges: list[Range] = []
        while not self._take("]"):
            first = last = self._character()
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                last = self._character()
            if last < first:
                self._fail(
                    f"a range that ends after it begins, got {chr(first)!r} to {chr(last)!r}"
                )
            ranges.append((first, last))
        if not ranges:
            self._fail("characters between the brackets")
        found = except_chars(tuple(ranges)) if negated else Chars(tuple(ranges))
        if not found.ranges:
            self._fail("a class that leaves a character")
        return found

    def _group(self) -> Node:
        self._depth += 1
        if self._depth > NESTING_MAX:
            self._fail(f"at most {NESTING_MAX} groups inside one another")
        self._skip(_SPACE_AND_LINES)
        node = self._alternates(_SPACE_AND_LINES)
        if not self._take(")"):
            self._fail("')'")
        self._depth -= 1
        return node

    def _bounds(self) -> tuple[int, int | None] | None:
        here = self._text[self._at : self._at + 1]
        if here in _REPEATS:
            self._at += 1
            return _REPEATS[here]
        if here != "{":
            return None
        found = _BOUNDS.match(self._text, self._at)
        if not found:
            self._fail("{m}, {m,} or {m,n}")
        least = int(found[1])
        most = least if not found[2] else int(found[3]) if found[3] else None
        if max(least, most or 0) > REPETITIONS_MAX:
            self._fail(f"repetitions up to {REPETITIONS_MAX}")
        if most is not None and most < least:
            self._fail("{m,n} with n at or above m")
        self._at = found.end()
        return least, most

    def _character(self) -> int:
        if self._at >= len(self._text):
            self._fail("the end of the quotes or brackets")
        one = self._text[self._at]
        if one != "\\":
            self._at += 1
            return self._checked(ord(one))
        kind = self._text[self._at + 1 : self._at + 2]
        if kind in _HEX:
            digits = self._text[self._at + 2 : self._at + 2 + _HEX[kind]]
            if not re.fullmatch(rf"[0-9a-fA-F]{{{_HEX[kind]}}}", digits):
                self._fail(f"{_HEX[kind]} hexadecimal digits after \\{kind}")
            code = self._checked(int(digits, 16))
            self._at += 2 + _HEX[kind]
            return code
        if not kind or kind not in _ESCAPES:
            self._fail('an escape: \\n \\r \\t \\\\ \\" \\[ \\] \\- \\x41 \\u0041 or \\U00000041')
        self._at += 2
        return ord(_ESCAPES[kind])

    def _checked(self, code: int) -> int:
        if code > CODE_POINT_MAX or 0xD800 <= code <= 0xDFFF:
            self._fail(f"a Unicode character, got U+{code:04X}")
        return code

    def _name(self) -> str:
        found = _NAME.match(self._text, self._at)
        if not found:
            self._fail("a rule's name of letters, digits and '-'")
        self._at = found.end()
        return found[0]

    def _take(self, text: str) -> bool:
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _skip(self, space: re.Pattern[str]) -> None:
        found = space.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _fail(self, expected: str) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        shown = self._text[self._at : self._at + _SHOWN] or "the end"
        raise RequestError(f"the grammar's line {line}: expected {expected}, at {shown!r}")
