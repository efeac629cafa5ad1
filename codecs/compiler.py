"""A plan to one Python function that maps one part of a message, for the clean case.

The function takes the message's source, the part's key and its values (outermost first),
and a second one, where the plan allows it, a Row (codec.py) in their place. It returns the
record's key and fields, None where a rule skips the part, and raises anything at all where
something is not as expected: then walk.py says what. So what it checks of a record may be
narrower than the record's own rules (finite numbers whose sum is not), never wider; where
AT_LEAST says those rules, no record is made for them.

What is emitted: assignments, subscripts, comparisons, sums and calls of the names in `_NAMES`.
Text from a configuration enters in one way only, as a string literal written by
`ascii()`, or as an entry C0, C1, ... of the constants; it is never code. (An f-string has
variables and constants in it and no text.) The emitted text is kept as
`Mapping.generated` so that a person can read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from ..models.feed import Keyed
from ..models.records import (
    AT_LEAST,
    RECORD_TYPES,
    TIMESTAMP_MAX_S,
    TIMESTAMP_MIN_S,
    record_fields,
)
from .casts import (
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
    selects,
    session_key,
    text,
)
from .casts import record_fields as known_fields
from .parts import Part
from .paths import Choice, Constant, Expression, Index, Name, Path, Step, Template
from .pivot import pivoted
from .plan import Bound, Plan, When, fields_read

MapPart = Callable[..., Keyed | None]


class Compiled(NamedTuple):
    """A plan's function, that for Rows, and the text of both."""

    part: MapPart
    row: MapPart | None
    text: str


def compile_plan(plan: Plan) -> Compiled:
    """The functions for a plan's parts."""
    fields = fields_read(plan)
    part, text = _compile(plan, None)
    if fields is None:
        return Compiled(part, None, text)
    row, row_text = _compile(plan, fields)
    return Compiled(part, row, f"{text}\n\n{row_text}")


def _compile(plan: Plan, row: tuple[str, ...] | None) -> tuple[MapPart, str]:
    writer = _Writer(plan, row)
    source = writer.write()
    scope: dict[str, Any] = {
        **_NAMES,
        **writer.constants,
        "__builtins__": {},
        "Record": RECORD_TYPES[plan.model],
    }
    exec(compile(source, f"<mapping to {plan.model}>", "exec"), scope)
    return cast(MapPart, scope["map_part"]), source


class _Slot(NamedTuple):
    """A field of the record: what holds its value, and whether that may be None."""

    field: str
    value: str
    optional: bool = False


class _Writer:
    """Writes one function. `value_N` holds the part's value at level N, `row_N` the N-th of
    a Row."""

    def __init__(self, plan: Plan, row: tuple[str, ...] | None) -> None:
        self.plan = plan
        self.row = None if row is None else {name: f"row_{at}" for at, name in enumerate(row)}
        self.depth = len(plan.each)
        known = known_fields(plan.model)
        self.numbers = {name for name, field in known.items() if field.cast is number}
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self.variables = 0
        # Paths of the part itself whose value a variable holds as text that is there.
        self.texts: dict[Path, str] = {}

    def write(self) -> str:
        plan = self.plan
        for when in plan.when:
            self._when(when)
        if plan.final is not None:
            value = self._value(plan.final)
            self._line(f"if {value} is not True and not flag({value}): return None")
        key = self._key(plan.key)
        slots = [*map(self._field, plan.fields), self._time()]
        if plan.pivot is not None or plan.model not in AT_LEAST:
            fields = self._record(slots)
        else:
            self._check(slots)
            fields = self._fields(slots)
        self._line(f"return {key}, {fields}")
        if self.row is None:
            head = f"def map_part(source, k, {self._values()}):"
        else:
            head = "def map_part(source, row):"
            self.lines.insert(0, f"[{', '.join(self.row.values())}] = row")
        return "\n    ".join((head, *self.lines)) + "\n"

    def _record(self, slots: list[_Slot]) -> str:
        """The fields of a record that is made, and by that checked."""
        arguments = [f"{slot.field}={slot.value}" for slot in slots]
        if self.plan.pivot is not None:
            pivot = self._constant(self.plan.pivot)
            self._line(f"p = pivoted({pivot}, part({self._values()}), source)")
            self._line("if not p: return None")
            arguments.append("**p")
        return f"record_fields(Record({', '.join(arguments)}))"

    def _check(self, slots: list[_Slot]) -> None:
        """Give up where the record's own rules may not hold. No comparison with a NaN does."""
        values = {slot.field: slot.value for slot in slots}
        tests = []
        for slot in slots:
            if slot.field == "timestamp":
                test = f"{TIMESTAMP_MIN_S!r} <= {slot.value} <= {TIMESTAMP_MAX_S!r}"
                tests.append(f"({slot.value} is None or {test})" if slot.optional else test)
        numbers = [
            f"({slot.value} or 0.0)" if slot.optional else slot.value
            for slot in slots
            if slot.field in self.numbers
        ]
        if numbers:
            # A sum is finite only where all of its terms are.
            self._line(f"total = {' + '.join(numbers)}")
            tests.append("total - total == 0.0")
        for field, least in AT_LEAST[self.plan.model]:
            bound = values[least] if isinstance(least, str) else repr(least)
            tests.append(f"{values[field]} >= {bound}")
        self._line(f"if not ({' and '.join(tests)}): raise BadValue")

    def _fields(self, slots: list[_Slot]) -> str:
        """The fields that are set, in the record's order."""
        first = next((at for at, slot in enumerate(slots) if slot.optional), len(slots))
        always = ", ".join(f"{slot.field!a}: {slot.value}" for slot in slots[:first])
        if first == len(slots):
            return f"{{{always}}}"
        self._line(f"fields = {{{always}}}")
        for slot in slots[first:]:
            guard = f"if {slot.value} is not None: " if slot.optional else ""
            self._line(f"{guard}fields[{slot.field!a}] = {slot.value}")
        return "fields"

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

    def _time(self) -> _Slot:
        plan = self.plan
        if plan.time is None:
            value = self._new()
            self._line(f"{value} = source.timestamp_ms")
            self._line(f"if {value} is not None: {value} = {value} / 1e3")
            return _Slot("timestamp", value, optional=True)
        value = self._value(plan.time)
        if plan.time_unit == "iso":
            self._line(f"{value} = iso_time({value})")
        elif plan.time_unit == "hl7":
            self._line(f"{value} = hl7_time({value})")
        else:
            self._line(f"if type({value}) is not float: {value} = number({value})")
            if plan.time_unit != "s":
                self._line(f"{value} = {value} / {TIME_SCALES[plan.time_unit]!r}")
        return _Slot("timestamp", value)

    def _field(self, bound: Bound) -> _Slot:
        name, expression = bound.field.name, bound.expression
        if isinstance(expression, Constant):
            return _Slot(name, self._constant(bound.constant))
        if isinstance(expression, Template):
            value = self._new()
            self._line(f"{value} = {self._text(expression)}")
            optional = False
        elif bound.field.cast is text and (known := self._known_text(expression)):
            return _Slot(name, known)
        else:
            optional = not bound.field.required
            value = self._value(expression, soft=optional)
        test, convert = self._convert(bound.field, value)
        tests = [f"{value} is not None"] * optional + [test] * bool(test)
        self._line(f"if {' and '.join(tests)}: {convert}" if tests else convert)
        return _Slot(name, value, optional)

    def _known_text(self, choice: Choice) -> str | None:
        return self.texts.get(choice.paths[0]) if len(choice.paths) == 1 else None

    def _convert(self, field: Field, value: str) -> tuple[str, str]:
        """When a field's value has to be converted ("": always), and how."""
        # _check refuses a float that is not finite, so its type is enough.
        if field.cast is number:
            test, call = f"type({value}) is not float", "number"
        elif field.cast is text:
            test, call = f"type({value}) is not str", "text"
        elif field.cast is integer:
            test, call = f"type({value}) is not int", "integer"
        else:
            return "", f"{value} = {self._constant(field.cast)}({value})"
        return test, f"{value} = {call}({value})"

    def _text(self, expression: Expression) -> str:
        if isinstance(expression, Constant):
            return ascii(expression.text)
        if isinstance(expression, Choice):
            return f"text({self._value(expression)})"
        pieces = []
        for part in expression.parts:
            if isinstance(part, str):
                pieces.append(self._constant(part))
            else:
                value = self._value(part)
                self._line(f"if type({value}) is not str: {value} = text({value})")
                if len(part.paths) == 1:
                    self.texts[part.paths[0]] = value
                pieces.append(value)
        # All are texts by now, and this is the fastest way to join them.
        return f"f'{''.join(f'{{{piece}}}' for piece in pieces)}'"

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

    def _start(self, path: Path) -> tuple[str, tuple[Step, ...]]:
        """Where a path begins, and the steps from there."""
        if self.row is None or path.origin != "value":
            return self._origin(path), path.steps
        assert isinstance(path.steps[0], Name)
        return self.row[path.steps[0].key], path.steps[1:]

    def _origin(self, path: Path) -> str:
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
        access, steps = self._start(path)
        for step in steps:
            access = (
                f"{access}[{step.key!a}]" if isinstance(step, Name) else self._item(access, step)
            )
        return access

    def _soft(self, path: Path) -> str:
        access, steps = self._start(path)
        for step in steps:
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
    "record_fields": record_fields,
    "same_scalar": same_scalar,
    "select": _select,
    "session_key": session_key,
    "text": text,
    "type": type,
    "float": float,
    "str": str,
    "int": int,
}
