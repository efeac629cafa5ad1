"""A plan to one Python function that maps one part of a message, for the clean case.

The function takes the part's values (outermost first), its key, the message's source
and the part's index; it returns the record, None where a rule skips the part, and
raises anything at all where something is not as expected: then walk.py says what.

What is emitted: assignments, subscripts, comparisons and calls of the names in `_NAMES`.
Text from a configuration enters in one way only, as a string literal written by
`ascii()`, or as an entry C0, C1, ... of the constants; it is never code. The emitted
text is kept as `Mapping.generated` so that a person can read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from ..models.feed import MappedRecord
from ..models.records import RECORD_TYPES
from .casts import (
    SECONDS_MAX,
    TIME_SCALES,
    BadValue,
    Field,
    flag,
    header_text,
    hl7_time,
    integer,
    is_kind,
    iso_time,
    message_text,
    number,
    same_scalar,
    seconds,
    selects,
    session_key,
    text,
)
from .parts import Part
from .paths import Choice, Constant, Expression, Index, Name, Path, Step, Template
from .pivot import pivoted
from .plan import Bound, Plan, When

MapPart = Callable[..., MappedRecord | None]


def compile_plan(plan: Plan) -> tuple[MapPart, str]:
    """The function for a plan's parts, and its text."""
    writer = _Writer(plan)
    source = writer.write()
    scope: dict[str, Any] = {
        **_NAMES,
        **writer.constants,
        "__builtins__": {},
        "Record": RECORD_TYPES[plan.model],
    }
    exec(compile(source, f"<mapping to {plan.model}>", "exec"), scope)
    return cast(MapPart, scope["map_part"]), source


class _Writer:
    """Writes one function. `value_N` holds the part's value at level N."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.depth = len(plan.each)
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self.variables = 0

    def write(self) -> str:
        plan = self.plan
        for when in plan.when:
            self._when(when)
        if plan.final is not None:
            value = self._value(plan.final)
            self._line(f"if {value} is not True and not flag({value}): return None")
        key = self._key(plan.key)
        arguments = [f"timestamp={self._time()}"]
        arguments += [f"{bound.field.name}={self._field(bound)}" for bound in plan.fields]
        if plan.pivot is not None:
            pivot = self._constant(plan.pivot)
            self._line(f"p = pivoted({pivot}, part({self._values()}), source)")
            self._line("if not p: return None")
            arguments.append("**p")
        self._line(f"return MappedRecord({key}, index, Record({', '.join(arguments)}))")
        body = "\n".join(f"    {line}" for line in self.lines)
        return f"def map_part(index, source, k, {self._values()}):\n{body}\n"

    def _values(self) -> str:
        return ", ".join(f"value_{level}" for level in range(self.depth + 1))

    def _line(self, line: str) -> None:
        self.lines.append(line)

    def _new(self) -> str:
        self.variables += 1
        return f"x{self.variables}"

    def _constant(self, value: Any) -> str:
        name = f"C{len(self.constants)}"
        self.constants[name] = value
        return name

    def _when(self, when: When) -> None:
        value = self._value(when.choice, soft=True)
        if when.kinds:
            self._line(f"if not is_kind({value}, {self._constant(when.kinds)}): return None")
        elif all(type(wanted) is str for wanted in when.allowed):
            if len(when.allowed) == 1:
                self._line(f"if {value} != {when.allowed[0]!a}: return None")
            else:
                self._line(f"if {value} not in {self._constant(when.allowed)}: return None")
        else:
            tests = " or ".join(
                f"same_scalar({value}, {self._constant(wanted)})" for wanted in when.allowed
            )
            self._line(f"if not ({tests}): return None")

    def _key(self, expression: Expression) -> str:
        result = self._text(expression)
        # A template with literal text in it cannot come out empty.
        if isinstance(expression, Template) and any(
            isinstance(part, str) for part in expression.parts
        ):
            return result
        return f"session_key({result})"

    def _time(self) -> str:
        plan = self.plan
        if plan.time is None:
            stamp = self._new()
            self._line(f"{stamp} = source.timestamp_ms")
            return f"None if {stamp} is None else {stamp} / 1e3"
        value = self._value(plan.time)
        if plan.time_unit == "iso":
            return f"iso_time({value})"
        if plan.time_unit == "hl7":
            return f"hl7_time({value})"
        self._line(f"if type({value}) is not float: {value} = number({value})")
        if plan.time_unit != "s":
            self._line(f"{value} = {value} / {TIME_SCALES[plan.time_unit]!r}")
        self._line(f"if not {-SECONDS_MAX!r} < {value} < {SECONDS_MAX!r}: seconds({value})")
        return value

    def _field(self, bound: Bound) -> str:
        if isinstance(bound.expression, Constant):
            return self._constant(bound.constant)
        if isinstance(bound.expression, Template):
            value = self._new()
            self._line(f"{value} = {self._text(bound.expression)}")
            optional = False
        else:
            optional = not bound.field.required
            value = self._value(bound.expression, soft=optional)
        convert = self._convert(bound.field, value)
        self._line(f"if {value} is not None: {convert}" if optional else convert)
        return value

    def _convert(self, field: Field, value: str) -> str:
        # The record itself refuses a float that is not finite, so its type is enough.
        if field.cast is number:
            test, call = f"type({value}) is not float", "number"
        elif field.cast is text:
            test, call = f"type({value}) is not str", "text"
        elif field.cast is integer:
            test, call = f"type({value}) is not int", "integer"
        else:
            return f"{value} = {self._constant(field.cast)}({value})"
        return f"{value} = {call}({value}) if {test} else {value}"

    def _text(self, expression: Expression) -> str:
        if isinstance(expression, Constant):
            return ascii(expression.text)
        if isinstance(expression, Choice):
            return f"text({self._value(expression)})"
        pieces = []
        for part in expression.parts:
            if isinstance(part, str):
                pieces.append(ascii(part))
            else:
                value = self._value(part)
                self._line(f"if type({value}) is not str: {value} = text({value})")
                pieces.append(value)
        return " + ".join(pieces) or "''"

    def _value(self, choice: Choice, soft: bool = False) -> str:
        """A variable that holds the choice's value.

        `soft` gives None where the value is absent; otherwise the last path may raise, or
        give None, which every cast refuses.
        """
        value = self._new()
        for place, path in enumerate(choice.paths):
            last = place == len(choice.paths) - 1
            access = self._soft(path) if soft or not last else self._hard(path)
            guard = f"if {value} is None: " if place else ""
            self._line(f"{guard}{value} = {access}")
        return value

    def _start(self, path: Path) -> str:
        match path.origin:
            case "key":
                return "message_text(source.key)"
            case "topic":
                return "source.topic"
            case "ts":
                return "source.timestamp_ms"
            case "header":
                return f"header_text(source.headers, {path.header!a})"
            case "k":
                return "k"
        return f"value_{self.depth - path.up}"

    def _hard(self, path: Path) -> str:
        access = self._start(path)
        for step in path.steps:
            access = (
                f"{access}[{step.key!a}]" if isinstance(step, Name) else self._item(access, step)
            )
        return access

    def _soft(self, path: Path) -> str:
        access = self._start(path)
        for step in path.steps:
            if isinstance(step, Name):
                access = f"get({access}, {step.key!a})"
            else:
                access = self._item(access, step)
        return access

    def _item(self, access: str, step: Step) -> str:
        if isinstance(step, Index):
            return f"item({access}, {step.place})"
        assert not isinstance(step, Name)
        return f"select({access}, {step.key!a}, {step.wanted!a})"


def _part(*values: Any) -> Part:
    # A pivot's paths may go up; the keys between are not asked for.
    return Part(values, (None,) * (len(values) - 1))


def _get(value: Any, key: str) -> Any:
    return value.get(key) if type(value) is dict else None


def _item(value: Any, place: int) -> Any:
    if type(value) is not list:
        return None
    return value[place] if -len(value) <= place < len(value) else None


def _select(value: Any, key: str, wanted: str) -> Any:
    if type(value) is list:
        for item in value:
            if type(item) is dict and selects(item.get(key), wanted):
                return item
    return None


_NAMES: Final[dict[str, Any]] = {
    "BadValue": BadValue,
    "MappedRecord": MappedRecord,
    "flag": flag,
    "get": _get,
    "header_text": header_text,
    "hl7_time": hl7_time,
    "integer": integer,
    "iso_time": iso_time,
    "item": _item,
    "is_kind": is_kind,
    "message_text": message_text,
    "number": number,
    "part": _part,
    "pivoted": pivoted,
    "same_scalar": same_scalar,
    "seconds": seconds,
    "select": _select,
    "session_key": session_key,
    "text": text,
    "type": type,
    "float": float,
    "str": str,
    "int": int,
}
