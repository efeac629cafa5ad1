"""Copies of sequences as they once were, where no sequence can be cut back.

A recurrent state is one value for all tokens so far: llama.cpp cannot take the last ones out
of it again (llama-memory-recurrent.cpp, seq_rm). What may have to come back is therefore kept
as a sequence of its own, which costs no more than its state: llama.cpp copies one when
somebody writes on over it. Knows no llama.cpp: how to copy and to empty a sequence it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

KEPT: Final = 2
"""Copies of one sequence: as it was committed last, and before that, which is where the
open candle's next version wants it."""


class Checkpoints:
    """The copies of each sequence, by the position where they end.

    `ids` are those of the copies; `copy` makes empty sequences (its second argument) the
    first so many tokens of another, which has no more; `empty` removes whole sequences.
    """

    def __init__(
        self,
        ids: Iterable[int],
        copy: Callable[[int, Sequence[int], int], None],
        empty: Callable[[Sequence[int]], None],
    ) -> None:
        self._free: Final = list(ids)
        self._copy: Final = copy
        self._empty: Final = empty
        self._kept: Final[dict[int, dict[int, int]]] = {}

    def at(self, sequence: int, position: int) -> int | None:
        """The copy of a sequence's first `position` tokens, None where there is none."""
        return self._kept.get(sequence, {}).get(position)

    def positions(self, sequence: int) -> tuple[int, ...]:
        """Where it can go back to, ascending."""
        return tuple(self._kept.get(sequence, ()))

    def commit(self, sequence: int, position: int, most: int = KEPT) -> None:
        """Copies the sequence, which ends at `position`; of older copies as many stay as
        make `most` with it."""
        self.drop(sequence, position + 1)
        if not position or self.at(sequence, position) is not None:
            return
        kept = self._kept.setdefault(sequence, {})
        while len(kept) >= most:
            self._give_back([kept.pop(min(kept))])
        kept[position] = self._free.pop()
        self._copy(sequence, (kept[position],), position)

    def go_back(self, sequence: int, position: int) -> None:
        """The sequence becomes its first `position` tokens, of which there is a copy, or 0."""
        copy = self._kept[sequence][position] if position else None
        self._empty((sequence,))
        if copy is not None:
            self._copy(copy, (sequence,), position)
        self.drop(sequence, position + 1)

    def drop(self, sequence: int, position: int = 0) -> None:
        """Empties the copies that end at `position` or behind it."""
        kept = self._kept.get(sequence)
        if kept is None:
            return
        self._give_back([kept.pop(end) for end in [end for end in kept if end >= position]])
        if not kept:
            del self._kept[sequence]

    def forget(self) -> None:
        """There are none any more: the context is empty."""
        for kept in self._kept.values():
            self._free.extend(kept.values())
        self._kept.clear()

    def _give_back(self, copies: Sequence[int]) -> None:
        if copies:
            self._empty(copies)
            self._free.extend(copies)
