"""Schemas parsed once for each id.

A bounded dict: looking up what is there costs a dict's look-up. A schema that cannot be
parsed is remembered as such, so that each of its messages gives the same fault at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from ..models.errors import BadSchema
from .codec import SchemaRef, Schemas, SchemaText

# A topic has a handful; more is a producer that registers a schema for every message.
SCHEMAS_MAX: Final = 1000

_Parsed = TypeVar("_Parsed")


class SchemaCache(dict[SchemaRef, _Parsed], Generic[_Parsed]):
    """What `parse` makes of each schema; `cache[reference]` finds, parses and keeps it.

    Raises what Schemas.find raises, and BadSchema.
    """

    def __init__(self, schemas: Schemas, parse: Callable[[SchemaText], _Parsed]) -> None:
        super().__init__()
        self._schemas = schemas
        self._parse = parse
        self._bad: dict[SchemaRef, str] = {}

    def __missing__(self, reference: SchemaRef) -> _Parsed:
        if reference in self._bad:
            raise BadSchema(self._bad[reference])
        text = self._schemas.find(reference)
        try:
            parsed = self._parse(text)
        except BadSchema as fault:
            message = f"the schema of {reference} cannot be used: {fault}"
            _make_room(self._bad)
            self._bad[reference] = message
            raise BadSchema(message) from None
        _make_room(self)
        self[reference] = parsed
        return parsed


def _make_room(table: dict[SchemaRef, _Parsed]) -> None:
    if len(table) >= SCHEMAS_MAX:
        del table[next(iter(table))]
