"""A message's parts: what `root` and `each` lead to, and what lies at a path of one.

Also the texts of places (`$.metrics[2].fields.usage`), which are made for faults alone.
Nothing here raises on data, except that bytes which are not UTF-8 are a BadValue.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..models.feed import Fault
from .casts import BadValue, header_text, message_text, selects, show
from .paths import Choice, Each, Index, Name, Path, Select, Step

if TYPE_CHECKING:  # a plan may hold a pivot, which looks into parts
    from .plan import Plan

_PLAIN: Final = re.compile(r"[A-Za-z_][\w-]*")


class Source(msgspec.Struct, frozen=True, gc=False):
    """What a message has beside its value."""

    key: bytes | None
    topic: str
    timestamp_ms: int | None
    headers: Sequence[tuple[str, bytes]] = ()


class Part(msgspec.Struct, frozen=True):
    """One part of a message: the value at each level, outermost first, and the keys between.

    A key is None where an optional level was absent and the value stands for itself.
    """

    values: tuple[Any, ...]
    keys: tuple[str | int | None, ...] = ()


def find_root(plan: Plan, value: Any, source: Source) -> Any:
    """The value `root` goes to, or a Fault."""
    if plan.root is None:
        return value
    try:
        for path in plan.root.paths:
            found = _follow(path, Part((value,)), source)
            if found is not None:
                return found
    except BadValue as bad:
        return Fault(reason="map", path="$", detail=f"expected {bad} at $")
    if plan.root_optional:
        return value
    path_text = "|".join(f"${_steps_text(path.steps)}" for path in plan.root.paths)
    return Fault(
        reason="map", path=path_text, detail=f"expected a value, got nothing at {path_text}"
    )


def spread(plan: Plan, value: Any) -> list[Part | Fault]:
    """The parts a value fans out to. A container at fault is one part, and a fault."""
    parts: list[Part | Fault] = [Part((value,))]
    for each in plan.each:
        wider: list[Part | Fault] = []
        for part in parts:
            if isinstance(part, Fault):
                wider.append(part)
            else:
                wider.extend(_spread_one(plan, each, part))
        parts = wider
    return parts


def _spread_one(plan: Plan, each: Each, part: Part) -> list[Part | Fault]:
    container = part.values[-1]
    for names in each.names:
        container = _one_of(container, names)
    values, keys = part.values, part.keys
    if each.kind == "[]" and isinstance(container, list | tuple):
        return [Part((*values, item), (*keys, place)) for place, item in enumerate(container)]
    if each.kind == "{}" and isinstance(container, dict):
        return [Part((*values, item), (*keys, name)) for name, item in container.items()]
    if each.optional and (container is None or not each.names):
        return [Part((*values, values[-1]), (*keys, None))]
    path = where(plan, part) + _names_text(each)
    expected = "an array" if each.kind == "[]" else "an object"
    got = "nothing" if container is None and each.names else show(container)
    return [Fault(reason="map", path=path, detail=f"expected {expected}, got {got} at {path}")]


def _one_of(container: Any, names: tuple[str, ...]) -> Any:
    if isinstance(container, dict):
        for name in names:
            if container.get(name) is not None:
                return container[name]
    return None


def _names_text(each: Each) -> str:
    return "".join("|".join(map(_key_text, names)) for names in each.names)


def where(plan: Plan, part: Part, up: int = 0) -> str:
    """The path of a part in its message, or of its parent so many levels up."""
    path = "$" if plan.root is None else "$" + _root_text(plan)
    depth = len(part.keys) - up
    for each, key in zip(plan.each[:depth], part.keys[:depth], strict=True):
        if key is not None:
            path += _names_text(each) + _key_text(key)
    return path


def first(choice: Choice, part: Part, source: Source) -> Any:
    """The value of the first of the paths that is present; None where none is."""
    for path in choice.paths:
        value = _follow(path, part, source)
        if value is not None:
            return value
    return None


def _follow(path: Path, part: Part, source: Source) -> Any:
    """The value at a path; None where it is absent or null."""
    match path.origin:
        case "key":
            return message_text(source.key)
        case "topic":
            return source.topic
        case "ts":
            return source.timestamp_ms
        case "header":
            return header_text(source.headers, path.header)
        case "k":
            return part.keys[-1]
    value = part.values[-1 - path.up]
    for step in path.steps:
        value = _take(value, step)
        if value is None:
            return None
    return value


def _take(value: Any, step: Step) -> Any:
    if isinstance(step, Name):
        return value.get(step.key) if isinstance(value, dict) else None
    if not isinstance(value, list | tuple):
        return None
    if isinstance(step, Index):
        return value[step.place] if -len(value) <= step.place < len(value) else None
    for item in value:
        if isinstance(item, dict) and selects(item.get(step.key), step.wanted):
            return item
    return None


def present_text(plan: Plan, choice: Choice, part: Part, source: Source) -> str:
    """Where the value of a choice was found in this message."""
    for path in choice.paths:
        if _follow(path, part, source) is not None:
            return _path_text(plan, path, part)
    return choice_text(plan, choice, part)


def choice_text(plan: Plan, choice: Choice, part: Part) -> str:
    """All the places where a choice looks in this message."""
    return "|".join(_path_text(plan, path, part) for path in choice.paths)


def item_text(plan: Plan, items: Choice, item: Part, choice: Choice, depth: int) -> str:
    """The places where a choice looks in an item of a pivot; `depth` levels lie above it."""
    part = Part(item.values[: depth + 1], item.keys[:depth])
    place = item.keys[depth] if len(item.keys) > depth else None
    within = next((path for path in items.paths if place is not None and path.steps), Path())
    start = where(plan, part) + _steps_text(within.steps)
    start += "" if place is None else _key_text(place)
    return "|".join(start + _steps_text(path.steps) for path in choice.paths)


def _path_text(plan: Plan, path: Path, part: Part) -> str:
    if path.origin == "header":
        return f"@header.{path.header}"
    if path.origin != "value":
        return f"@{path.origin}"
    return where(plan, part, path.up) + _steps_text(path.steps)


def _root_text(plan: Plan) -> str:
    # With alternatives or an optional root the message decides; the first one is named.
    assert plan.root is not None
    return "" if plan.root_optional else _steps_text(plan.root.paths[0].steps)


def _steps_text(steps: tuple[Step, ...]) -> str:
    texts = []
    for step in steps:
        if isinstance(step, Select):
            texts.append(f"[{step.key}={step.wanted}]")
        else:
            texts.append(_key_text(step.key if isinstance(step, Name) else step.place))
    return "".join(texts)


def _key_text(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if _PLAIN.fullmatch(key) else f"[{show(key)}]"
