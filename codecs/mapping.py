"""A mapping: one message's value to records, faults and skips.

Built once from its table, when everything wrong with the table is found; then used
for each message, and never raises on data. A part of a message that is at fault leaves
its neighbours alone. None, which is a tombstone, is skipped. A feed takes what `parts`
gives and packs it; a call makes typed records of it, for who looks at them.

Measured on one core, value to record (bench/codecs.py has every preset, codec included):

    a cryptofeed candle                    1.1 us
    a reading in a Telegraf batch          1.9 us
    a Telegraf message of one reading      4.8 us
    a candle at fault, path and all        19 us

A function is generated from the paths (compiler.py), and only a part it fails on is
walked again to say what is wrong (walk.py). The grammar is in paths.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..models.feed import Fault, Mapped, MappedRecord, MappingSpec, Outcome
from ..models.records import RECORD_TYPES
from .compiler import compile_plan
from .parts import Part, Source, find_root, spread
from .plan import fields_read, make_plan
from .unwrap import unwrap
from .walk import walk

__all__ = ["Mapping", "Source"]


class Mapping:
    """A compiled mapping. Raises ConfigError, naming the table's key, when it is built.

    `fields` are the names that it reads of a message's value, None where it may read others;
    with them a value may also be a Row. `generated` is the text of the functions it runs.
    """

    __slots__ = (
        "_map_part",
        "_map_row",
        "_plan",
        "_simple",
        "_unwrap",
        "fields",
        "generated",
        "spec",
    )

    def __init__(self, spec: MappingSpec) -> None:
        self.spec = spec
        self._plan = make_plan(spec)
        self._map_part, self._map_row, self.generated = compile_plan(self._plan)
        self._unwrap = spec.unwrap
        self.fields = None if spec.unwrap is not None else fields_read(self._plan)
        # A message is one part, and its value the part's.
        self._simple = not (self._plan.root or self._plan.each or self._unwrap)

    def __call__(self, value: Any, source: Source) -> Mapped:
        """The typed records of one decoded message. Never raises."""
        records: list[MappedRecord] = []
        faults: list[Fault] = []
        skipped = 0
        for index, outcome in enumerate(self.parts(value, source)):
            if isinstance(outcome, Fault):
                faults.append(outcome)
            elif outcome is None:
                skipped += 1
            else:
                key, fields = outcome
                record = RECORD_TYPES[self._plan.model](**fields)
                records.append(MappedRecord(key, index, record))
        return Mapped(tuple(records), tuple(faults), skipped)

    def parts(self, value: Any, source: Source) -> Sequence[Outcome]:
        """What becomes of each part of one decoded message, in order. Never raises."""
        if self._simple and value is not None:
            try:
                if type(value) is tuple and self._map_row is not None:
                    return (self._map_row(source, value),)
                return (self._map_part(source, None, value),)
            except Exception:
                return (walk(self._plan, Part((self._whole(value),)), source, 0),)
        if self._unwrap is None:
            return self._map_parts(value, source)
        inner = unwrap(self._unwrap, value)
        if isinstance(inner, Fault):
            return (inner,)
        return _placed(self._map_parts(inner.value, source), inner.path)

    def _whole(self, value: Any) -> Any:
        """The object that a Row stands for."""
        if type(value) is not tuple or self.fields is None:
            return value
        return {name: one for name, one in zip(self.fields, value, strict=False) if one is not None}

    def _map_parts(self, value: Any, source: Source) -> Sequence[Outcome]:
        plan = self._plan
        if value is None:
            return (None,)
        root = value if plan.root is None else find_root(plan, value, source)
        if isinstance(root, Fault):
            return (root,)
        outcomes: list[Outcome] = []
        for index, part in enumerate(spread(plan, root)):
            if isinstance(part, Fault):
                outcomes.append(msgspec.structs.replace(part, index=index))
                continue
            key = part.keys[-1] if part.keys else None
            try:
                outcomes.append(self._map_part(source, key, *part.values))
            except Exception:
                outcomes.append(walk(plan, part, source, index))
        return outcomes


def _placed(outcomes: Sequence[Outcome], path: str) -> Sequence[Outcome]:
    """The same with faults that say where they lie in the message, not in the row."""
    if path == "$":
        return outcomes
    return [_below(one, path) if isinstance(one, Fault) else one for one in outcomes]


def _below(fault: Fault, path: str) -> Fault:
    below = fault.path.replace("$", path)
    return msgspec.structs.replace(
        fault, path=below, detail=fault.detail.replace(fault.path, below)
    )
