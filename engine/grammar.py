"""Which tokens may come next under a grammar. Pure numpy.

A grammar is run as llama.cpp runs it: a set of pushdown stacks, each at the next element
that it wants, and a token may come if its bytes lead at least one of them on. llama.cpp's
own run (llama-grammar.cpp) has no limit: under `s ::= " " s "b" | " " s "c" | "!"` every
space doubles the stacks, the fifteenth takes 22 s, nothing can interrupt it, and what it
does not expect it throws, through ctypes, which ends the process. So this is ours, over
bytes, with its work counted; the tests hold it against llama.cpp's, token by token.

stack   a place in the program and what is below it, as one number; 0 is the empty stack
state   a set of stacks: what the text so far can go on with
row     a state's next state for each of the 256 bytes; DEAD where none can follow

Rows are made when first needed and kept, so that text in places like those before it
(inside a string, between items) costs nothing but look-ups.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flashfeed.models.errors import RequestError
from flashfeed.models.generation import GenerateOptions

from .gbnf import parse_gbnf
from .grammar_rules import END, Program, called, compile_rules
from .json_schema import parse_json_schema

WORK_MAX: Final = 500_000
"""Stacks looked at for one token, some 0.5 s. More, and the grammar is too ambiguous."""
KEPT_MAX: Final = 300_000
"""Stacks, and stacks in states, that are kept before all but the present are forgotten."""
MASKS_MAX: Final = 64
"""States whose allowed tokens are kept, a byte a token of the vocabulary."""

DEAD: Final = -1
_EMPTY: Final = 0
_GROUP_WORK: Final = 20
"""What a group of tokens costs, in stacks."""
_TOO_AMBIGUOUS: Final = (
    "the grammar is too ambiguous: the text so far can be read in too many ways, or nests "
    "too deeply; let alternatives differ in their first characters"
)

Mask: TypeAlias = NDArray[np.bool_]
_BytesRow: TypeAlias = NDArray[np.int32]


class Vocabulary:
    """The bytes of every token of a model, laid out to be matched all at once.

    A token without bytes (a special token: those are never text) is never allowed.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces: Final = tuple(pieces)
        self.lengths: Final = np.array([len(piece) for piece in self.pieces], np.int32)
        self.bytes: Final = np.frombuffer(b"".join(self.pieces) or b"\0", np.uint8)
        self.begins: Final = np.concatenate(([0], np.cumsum(self.lengths)[:-1])).astype(np.int64)
        self.with_bytes: Final = np.flatnonzero(self.lengths).astype(np.int32)


def compile_options(options: GenerateOptions) -> Program | None:
    """The program of the options' grammar or schema; None where they have neither.

    Raises RequestError saying what is wrong with it. Takes some milliseconds, and for
    the longest that is accepted about a second: best done off the engine's thread.
    """
    if options.json_schema is not None:
        return compile_rules(parse_json_schema(options.json_schema))
    return compile_rules(parse_gbnf(options.grammar)) if options.grammar else None


class _State:
    """A set of stacks, its row once made, and the tokens allowed in it once asked for."""

    __slots__ = ("mask", "row", "stacks")

    def __init__(self, stacks: tuple[int, ...]) -> None:
        self.stacks: Final = stacks
        self.row: _BytesRow | None = None
        self.mask: Mask | None = None


class Grammar:
    """Where one generation stands in its grammar.

    Every call raises RequestError where the grammar is too ambiguous: where more than
    WORK_MAX stacks would have to be looked at.
    """

    def __init__(self, program: Program, vocabulary: Vocabulary, ends: Iterable[int]) -> None:
        self._program: Final = program
        self._vocabulary: Final = vocabulary
        self._ends: Final = frozenset(ends)
        self._forget()
        self._work = 0
        starts = program.starts[program.root]
        self._now = self._state({one for at in starts for one in self._expanded(at, _EMPTY)})

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return self._is_complete(self._now)

    def allows(self, token: int) -> bool:
        """Whether the token may come next."""
        if token in self._ends:
            return self.is_complete
        return self._after(token) != DEAD

    def accept(self, token: int) -> None:
        """Goes on after the token. An end of generation changes nothing.

        Raises RequestError where the grammar does not allow it; nothing changes then.
        """
        if not self.allows(token):
            raise RequestError(f"the grammar does not allow token {token} here")
        if token in self._ends:
            return
        self._now = self._after(token)
        if self._kept > KEPT_MAX:
            self._start_afresh()

    def allowed(self) -> Mask:
        """For every token whether it may come next. Not to be written to."""
        state = self._states[self._now]
        if state.mask is None:
            if len(self._masked) >= MASKS_MAX:
                self._states[self._masked.pop(0)].mask = None
            self._masked.append(self._now)
            state.mask = self._allowed()
        return state.mask

    def _allowed(self) -> Mask:
        """Reads all tokens at once, byte by byte; those in one state go on together."""
        self._work = 0
        words = self._vocabulary
        mask = np.zeros(len(words.pieces), np.bool_)
        if self._is_complete(self._now):
            mask[list(self._ends)] = True
        groups = {self._now: words.with_bytes}
        depth = 0
        while groups:
            found: dict[int, list[NDArray[np.int32]]] = {}
            for state, tokens in groups.items():
                self._count(_GROUP_WORK)
                row = self._row(state)
                after = row[words.bytes[words.begins[tokens] + depth]]
                ended = words.lengths[tokens] == depth + 1
                alive = after != DEAD
                mask[tokens[alive & ended]] = True
                going = alive & ~ended
                tokens_going, states_going = tokens[going], after[going]
                for one in set(row.tolist()) - {DEAD}:
                    into = tokens_going[states_going == one]
                    if len(into):
                        found.setdefault(one, []).append(into)
            groups = {state: np.concatenate(parts) for state, parts in found.items()}
            depth += 1
        mask.setflags(write=False)
        return mask

    def _after(self, token: int) -> int:
        """The state after the token's bytes; DEAD where they do not fit."""
        self._work = 0
        piece = self._vocabulary.pieces[token]
        state = self._now if piece else DEAD
        for byte in piece:
            if state == DEAD:
                break
            state = int(self._row(state)[byte])
        return state

    def _row(self, number: int) -> _BytesRow:
        state = self._states[number]
        if state.row is None:
            state.row = self._new_row(state)
        return state.row

    def _new_row(self, state: _State) -> _BytesRow:
        code, classes = self._program.code, self._program.classes
        by_class: dict[int, list[int]] = {}
        for stack in state.stacks:
            if stack != _EMPTY:
                by_class.setdefault(code[self._nodes[stack][0]], []).append(stack)
        # Bytes that the same classes want lead to the same state.
        parts: list[tuple[int, tuple[int, ...]]] = [((1 << 256) - 1, ())]
        for kind in by_class:
            wanted = classes[kind]
            parts = [
                (bits, kinds)
                for before, wanting in parts
                for bits, kinds in (
                    (before & wanted, (*wanting, kind)),
                    (before & ~wanted, wanting),
                )
                if bits
            ]
            self._count(len(parts))
        row = np.full(256, DEAD, np.int32)
        for bits, kinds in parts:
            if not kinds:
                continue
            stacks: set[int] = set()
            for kind in kinds:
                for stack in by_class[kind]:
                    after = self._passed(stack)
                    self._count(1 + len(after))
                    stacks.update(after)
            raw = np.frombuffer(bits.to_bytes(32, "little"), np.uint8)
            row[np.unpackbits(raw, bitorder="little").astype(np.bool_)] = self._state(stacks)
        self._kept += 256
        return row

    def _passed(self, stack: int) -> tuple[int, ...]:
        """The stacks after the byte that this stack wants."""
        known = self._after_byte.get(stack)
        if known is None:
            place, below = self._nodes[stack]
            known = self._after_byte[stack] = self._expanded(place + 1, below)
        return known

    def _expanded(self, place: int, below: int) -> tuple[int, ...]:
        """The stacks, all at a byte class or empty, that this place leads to."""
        code, starts = self._program.code, self._program.starts
        found: list[int] = []
        todo, seen = [(place, below)], {(place, below)}
        while todo:
            self._count(1)
            place, below = todo.pop()
            element = code[place]
            if element >= 0:
                found.append(self._stack(place, below))
            elif element < END:
                # The last call of a rule leaves nothing of the rule to come back to.
                under = below if code[place + 1] == END else self._stack(place + 1, below)
                for start in starts[called(element)]:
                    if (start, under) not in seen:
                        seen.add((start, under))
                        todo.append((start, under))
            elif below == _EMPTY:
                found.append(_EMPTY)
            elif self._nodes[below] not in seen:
                seen.add(self._nodes[below])
                todo.append(self._nodes[below])
        self._kept += len(found)
        return tuple(found)

    def _stack(self, place: int, below: int) -> int:
        number = self._numbers.setdefault((place, below), len(self._nodes))
        if number == len(self._nodes):
            self._nodes.append((place, below))
            self._kept += 1
        return number

    def _state(self, stacks: set[int]) -> int:
        key = tuple(sorted(stacks))
        number = self._by_stacks.setdefault(key, len(self._states))
        if number == len(self._states):
            self._states.append(_State(key))
            self._kept += len(key)
        return number

    def _is_complete(self, state: int) -> bool:
        return self._states[state].stacks[:1] == (_EMPTY,)

    def _count(self, work: int) -> None:
        self._work += work
        if self._work > WORK_MAX:
            raise RequestError(_TOO_AMBIGUOUS)

    def _forget(self) -> None:
        self._nodes: list[tuple[int, int]] = [(0, _EMPTY)]
        self._numbers: dict[tuple[int, int], int] = {}
        self._after_byte: dict[int, tuple[int, ...]] = {}
        self._states: list[_State] = []
        self._by_stacks: dict[tuple[int, ...], int] = {}
        self._masked: list[int] = []
        self._kept = 0

    def _start_afresh(self) -> None:
        """Keeps the present stacks alone."""
        nodes, stacks = self._nodes, self._states[self._now].stacks
        self._forget()
        moved = {_EMPTY: _EMPTY}
        for stack in stacks:
            path = [stack]
            while path[-1] not in moved:
                path.append(nodes[path[-1]][1])
            for one in reversed(path[:-1]):
                place, below = nodes[one]
                moved[one] = self._stack(place, moved[below])
        self._now = self._state({moved[stack] for stack in stacks})
        if self._kept > KEPT_MAX // 2:
            raise RequestError(_TOO_AMBIGUOUS)
