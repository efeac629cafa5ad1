"""A mapping: one message's value to typed records, faults and skips.

Built once from its table, when everything wrong with the table is found; then called
for each message, and never raises on data. A part of a message that is at fault leaves
its neighbours alone. None, which is a tombstone, is skipped.

One cryptofeed candle takes about 2 us here (value to record, JSON apart) and one reading
of a Telegraf batch about 1.5 us: a function is generated from the paths (compiler.py),
and only a part it fails on is walked again to say what is wrong (walk.py). The grammar
is in paths.py.
"""

from __future__ import annotations

from typing import Any

from ..models.feed import Fault, Mapped, MappedRecord, MappingSpec
from .compiler import compile_plan
from .parts import Part, Source, find_root, spread
from .plan import make_plan
from .walk import walk

__all__ = ["Mapping", "Source"]

_SKIPPED = Mapped(skipped=1)


class Mapping:
    """A compiled mapping. Raises ConfigError, naming the table's key, when it is built.

    `generated` is the text of the function it runs.
    """

    __slots__ = ("_map_part", "_plan", "_simple", "generated", "spec")

    def __init__(self, spec: MappingSpec) -> None:
        self.spec = spec
        self._plan = make_plan(spec)
        self._map_part, self.generated = compile_plan(self._plan)
        self._simple = self._plan.root is None and not self._plan.each

    def __call__(self, value: Any, source: Source) -> Mapped:
        """The records of one decoded message. Never raises."""
        if value is None:
            return _SKIPPED
        if self._simple:
            try:
                record = self._map_part(0, source, None, value)
            except Exception:
                return self._settle([self._walk(Part((value,)), source, 0)])
            return _SKIPPED if record is None else Mapped((record,))
        root = find_root(self._plan, value, source)
        if isinstance(root, Fault):
            return Mapped(faults=(root,))
        results: list[MappedRecord | Fault | None] = []
        for index, part in enumerate(spread(self._plan, root)):
            if isinstance(part, Fault):
                results.append(Fault(part.reason, part.path, part.detail, index))
                continue
            key = part.keys[-1] if part.keys else None
            try:
                results.append(self._map_part(index, source, key, *part.values))
            except Exception:
                results.append(self._walk(part, source, index))
        return self._settle(results)

    def _walk(self, part: Part, source: Source, index: int) -> MappedRecord | Fault | None:
        return walk(self._plan, part, source, index)

    def _settle(self, results: list[MappedRecord | Fault | None]) -> Mapped:
        return Mapped(
            records=tuple(r for r in results if type(r) is MappedRecord),
            faults=tuple(r for r in results if type(r) is Fault),
            skipped=sum(r is None for r in results),
        )
