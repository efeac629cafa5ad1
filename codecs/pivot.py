"""One record out of items that carry one named value each (FHIR's Observation, HL7's OBX).

    pivot = { items = "component|.", name = "code", value = "value", unit = "unit" }
    map = { hr = "8867-4", spo2 = "59408-5|2708-6" }

`items` is the list of items, `.` the part itself as the only one; `name`, `value` and
`unit` are paths inside an item, and `map` says which names make which field, the most
trusted first. An item of another name, or without a value, is not looked at; a part in
which nothing is found is skipped. Fields that are not there are merged at the session's
owner, which remembers the last values.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from .casts import BadValue, Field, text
from .parts import Part, Source, first
from .paths import Choice
from .units import in_unit

ITEMS_MAX: Final = 1000


class Pivot(msgspec.Struct, frozen=True):
    """A pivot, parsed. `fields` are the record's, by the names that items may have."""

    model: str
    items: Choice
    name: Choice
    value: Choice
    unit: Choice | None
    fields: dict[str, tuple[Field, int]]


class PivotFault(Exception):
    """A value is not as expected: what was expected, what there was, and below which item."""

    def __init__(self, expected: str, got: Any, item: Part, choice: Choice) -> None:
        super().__init__(expected)
        self.expected, self.got, self.item, self.choice = expected, got, item, choice


def pivoted(pivot: Pivot, part: Part, source: Source) -> dict[str, Any]:
    """The fields that a part's items give, none where it has none of them. Raises PivotFault."""
    found: dict[str, tuple[int, Any]] = {}
    for item in _items(pivot, part, source):
        known = pivot.fields.get(_name(pivot, item, source))
        if known is None:
            continue
        field, rank = known
        before = found.get(field.name)
        if before is not None and before[0] <= rank:
            continue
        value = first(pivot.value, item, source)
        if value is not None:
            found[field.name] = rank, _cast(pivot, field, value, item, source)
    return {name: value for name, (_, value) in found.items()}


def _items(pivot: Pivot, part: Part, source: Source) -> list[Part]:
    found = first(pivot.items, part, source)
    single = not isinstance(found, list | tuple)
    items = [found] if single else found
    if len(items) > ITEMS_MAX:
        raise PivotFault(f"at most {ITEMS_MAX} items", found, part, pivot.items)
    return [
        Part((*part.values, item), (*part.keys, None if single else place))
        for place, item in enumerate(items)
        if isinstance(item, dict)
    ]


def _name(pivot: Pivot, item: Part, source: Source) -> str:
    name = first(pivot.name, item, source)
    try:
        return text(name)
    except BadValue:
        return ""


def _cast(pivot: Pivot, field: Field, value: Any, item: Part, source: Source) -> Any:
    if field.expected != "number":
        try:
            return field.cast(value)
        except BadValue as bad:
            raise PivotFault(str(bad), value, item, pivot.value) from None
    unit = None if pivot.unit is None else first(pivot.unit, item, source)
    try:
        in_unit(pivot.model, field.name, value, None)
    except BadValue as bad:
        raise PivotFault(str(bad), value, item, pivot.value) from None
    try:
        return in_unit(pivot.model, field.name, value, None if unit is None else text(unit))
    except BadValue as bad:
        assert pivot.unit is not None
        raise PivotFault(str(bad), unit, item, pivot.unit) from None
