"""Rules of a grammar, compiled to a program over bytes. Pure.

A grammar is a dict of named nodes (`grammar_nodes.py`). `compile_rules` checks it and
makes the `Program` that `grammar.py` runs; repetitions are written out, so its length is
the grammar's whole size.

element  one step of a program: a class of bytes, a call of a rule, or END
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Final

from flashfeed.models.errors import RequestError

from .grammar_nodes import CODE_POINT_MAX, Alt, Chars, Node, Range, Ref, Repeat, Seq, Text

ELEMENTS_MAX: Final = 100_000
"""Elements in a program, repetitions written out."""
REPETITIONS_MAX: Final = 2000
"""The bounds of {m,n}; llama.cpp's own limit."""
NESTING_MAX: Final = 64
"""Depth of groups in a grammar's text, and of schemas in a schema."""

END: Final = -1
_FIRST_CALL: Final = -2
_SURROGATES: Final = (0xD800, 0xDFFF)
# The last code point of each length in UTF-8.
_UTF8_ENDS: Final = (0x7F, 0x7FF, 0xFFFF, CODE_POINT_MAX)


@dataclass(frozen=True, slots=True)
class Program:
    """Compiled rules.

    `code[i]` is END, a byte class (0 and up) or a call of a rule (below END, read by
    `called`). `classes[c]` has bit b set where byte b is in the class. `starts[r]` are
    the places in `code` where the alternates of rule r begin; `root` is a rule.
    """

    code: tuple[int, ...]
    classes: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
    root: int


def called(element: int) -> int:
    """The rule that a call calls."""
    return _FIRST_CALL - element


def compile_rules(rules: Mapping[str, Node], root: str = "root") -> Program:
    """The program of these rules.

    Raises RequestError where a name is not defined, where it would be too long, and
    where a rule can come back to itself before a character (left recursion).
    """
    if root not in rules:
        raise RequestError(
            f"expected the grammar to have a rule named {root!r}, got {names(rules)}"
        )
    compiler = _Compiler(rules)
    program = compiler.program(root)
    _check_left_recursion(program, compiler.labels)
    return program


def names(rules: Mapping[str, Node]) -> str:
    """The first rules' names, for a message."""
    shown = ", ".join(list(rules)[:8])
    return f"{shown}, ..." if len(rules) > 8 else shown or "none"


@dataclass(slots=True)
class _Compiler:
    rules: Mapping[str, Node]
    code: list[int] = field(default_factory=list)
    starts: list[tuple[int, ...]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    classes: dict[int, int] = field(default_factory=dict)
    by_name: dict[str, int] = field(default_factory=dict)
    by_ranges: dict[tuple[Range, ...], int] = field(default_factory=dict)
    label: str = ""

    def program(self, root: str) -> Program:
        for name in self.rules:
            self.by_name[name] = self._new_rule(name)
        for name, node in self.rules.items():
            self.label = name
            self._define(self.by_name[name], self._alternates(node))
        return Program(
            tuple(self.code), tuple(self.classes), tuple(self.starts), self.by_name[root]
        )

    def _new_rule(self, label: str) -> int:
        self.starts.append(())
        self.labels.append(label)
        return len(self.starts) - 1

    def _define(self, rule: int, alternates: list[list[int]]) -> int:
        starts = []
        for elements in alternates:
            starts.append(len(self.code))
            self._check_size(len(elements))
            self.code += elements
            self.code.append(END)
        self.starts[rule] = tuple(starts)
        return rule

    def _check_size(self, more: int) -> None:
        if len(self.code) + more > ELEMENTS_MAX:
            raise RequestError(
                f"expected a grammar of at most {ELEMENTS_MAX} elements, rule {self.label!r} "
                "makes it longer; use smaller repetitions"
            )

    def _alternates(self, node: Node) -> list[list[int]]:
        if isinstance(node, Alt):
            return [self._elements(one) for one in node.nodes]
        return [self._elements(node)]

    def _group(self, alternates: list[list[int]]) -> int:
        rule = self._new_rule(self.label)
        return _FIRST_CALL - self._define(rule, alternates)

    def _elements(self, node: Node) -> list[int]:
        match node:
            case Text(text):
                return [self._class(1 << byte) for byte in text.encode("utf-8", "replace")]
            case Chars(ranges):
                return [self._chars(ranges)]
            case Ref(name):
                if name not in self.by_name:
                    raise RequestError(
                        f"rule {self.label!r} of the grammar names {name!r}, which is not "
                        f"defined; there are {names(self.rules)}"
                    )
                return [_FIRST_CALL - self.by_name[name]]
            case Seq(nodes):
                joined: list[int] = []
                for one in nodes:
                    joined += self._elements(one)
                    self._check_size(len(joined))
                return joined
            case Alt():
                return [self._group(self._alternates(node))]
            case Repeat(one, least, most):
                return self._repeat(one, least, most)

    def _repeat(self, node: Node, least: int, most: int | None) -> list[int]:
        if least < 0 or max(least, most or 0) > REPETITIONS_MAX:
            raise RequestError(
                f"expected repetitions from 0 to {REPETITIONS_MAX}, got "
                f"{least} to {most} in rule {self.label!r} of the grammar"
            )
        if most is not None and most < least:
            raise RequestError(
                f"expected a repetition's end at or above its beginning, got {least} to {most} "
                f"in rule {self.label!r} of the grammar"
            )
        elements = self._elements(node)
        unit = elements[0] if len(elements) == 1 else self._group([elements])
        repeated = [unit] * least
        if most is None:
            # more ::= unit more |
            more = self._new_rule(self.label)
            self._define(more, [[unit, _FIRST_CALL - more], []])
            return [*repeated, _FIRST_CALL - more]
        # more(n) ::= unit more(n - 1) |
        rest: list[int] = []
        for _ in range(most - least):
            rest = [self._group([[unit, *rest], []])]
        return repeated + rest

    def _class(self, bits: int) -> int:
        return self.classes.setdefault(bits, len(self.classes))

    def _chars(self, ranges: tuple[Range, ...]) -> int:
        known = self.by_ranges.get(ranges)
        if known is None:
            sequences = [one for part in _without_surrogates(ranges) for one in utf8_ranges(*part)]
            single = 0
            longer = []
            for one in sequences:
                if len(one) == 1:
                    single |= _bits(*one[0])
                else:
                    longer.append([self._class(_bits(*part)) for part in one])
            alternates = ([[self._class(single)]] if single else []) + longer
            plain = len(alternates) == 1 and len(alternates[0]) == 1
            known = alternates[0][0] if plain else self._group(alternates)
            self.by_ranges[ranges] = known
        return known


def _bits(first: int, last: int) -> int:
    return (1 << (last + 1)) - (1 << first)


def _without_surrogates(ranges: tuple[Range, ...]) -> Iterator[Range]:
    for first, last in ranges:
        if first < _SURROGATES[0]:
            yield first, min(last, _SURROGATES[0] - 1)
        if last > _SURROGATES[1]:
            yield max(first, _SURROGATES[1] + 1), last


def utf8_ranges(first: int, last: int) -> Iterator[tuple[Range, ...]]:
    """The code points from first to last as sequences of byte ranges.

    The way of Cox, "Regular Expression Matching in the Wild" (2010): cut where the length
    changes, then until all bytes but the leading ones run over their whole range.
    """
    for end in _UTF8_ENDS:
        if first <= end < last:
            yield from utf8_ranges(first, end)
            yield from utf8_ranges(end + 1, last)
            return
    if last > 0x7F:
        for bits in (6, 12, 18):
            low = (1 << bits) - 1
            if first & ~low == last & ~low:
                continue
            if first & low:
                yield from utf8_ranges(first, first | low)
                yield from utf8_ranges((first | low) + 1, last)
                return
            if last & low != low:
                yield from utf8_ranges(first, (last & ~low) - 1)
                yield from utf8_ranges(last & ~low, last)
                return
    yield tuple(zip(chr(first).encode(), chr(last).encode(), strict=True))


def _check_left_recursion(program: Program, labels: list[str]) -> None:
    """A rule must not come back to itself before a byte, or its stacks grow for ever.

    llama.cpp looks only at rules that are empty by their own text, and takes twice the
    time for each step of a chain (llama-grammar.cpp, llama_grammar_detect_left_recursion).
    """
    empty = _empty_rules(program)
    first: dict[int, set[int]] = {}
    for rule, starts in enumerate(program.starts):
        reached = first.setdefault(rule, set())
        for at in starts:
            place = at
            while program.code[place] < END:
                target = called(program.code[place])
                # more ::= unit more: it comes back as itself, nothing grows.
                if target != rule or program.code[place + 1] != END or place == at:
                    reached.add(target)
                if not empty[target]:
                    break
                place += 1
    try:
        TopologicalSorter(first).prepare()
    except CycleError as error:
        cycle = [labels[rule] for rule in error.args[1]]
        shown = " -> ".join(
            name for i, name in enumerate(cycle[:8]) if not i or cycle[i - 1] != name
        )
        raise RequestError(
            f"the grammar is left-recursive: {shown} comes back to itself before any "
            "character; let a character come first, or write a repetition"
        ) from None


def _empty_rules(program: Program) -> list[bool]:
    """For each rule whether it has the empty text."""
    empty = [False] * len(program.starts)
    waiting: dict[int, list[tuple[int, int]]] = {}
    todo = [(rule, at) for rule, starts in enumerate(program.starts) for at in starts]
    while todo:
        rule, at = todo.pop()
        if empty[rule]:
            continue
        while program.code[at] < END and empty[called(program.code[at])]:
            at += 1
        if program.code[at] == END:
            empty[rule] = True
            todo += waiting.pop(rule, ())
        elif program.code[at] < END:
            waiting.setdefault(called(program.code[at]), []).append((rule, at))
    return empty
