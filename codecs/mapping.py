"""A mapping: one message's value to typed records, faults and skips.

Built once from its table, when everything wrong with the table is found; then called
for each message, and never raises on data. A part of a message that is at fault leaves
its neighbours alone. None, which is a tombstone, is skipped.

Measured on one core, value to record (bench/codecs.py has every preset, codec included):

    a cryptofeed candle                    1.1 us
    a reading in a Telegraf batch          1.9 us
    a Telegraf message of one reading      4.8 us
    a candle at fault, path and all        19 us

A function is generated from the paths (compiler.py), and only a part it fails on is
walked again to say what is wrong (walk.py). The grammar is in paths.py.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..models.feed import Fault, Mapped, MappedRecord, MappingSpec
from .compiler import compile_plan
from .parts import Part, Source, find_root, spread
from .plan import fields_read, make_plan
from .unwrap import unwrap
from .walk import walk

__all__ = ["Mapping", "Source"]

_SKIPPED = Mapped(skipped=1)


class Mapping:
    """A compiled mapping. Raises ConfigError, naming the table's key, when it is built.

    `generated` is the text of the function it runs.
    """

    __slots__ = ("_map_part", "_plan", "_simple", "_unwrap", "generated", "spec")

    def __init__(self, spec: MappingSpec) -> None:
        self.spec = spec
        self._plan = make_plan(spec)
        self._map_part, self.generated = compile_plan(self._plan)
        self._unwrap = spec.unwrap
        # A message is one part, and its value the part's.
        self._simple = not (self._plan.root or self._plan.each or self._unwrap)

    def __call__(self, value: Any, source: Source) -> Mapped:
        """The records of one decoded message. Never raises."""
        if self._simple and value is not None:
            try:
                record = self._map_part(0, source, None, value)
            except Exception:
                return self._explain(value, source)
            return _SKIPPED if record is None else Mapped((record,))
        if self._unwrap is None:
            return self._map_parts(value, source)
        inner = unwrap(self._unwrap, value)
        if isinstance(inner, Fault):
            return Mapped(faults=(inner,))
        return _placed(self._map_parts(inner.value, source), inner.path)

    @property
    def fields(self) -> frozenset[str] | None:
        """The names that it reads of a message's value; None where it may read others."""
        return None if self._unwrap is not None else fields_read(self._plan)

    def _explain(self, value: Any, source: Source) -> Mapped:
        """What is wrong with a message of one part."""
        walked = walk(self._plan, Part((value,)), source, 0)
        if isinstance(walked, Fault):
            return Mapped(faults=(walked,))
        return _SKIPPED if walked is None else Mapped((walked,))

    def _map_parts(self, value: Any, source: Source) -> Mapped:
        plan = self._plan
        if value is None:
            return _SKIPPED
        root = value if plan.root is None else find_root(plan, value, source)
        if isinstance(root, Fault):
            return Mapped(faults=(root,))
        records: list[MappedRecord] = []
        faults: list[Fault] = []
        skipped = 0
        for index, part in enumerate(spread(plan, root)):
            result: MappedRecord | Fault | None
            if isinstance(part, Fault):
                result = msgspec.structs.replace(part, index=index)
            else:
                key = part.keys[-1] if part.keys else None
                try:
                    result = self._map_part(index, source, key, *part.values)
                except Exception:
                    result = walk(plan, part, source, index)
            if type(result) is MappedRecord:
                records.append(result)
            elif type(result) is Fault:
                faults.append(result)
            else:
                skipped += 1
        return Mapped(tuple(records), tuple(faults), skipped)


def _placed(mapped: Mapped, path: str) -> Mapped:
    """The same with faults that say where they lie in the message, not in the row."""
    if not mapped.faults or path == "$":
        return mapped
    faults = tuple(
        msgspec.structs.replace(
            fault,
            path=fault.path.replace("$", path),
            detail=fault.detail.replace(fault.path, fault.path.replace("$", path)),
        )
        for fault in mapped.faults
    )
    return msgspec.structs.replace(mapped, faults=faults)
