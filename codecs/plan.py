"""A mapping table checked and parsed: everything that can be wrong with it is found here.

Every ConfigError names the mapping's key and quotes the text at fault. A field that
`map` does not mention is read under its own name: required fields always, optional
ones only where `map` is empty (so that a partial `map` picks nothing up by accident).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from ..models.errors import ConfigError
from ..models.feed import MappingSpec, PivotSpec
from ..models.records import RecordType
from .casts import KIND_NAMES, BadValue, Field, number, record_fields
from .nearest import nearest
from .paths import (
    Choice,
    Constant,
    Each,
    Expression,
    Name,
    Path,
    Template,
    TimeUnit,
    parse_choice,
    parse_each,
    parse_expression,
    parse_root,
    parse_time,
)
from .pivot import Pivot
from .units import unit_cast

ALWAYS: Final = "always"
NEXT: Final = "next"
EACH_LEVELS_MAX: Final = 8

_Parsed = TypeVar("_Parsed")


class When(msgspec.Struct, frozen=True):
    """One condition: the value is one of `allowed`, or its JSON type one of `kinds`."""

    choice: Choice
    allowed: tuple[Any, ...] = ()
    kinds: tuple[str, ...] = ()


class Bound(msgspec.Struct, frozen=True):
    """A record field and where it comes from; `constant` is a Constant's value, cast."""

    field: Field
    expression: Expression
    constant: Any = None


class Plan(msgspec.Struct, frozen=True):
    """A mapping, parsed. `time` None takes the message's own timestamp."""

    model: RecordType
    key: Expression
    fields: tuple[Bound, ...]
    root: Choice | None
    root_optional: bool
    each: tuple[Each, ...]
    when: tuple[When, ...]
    final: Choice | None
    time: Choice | None
    time_unit: TimeUnit
    pivot: Pivot | None = None


def make_plan(spec: MappingSpec) -> Plan:
    """The plan of a mapping table. Raises ConfigError."""
    root, root_optional = _at("root", parse_root, spec.root) or (None, False)
    each = _at("each", parse_each, spec.each) or ()
    if len(each) > EACH_LEVELS_MAX:
        raise ConfigError(f"mapping.each: expected at most {EACH_LEVELS_MAX} levels")
    time, unit = _at("time", parse_time, spec.time) or (None, "s")
    by_rule = spec.final in (ALWAYS, NEXT)
    final = _at("final", parse_choice, None if by_rule else spec.final)
    plan = Plan(
        model=spec.model,
        key=_at("key", _parse_key, spec.key) or _missing_key(),
        fields=() if spec.pivot else _fields(spec),
        pivot=_pivot(spec, spec.pivot) if spec.pivot else None,
        root=root,
        root_optional=root_optional,
        each=each,
        when=tuple(_when(path, allowed) for path, allowed in spec.when.items()),
        final=final,
        time=time,
        time_unit=unit,
    )
    _check_scopes(plan)
    return plan


def _at(key: str, parse: Callable[[str], _Parsed], text: str | None) -> _Parsed | None:
    if text is None:
        return None
    try:
        return parse(text)
    except ConfigError as error:
        raise ConfigError(f"mapping.{key}: {error}") from None


def _missing_key() -> Expression:
    raise ConfigError("mapping.key: expected a path or a template")


def _parse_key(text: str) -> Expression:
    expression = parse_expression(text)
    if isinstance(expression, Constant) and not expression.text:
        raise ConfigError("expected a non-empty key")
    return expression


def _fields(spec: MappingSpec) -> tuple[Bound, ...]:
    known = _known_fields(spec)
    bound = []
    for name, field in known.items():
        text = spec.map.get(name)
        if text is not None:
            expression = _at(f"map.{name}", parse_expression, text)
            assert expression is not None
            bound.append(_bind(field, expression))
        elif field.required or not spec.map:
            bound.append(Bound(field, Choice((Path(steps=(Name(name),)),))))
    return tuple(bound)


def _known_fields(spec: MappingSpec) -> dict[str, Field]:
    """The record's fields, each with the cast from the unit that it comes in."""
    known = record_fields(spec.model)
    for name in spec.map:
        if name == "timestamp":
            raise ConfigError('mapping.map.timestamp: give it as `time = "path:unit"` instead')
        if name not in known:
            raise ConfigError(
                f"mapping.map.{name}: {spec.model} has no such field{nearest(name, known)}"
            )
    for name, unit in spec.units.items():
        if name not in known:
            raise ConfigError(
                f"mapping.units.{name}: {spec.model} has no such field{nearest(name, known)}"
            )
        if known[name].cast is not number:
            raise ConfigError(f"mapping.units.{name}: expected a field that is a number")
        try:
            expected, cast = unit_cast(spec.model, name, unit)
        except ConfigError as error:
            raise ConfigError(f"mapping.units.{name}: {error}") from None
        known[name] = msgspec.structs.replace(known[name], expected=expected, cast=cast)
    return known


def _pivot(spec: MappingSpec, table: PivotSpec) -> Pivot:
    if not spec.map:
        raise ConfigError("mapping.map: expected the names of a pivot's items, got none")
    if spec.units:
        raise ConfigError("mapping.units: a pivot has `unit`, the path of an item's own unit")
    fields: dict[str, tuple[Field, int]] = {}
    known = _known_fields(spec)
    for field, text in spec.map.items():
        for rank, code in enumerate(text.split("|")):
            if not code or code in fields:
                raise ConfigError(
                    f"mapping.map.{field}: expected names that stand once, got {code!r} in {text!r}"
                )
            fields[code] = known[field], rank
    paths = {
        key: _at(f"pivot.{key}", parse_choice, getattr(table, key))
        for key in ("items", "name", "value", "unit")
    }
    items, name, value = paths["items"], paths["name"], paths["value"]
    assert items is not None and name is not None and value is not None
    return Pivot(spec.model, items, name, value, paths["unit"], fields)


def _bind(field: Field, expression: Expression) -> Bound:
    if not isinstance(expression, Constant):
        return Bound(field, expression)
    try:
        return Bound(field, expression, field.cast(expression.text))
    except BadValue as bad:
        raise ConfigError(
            f"mapping.map.{field.name}: expected {bad}, got constant {expression.text!r}"
        ) from None


def _when(path: str, allowed: Any) -> When:
    key = f"when.{path}"
    choice = _at(key, parse_choice, path)
    assert choice is not None
    if isinstance(allowed, dict):
        kinds = allowed.get("type")
        kinds = tuple(kinds) if isinstance(kinds, list | tuple) else (kinds,)
        if set(allowed) != {"type"} or not kinds or not set(kinds) <= set(KIND_NAMES):
            raise ConfigError(
                f"mapping.{key}: expected {{ type = ... }} with {', '.join(KIND_NAMES)}, "
                f"got {allowed!r}"
            )
        return When(choice, kinds=kinds)
    values = tuple(allowed) if isinstance(allowed, list | tuple) else (allowed,)
    if not values or not all(isinstance(value, str | int | float) for value in values):
        raise ConfigError(
            f"mapping.{key}: expected a string, number or boolean, or a list of them, "
            f"got {allowed!r}"
        )
    return When(choice, allowed=values)


def _check_scopes(plan: Plan) -> None:
    """No path may go above the root, or ask for @k where nothing is fanned out."""
    if plan.root is not None:
        _check_scope("root", plan.root, 0)
    depth = len(plan.each)
    _check_scope("key", plan.key, depth)
    for when in plan.when:
        _check_scope("when", when.choice, depth)
    if plan.final is not None:
        _check_scope("final", plan.final, depth)
    if plan.time is not None:
        _check_scope("time", plan.time, depth)
    if plan.pivot is not None:
        _check_scope("pivot.items", plan.pivot.items, depth)
        for name in ("name", "value", "unit"):
            if (choice := getattr(plan.pivot, name)) is not None:
                _check_scope(f"pivot.{name}", choice, depth + 1)
    for bound in plan.fields:
        _check_scope(f"map.{bound.field.name}", bound.expression, depth)


def _check_scope(key: str, expression: Expression, depth: int) -> None:
    if isinstance(expression, Choice):
        for path in expression.paths:
            if path.up > depth:
                raise ConfigError(
                    f"mapping.{key}: expected at most {depth} `^` ({depth} levels of each), "
                    f"got {path.up}"
                )
            if path.origin == "k" and not depth:
                raise ConfigError(f"mapping.{key}: @k needs an `each`")
    elif isinstance(expression, Template):
        for part in expression.parts:
            if isinstance(part, Choice):
                _check_scope(key, part, depth)


def fields_read(plan: Plan) -> tuple[str, ...] | None:
    """The names that a plan reads of a message's value; None where it may read others."""
    if plan.root is not None or plan.each or plan.pivot is not None:
        return None
    expressions: list[Expression] = [plan.key, *(bound.expression for bound in plan.fields)]
    expressions += [when.choice for when in plan.when]
    expressions += [choice for choice in (plan.final, plan.time) if choice is not None]
    names: set[str] = set()
    for expression in expressions:
        parts = expression.parts if isinstance(expression, Template) else (expression,)
        for part in parts:
            for path in part.paths if isinstance(part, Choice) else ():
                if path.origin != "value":
                    continue
                if not path.steps or not isinstance(path.steps[0], Name):
                    return None
                names.add(path.steps[0].key)
    return tuple(sorted(names))
