"""Every string, array and number that a request may have has a bound, or is named here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from flashfeed.agents.service import SessionService
from flashfeed.bridge.app import create_app

Schema = dict[str, Any]

BOUNDED_ELSEWHERE = {
    "object": "any JSON: the body's size and depth, and the reader of it (models/chat.py)",
}
"""Kinds of values without a bound of their own in the document, and what bounds them. The
path and the query of a URL have `header_bytes_max` together."""

UNBOUNDED: set[str] = set()
"""What is without a bound: nothing, and it shall stay so."""


def unbounded(
    schema: Schema, where: str, schemas: Schema, inside: tuple[str, ...]
) -> Iterator[str]:
    """The places in a schema where a value has no bound."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in inside:
            yield from unbounded(schemas[name], name.rpartition("__")[2], schemas, (*inside, name))
        return
    if "const" in schema or "enum" in schema:
        return
    for way in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(way, []):
            yield from unbounded(one, where, schemas, inside)
    kind = schema.get("type")
    if kind == "string" and not {"maxLength", "pattern"} & set(schema):
        yield f"{where}: string"
    if kind in ("integer", "number"):
        low = {"minimum", "exclusiveMinimum"} & set(schema)
        high = {"maximum", "exclusiveMaximum"} & set(schema)
        if not (low and high):
            yield f"{where}: number"
    if kind == "array":
        if "maxItems" not in schema:
            yield f"{where}: array"
        for one in (schema.get("items", {}), *schema.get("prefixItems", [])):
            yield from unbounded(one, f"{where}[]", schemas, inside)
    for name, one in schema.get("properties", {}).items():
        yield from unbounded(one, f"{where}.{name}", schemas, inside)
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        yield from unbounded(values, f"{where}{{}}", schemas, inside)


def places(document: Schema) -> set[str]:
    """Every place without a bound, in all bodies and headers."""
    found: set[str] = set()
    schemas = document.get("components", {}).get("schemas", {})
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method.upper()} {path}"
            for content in operation.get("requestBody", {}).get("content", {}).values():
                found |= set(unbounded(content["schema"], where, schemas, ()))
            for one in operation.get("parameters", []):
                if one["in"] == "header":
                    at = f"{where} {one['name']}"
                    found |= set(unbounded(one["schema"], at, schemas, ()))
    return found


def test_every_value_of_every_request_has_a_bound() -> None:
    document = create_app(cast(SessionService, None)).openapi()
    assert sum("requestBody" in op for path in document["paths"].values() for op in path.values())
    found = places(document)
    assert not found - UNBOUNDED, "give these a bound (maxLength, maxItems, minimum and maximum)"
    assert not UNBOUNDED - found, "these have a bound now: take them off the list"


def test_the_walk_finds_what_has_none() -> None:
    text, bounded = {"type": "string"}, {"type": "string", "maxLength": 3}
    schemas = {
        "Tree": {"properties": {"left": {"$ref": "#/components/schemas/Tree"}, "text": text}},
        "Good": {
            "properties": {"a": bounded, "n": {"type": "integer", "minimum": 0, "maximum": 9}}
        },
    }
    for schema, expected in (
        (text, {"here: string"}),
        (bounded, set()),
        ({"anyOf": [bounded, {"type": "number", "minimum": 0}]}, {"here: number"}),
        ({"type": "array", "items": text}, {"here: array", "here[]: string"}),
        ({"type": "array", "maxItems": 2, "items": bounded}, set()),
        ({"$ref": "#/components/schemas/Tree"}, {"Tree.text: string"}),
        ({"$ref": "#/components/schemas/Good"}, set()),
        ({"type": "object", "additionalProperties": text}, {"here{}: string"}),
        ({"enum": ["a"], "type": "string"}, set()),
    ):
        assert set(unbounded(schema, "here", schemas, ())) == expected
