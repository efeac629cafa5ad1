"""A mapping's meaning, step by step: the reference the compiled mapping must agree with.

Used where the compiled function gave up on a part: it finds every fault of the part,
with its exact path, and where there is none after all, the record. It is total: no
value makes it raise. Slow by design; a clean feed never comes here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ..models.feed import Fault, Outcome
from ..models.records import RECORD_TYPES, record_fields
from .casts import BadValue, flag, is_kind, same_scalar, session_key, show, text, time_cast
from .parts import Part, Source, choice_text, first, item_text, present_text, where
from .paths import Choice, Constant, Expression, Template
from .pivot import Pivot, PivotFault, pivoted
from .plan import Bound, Plan, When

_FAULTS_SHOWN_MAX: Final = 4


def walk(plan: Plan, part: Part, source: Source, index: int) -> Outcome:
    """What becomes of one part, which is the message's `index`-th."""
    return _Walk(plan, part, source, index).result()


class _Stop(Exception):
    """A value is not as expected; says what was expected, what was there, and where."""

    def __init__(self, expected: str, got: str, path: str) -> None:
        super().__init__(expected)
        self.path = path
        self.detail = f"expected {expected}, got {got} at {path}"


class _Walk:
    """Reads one part, keeping every fault on the way."""

    def __init__(self, plan: Plan, part: Part, source: Source, index: int) -> None:
        self.plan = plan
        self.part = part
        self.source = source
        self.index = index
        self.stops: list[_Stop] = []

    def result(self) -> Outcome:
        plan = self.plan
        if not all(self._holds(when) for when in plan.when):
            return None
        if plan.final is not None:
            final = self._collect(plan.final, "true or false", flag)
            if self.stops:
                return self._fault()
            if not final:
                return None
        key = self._collect(plan.key, "non-empty key", lambda value: session_key(text(value)))
        fields = self._time()
        for bound in plan.fields:
            value = self._field(bound)
            if value is not None:
                fields[bound.field.name] = value
        if plan.pivot is not None:
            items = self._pivoted(plan.pivot)
            if not items and not self.stops:
                return None
            fields |= items
        if self.stops:
            return self._fault()
        try:
            record = RECORD_TYPES[plan.model](**fields)
        except ValueError as error:
            path = where(plan, self.part)
            detail = f"{error} at {path}"
            return Fault(reason="validate", path=path, detail=detail, index=self.index)
        return key, record_fields(record)

    def _pivoted(self, pivot: Pivot) -> dict[str, Any]:
        try:
            return pivoted(pivot, self.part, self.source)
        except PivotFault as fault:
            path = item_text(self.plan, pivot.items, fault.item, fault.choice, len(self.part.keys))
            self.stops.append(_Stop(fault.expected, show(fault.got), path))
            return {}

    def _time(self) -> dict[str, Any]:
        if self.plan.time is None:
            stamp = self.source.timestamp_ms
            return {} if stamp is None else {"timestamp": stamp / 1e3}
        unit = self.plan.time_unit
        return {"timestamp": self._collect(self.plan.time, f"time in {unit}", time_cast(unit))}

    def _field(self, bound: Bound) -> Any:
        if isinstance(bound.expression, Constant):
            return bound.constant
        field = bound.field
        optional = not field.required
        if optional and isinstance(bound.expression, Choice):
            try:
                if first(bound.expression, self.part, self.source) is None:
                    return None
            except BadValue:
                pass  # not absent but unreadable: reported below
        return self._collect(bound.expression, field.expected, field.cast)

    def _collect(self, expression: Expression, expected: str, cast: Callable[[Any], Any]) -> Any:
        """The expression's value, cast; a fault is kept and gives None."""
        try:
            return self._read(expression, expected, cast)
        except _Stop as stop:
            self.stops.append(stop)
            return None

    def _read(self, expression: Expression, expected: str, cast: Callable[[Any], Any]) -> Any:
        if isinstance(expression, Choice):
            return self._read_choice(expression, expected, cast)
        if isinstance(expression, Template):
            value = "".join(
                piece if isinstance(piece, str) else self._read_choice(piece, "text", text)
                for piece in expression.parts
            )
        else:
            value = expression.text
        try:
            return cast(value)
        except BadValue as bad:
            raise _Stop(str(bad), show(value), where(self.plan, self.part)) from None

    def _read_choice(self, choice: Choice, expected: str, cast: Callable[[Any], Any]) -> Any:
        place = self.plan, choice, self.part
        try:
            value = first(choice, self.part, self.source)
        except BadValue as bad:
            raise _Stop(str(bad), "other bytes", choice_text(*place)) from None
        if value is None:
            raise _Stop(expected, "nothing", choice_text(*place))
        try:
            return cast(value)
        except BadValue as bad:
            raise _Stop(str(bad), show(value), present_text(*place, self.source)) from None

    def _holds(self, when: When) -> bool:
        try:
            value = first(when.choice, self.part, self.source)
        except BadValue:
            return False
        if when.kinds:
            return is_kind(value, when.kinds)
        return any(same_scalar(value, wanted) for wanted in when.allowed)

    def _fault(self) -> Fault:
        shown = [stop.detail for stop in self.stops[:_FAULTS_SHOWN_MAX]]
        if len(self.stops) > _FAULTS_SHOWN_MAX:
            shown.append(f"and {len(self.stops) - _FAULTS_SHOWN_MAX} more")
        return Fault(
            reason="map", path=self.stops[0].path, detail="; ".join(shown), index=self.index
        )
