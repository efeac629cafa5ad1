"""Writes down what the engine asks of llama.cpp, so that it can be replayed alone.

One JSON line an operation of a context: `["open", context, cells, settings...]`,
`["run", context, runs, seconds]`, `["fork", ...]`, `["load", ...]`, `["cut", ...]`,
`["slide", ...]`, `["clear", ...]`.
What a bare loop over the same passes costs is the ideal that the engine is held
against (replay.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from .plan import Pass


class Trace:
    """Appends operations to a file; for the engine's thread alone."""

    def __init__(self, path: Path) -> None:
        self._sink = path.open("wb", buffering=1 << 16)
        self._contexts = 0

    def open(self, params: dict[str, Any]) -> int:
        """A new context with these parameters; returns its number."""
        number = self._contexts
        self._contexts += 1
        self._write("open", number, params)
        return number

    def run(self, context: int, one: Pass, seconds: float) -> None:
        """A pass, and how long llama_decode took."""
        runs = [[run.tokens, run.position, run.sequences, run.outputs] for run in one.runs]
        self._write("run", context, runs, seconds)

    def fork(self, context: int, source: int, targets: Iterable[int], position: int) -> None:
        """Every target became the source's first `position` tokens."""
        self._write("fork", context, source, list(targets), position)

    def load(self, context: int, sequence: int, tokens: Sequence[int]) -> None:
        """An unused sequence became these tokens, from saved keys and values."""
        self._write("load", context, sequence, list(tokens))

    def cut(self, context: int, sequences: Iterable[int], position: int) -> None:
        """Sequences were cut back to their first `position` tokens."""
        self._write("cut", context, list(sequences), position)

    def slide(
        self, context: int, sequence: int, first: int, end: int, sharers: Mapping[int, int]
    ) -> None:
        """Tokens were removed from a sequence's middle, the later ones moved up."""
        self._write("slide", context, sequence, first, end, list(sharers.items()))

    def clear(self, context: int) -> None:
        """The context was emptied."""
        self._write("clear", context)

    def _write(self, *operation: Any) -> None:
        self._sink.write(orjson.dumps(operation) + b"\n")
        self._sink.flush()
