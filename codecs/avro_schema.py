"""An Avro schema's text to a function that reads values of it, within bounds.

fastavro is C: it neither counts nor checks how deep it goes. So a schema is surveyed
first. An array of items that take no bytes could be of any length, and a small schema can
stand for millions of empty records: both are refused. A type that contains itself is read
by fastavro's Python half, whose depth Python bounds.

Logical types are left aside, so that values stay numbers and texts, but for decimals:
those become Decimals here, because their bytes may be long, and turning long bytes into
decimal digits takes time that grows with the square.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from typing import Any, Final, TypeAlias

import fastavro
import orjson
from fastavro._read_py import schemaless_reader as read_bounded_depth

from ..models.errors import BadSchema, DecodeFault

AvroReader: TypeAlias = Callable[[bytes, int], Any]
_Fix: TypeAlias = Callable[[Any], Any]

NODES_MAX: Final = 20_000
DECIMAL_BYTES_MAX: Final = 64
_DEPTH_MAX: Final = 100
_PRIMITIVES: Final = frozenset(
    ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
)
_NAME: Final = "flashfeed_wrapped"


def read_avro_schema(text: str, references: Sequence[str] = ()) -> AvroReader:
    """A reader of values of a schema: the payload and where the value begins, to the value.

    `references` are schemas that define names it uses, each before those that need it.
    Raises BadSchema; the reader raises DecodeFault.
    """
    schema = _load(text)
    earlier = [_load(one) for one in references]
    # A record of one field is written as that field is; so every schema can be a record.
    wrapped = not (isinstance(schema, dict) and schema.get("type") == "record")
    if wrapped:
        schema = {"type": "record", "name": _NAME, "fields": [{"name": _NAME, "type": schema}]}
    parsed, survey = _parse((*earlier, schema))
    fix = survey.fix(parsed)
    parsed, _ = _parse([_plain(one) for one in (*earlier, schema)])
    read = read_bounded_depth if survey.recursive else fastavro.schemaless_reader

    def value(payload: bytes, at: int) -> Any:
        stream = io.BytesIO(payload)
        stream.seek(at)
        try:
            found: Any = read(stream, parsed, None)
            if fix is not None:
                found = fix(found)
        except DecodeFault:
            raise
        except RecursionError:
            raise DecodeFault("the value is nested too deep") from None
        # fastavro has no error of its own: short or wrong bytes raise many kinds.
        except Exception as bad:
            raise DecodeFault(
                f"expected an Avro value, got a fault at byte {stream.tell()} of "
                f"{len(payload)}: {type(bad).__name__} {str(bad)[:200]}"
            ) from None
        if stream.tell() != len(payload):
            raise DecodeFault(
                f"{len(payload) - stream.tell()} bytes are left over behind the value; "
                "it was written with another schema"
            )
        return found[_NAME] if wrapped else found

    return value


def _load(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as bad:
        # A primitive's name alone is a schema too.
        if text.strip() in _PRIMITIVES:
            return text.strip()
        raise BadSchema(f"expected an Avro schema in JSON: {bad}") from None


def _parse(schemas: Sequence[Any]) -> tuple[Any, _Survey]:
    """The last of the schemas, parsed and surveyed; the others define names that it uses."""
    names: dict[str, Any] = {}
    parsed: Any = None
    try:
        for one in schemas:
            parsed = fastavro.parse_schema(one, named_schemas=names)
        survey = _Survey(names)
        survey.size(parsed, 0)
    except BadSchema:
        raise
    except Exception as bad:  # as with values, any kind
        raise BadSchema(f"not an Avro schema: {type(bad).__name__} {str(bad)[:200]}") from None
    return parsed, survey


def _plain(schema: Any) -> Any:
    """The schema without logical types."""
    if isinstance(schema, dict):
        return {
            key: value if key == "default" else _plain(value)
            for key, value in schema.items()
            if key != "logicalType"
        }
    return [_plain(one) for one in schema] if isinstance(schema, list) else schema


class _Survey:
    """Walks a parsed schema: how small its values can be, whether it contains itself, and
    where its decimals are."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        self.recursive = False
        self._sizes: dict[str, tuple[int, int]] = {}
        self._open: set[str] = set()
        self._fixes: dict[str, _Fix | None] = {}

    def size(self, schema: Any, depth: int) -> tuple[int, int]:
        """The fewest bytes of a value, and how many values it stands for at least.

        Raises BadSchema where no bytes could stand for very many.
        """
        if depth > _DEPTH_MAX:
            raise BadSchema(f"the schema is nested deeper than {_DEPTH_MAX}")
        if isinstance(schema, str):
            return self._named(schema, depth)
        if isinstance(schema, list):
            for one in schema:
                self.size(one, depth + 1)
            return 1, 1
        kind = schema["type"]
        if kind == "array":
            if self.size(schema["items"], depth + 1)[0] == 0:
                raise BadSchema("an array's items take no bytes, so its length has no bound")
            return 1, 1
        if kind == "map":
            self.size(schema["values"], depth + 1)
            return 1, 1
        if kind == "fixed":
            return int(schema["size"]), 1
        if kind == "enum":
            return 1, 1
        if kind in ("record", "error"):
            return self._record(schema, depth)
        return self.size(kind, depth + 1)

    def _record(self, schema: Any, depth: int) -> tuple[int, int]:
        name = schema["name"]
        if name in self._sizes:
            return self._sizes[name]
        self._open.add(name)
        least, nodes = 0, 1
        for field in schema["fields"]:
            size, count = self.size(field["type"], depth + 1)
            least, nodes = least + size, nodes + count
        self._open.discard(name)
        if nodes > NODES_MAX:
            raise BadSchema(f"a record stands for more than {NODES_MAX} values")
        self._sizes[name] = least, nodes
        return least, nodes

    def _named(self, name: str, depth: int) -> tuple[int, int]:
        if name in _PRIMITIVES:
            return {"null": 0, "float": 4, "double": 8}.get(name, 1), 1
        if name in self._open:
            self.recursive = True
            return 1, 1
        return self.size(self.names[name], depth + 1)

    def fix(self, schema: Any) -> _Fix | None:
        """What makes Decimals of the decimals in a value; None where there are none."""
        if isinstance(schema, str):
            return None if schema in _PRIMITIVES else self._fix_named(schema)
        if isinstance(schema, list):
            return _fix_union([(one, self.fix(one)) for one in schema])
        kind = schema["type"]
        if schema.get("logicalType") == "decimal" and kind in ("bytes", "fixed"):
            return _decimal(int(schema.get("scale", 0)))
        if kind == "array":
            items = self.fix(schema["items"])
            return None if items is None else lambda value: [items(one) for one in value]
        if kind == "map":
            inner = self.fix(schema["values"])
            if inner is None:
                return None
            return lambda value: {key: inner(one) for key, one in value.items()}
        if kind in ("record", "error"):
            return self._fix_named(schema["name"])
        return None if isinstance(kind, str) else self.fix(kind)

    def _fix_named(self, name: str) -> _Fix | None:
        if name not in self._fixes:
            schema = self.names[name]
            if schema.get("type") not in ("record", "error"):
                self._fixes[name] = self.fix(schema)
                return self._fixes[name]
            self._fixes[name] = lambda value: self._again(name, value)
            fields = [(field["name"], self.fix(field["type"])) for field in schema["fields"]]
            wanted = [(field, fix) for field, fix in fields if fix is not None]
            self._fixes[name] = _fix_record(wanted) if wanted else None
        return self._fixes[name]

    def _again(self, name: str, value: Any) -> Any:
        """The fix of a type inside itself, known when values come."""
        fix = self._fixes[name]
        return value if fix is None else fix(value)


def _fix_record(wanted: list[tuple[str, _Fix]]) -> _Fix:
    def fix(value: Any) -> Any:
        for field, change in wanted:
            value[field] = change(value[field])
        return value

    return fix


def _fix_union(branches: list[tuple[Any, _Fix | None]]) -> _Fix | None:
    """Of the usual union, null or one other. In a union of several kinds the value no longer
    says which it was, so decimals among them stay bytes."""
    others = [fix for schema, fix in branches if schema != "null"]
    if len(others) != 1 or others[0] is None:
        return None
    only = others[0]
    return lambda value: None if value is None else only(value)


def _decimal(scale: int) -> _Fix:
    exact = Context(prec=4 * DECIMAL_BYTES_MAX)

    def fix(value: bytes) -> Decimal:
        if len(value) > DECIMAL_BYTES_MAX:
            raise DecodeFault(
                f"expected a decimal of at most {DECIMAL_BYTES_MAX} bytes, got {len(value)}"
            )
        return Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-scale, exact)

    return fix
