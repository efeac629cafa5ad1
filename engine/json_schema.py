"""A JSON schema as the rules of a grammar. Pure.

Text that follows the rules is JSON and is valid under the schema: a keyword that the
rules cannot hold the text to is refused, never passed over, except annotations. Objects
have their properties in the schema's order and none that it does not name, unless
`additionalProperties` says so and there are no others; between tokens of JSON there is
at most one space. `oneOf` is read as `anyOf`: that no second one fits is not checked.

llama-cpp-python's own converter is not used: it lets raw control characters into
strings, writes backslashes of constants wrongly, mixes up rules of like names, ignores
what it does not know, and fetches what `$ref` names from the network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from flashfeed.models.errors import RequestError

from .grammar_nodes import Alt, Node, Ref, Repeat, Seq, Text
from .grammar_rules import NESTING_MAX, REPETITIONS_MAX
from .integer_range import integers_between
from .json_text import BUILT_IN, CHARACTER, FORMATS, INTEGER, SPACE, STRING

SCHEMAS_MAX: Final = 2000
"""Schemas inside one, each counted once."""
CHARACTERS_MAX: Final = 65_536
"""Characters in a schema's constants and names."""

_ANNOTATIONS: Final = frozenset(
    (
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$id", "$comment", "$defs", "definitions", "discriminator"),
    )
)
# A format is an annotation too, unless it is one of `FORMATS`.
_BY_TYPE: Final[dict[str, frozenset[str]]] = {
    "object": frozenset(("properties", "required", "additionalProperties")),
    "array": frozenset(("items", "prefixItems", "minItems", "maxItems")),
    "string": frozenset(("minLength", "maxLength", "format")),
    "integer": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "format")),
    "number": frozenset(("format",)),
    "boolean": frozenset(),
    "null": frozenset(),
}


def parse_json_schema(schema: Mapping[str, Any]) -> dict[str, Node]:
    """The rules of text that is valid under the schema; the first is "root".

    Raises RequestError naming the keyword and where in the schema it stands.
    """
    converter = _Converter(schema)
    converter.rules["root"] = converter.node(schema, "$", 0)
    while converter.waiting:
        ref = converter.waiting.pop()
        converter.rules[ref] = converter.node(converter.target(ref), ref, 0)
    return converter.rules


def _listed(open_: str, items: Node, close: str) -> Node:
    return Seq((Text(open_), SPACE, items, SPACE, Text(close)))


_COMMA: Final = Seq((Text(","), SPACE))


class _Converter:
    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._whole: Final = schema
        self.rules: dict[str, Node] = {}
        self.waiting: list[str] = []
        self._n_schemas = 0
        self._n_characters = 0

    def node(self, schema: object, path: str, depth: int) -> Node:
        """The text of one value. `path` says where the schema stands, for messages."""
        self._n_schemas += 1
        if self._n_schemas > SCHEMAS_MAX or depth > NESTING_MAX:
            raise RequestError(
                f"expected a JSON schema of at most {SCHEMAS_MAX} schemas, {NESTING_MAX} inside "
                f"one another, got more at {path}"
            )
        if schema is True or schema == {}:
            return self._any()
        if not isinstance(schema, Mapping):
            raise RequestError(f"expected a JSON schema at {path}, got {_shown(schema)}")
        for name, convert in self._sole:
            if name in schema:
                self._known(
                    schema, {name} | ({"type"} if name in ("enum", "const") else set()), path
                )
                return convert(self, schema, path, depth)
        types = schema.get("type", self._guessed(schema))
        if isinstance(types, list) and types and all(isinstance(one, str) for one in types):
            self._known(schema, {"type"}.union(*(_BY_TYPE.get(one, ()) for one in types)), path)
            return Alt(tuple(self._typed(one, schema, path, depth) for one in types))
        if not isinstance(types, str) or types not in _BY_TYPE:
            raise RequestError(
                f"expected type to be one of {', '.join(_BY_TYPE)} at {path}, got {_shown(types)}"
            )
        self._known(schema, {"type"} | _BY_TYPE[types], path)
        return self._typed(types, schema, path, depth)

    def target(self, ref: str) -> object:
        """What a `$ref` names."""
        found: object = self._whole
        for part in ref.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or name not in found:
                raise RequestError(f"the JSON schema's $ref {ref!r} names nothing in it")
            found = found[name]
        return found

    def _any(self) -> Node:
        if "value" not in self.rules:
            value = Ref("value")
            pair = Seq((STRING, Text(":"), SPACE, value))
            self.rules["value"] = Alt(
                (
                    *BUILT_IN.values(),
                    _listed("{", _any_number(pair), "}"),
                    _listed("[", _any_number(value), "]"),
                )
            )
        return Ref("value")

    def _guessed(self, schema: Mapping[str, Any]) -> str | None:
        """A schema without a type is of the type whose keywords it has."""
        for name, keywords in _BY_TYPE.items():
            if name != "number" and keywords & schema.keys():
                return name
        return None

    def _known(
        self, schema: Mapping[str, Any], keywords: set[str] | frozenset[str], path: str
    ) -> None:
        unknown = schema.keys() - keywords - _ANNOTATIONS
        if unknown:
            name = min(map(str, unknown))
            raise RequestError(
                f"the JSON schema's {name!r} at {path} is not supported there; supported are "
                f"{', '.join(sorted(keywords))} and annotations"
            )

    def _typed(self, name: str, schema: Mapping[str, Any], path: str, depth: int) -> Node:
        if name == "object":
            return self._object(schema, path, depth)
        if name == "array":
            return self._array(schema, path, depth)
        if name == "string":
            return self._string(schema, path)
        if name == "integer":
            return self._integer(schema, path)
        if name not in BUILT_IN:
            raise RequestError(f"expected a known type at {path}, got {_shown(name)}")
        return BUILT_IN[name]

    def _integer(self, schema: Mapping[str, Any], path: str) -> Node:
        keys = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
        least, above, most, below = (self._whole_number(schema, key, path) for key in keys)
        lows = [low for low in (least, None if above is None else above + 1) if low is not None]
        highs = [high for high in (most, None if below is None else below - 1) if high is not None]
        low, high = max(lows, default=None), min(highs, default=None)
        if low is None and high is None:
            return INTEGER
        if low is not None and high is not None and high < low:
            raise RequestError(f"expected a whole number to be left at {path}, got {low} to {high}")
        return integers_between(low, high)

    def _string(self, schema: Mapping[str, Any], path: str) -> Node:
        least, most = self._bounds(schema, "minLength", "maxLength", path)
        form = schema.get("format")
        if isinstance(form, str) and form in FORMATS:
            if least or most is not None:
                raise RequestError(f"expected format or lengths at {path}, got both")
            return Seq((Text('"'), FORMATS[form], Text('"')))
        return Seq((Text('"'), Repeat(CHARACTER, least, most), Text('"')))

    def _array(self, schema: Mapping[str, Any], path: str, depth: int) -> Node:
        least, most = self._bounds(schema, "minItems", "maxItems", path)
        first = schema.get("prefixItems", [])
        if first:
            if not isinstance(first, list) or schema.get("items", False) is not False:
                raise RequestError(f"expected prefixItems to be a list without items at {path}")
            if least > len(first) or (most is not None and most < len(first)):
                raise RequestError(f"expected {len(first)} items (prefixItems) to fit at {path}")
            nodes: list[Node] = []
            for place, one in enumerate(first):
                nodes += [_COMMA] if place else []
                nodes.append(self.node(one, f"{path}.prefixItems[{place}]", depth + 1))
            return _listed("[", Seq(tuple(nodes)), "]")
        if schema.get("items") is False:
            return _listed("[", Seq(()), "]")
        item = self.node(schema.get("items", True), f"{path}.items", depth + 1)
        return _listed("[", _separated(item, least, most), "]")

    def _object(self, schema: Mapping[str, Any], path: str, depth: int) -> Node:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        more = schema.get("additionalProperties", not properties)
        named = isinstance(required, list) and all(isinstance(one, str) for one in required)
        if not isinstance(properties, Mapping) or not named:
            raise RequestError(f"expected properties and a list of required names at {path}")
        missing = [name for name in required if name not in properties]
        if missing:
            raise RequestError(
                f"expected every required name in properties at {path}, got {_shown(missing[0])}"
            )
        # `tail` is what follows where nothing, and where something, was written before.
        after: Node = Seq(())
        alone: Node = Seq(())
        if more is not False and not properties:
            value = self.node(more, f"{path}.additionalProperties", depth + 1)
            alone = _any_number(Seq((STRING, Text(":"), SPACE, value)))
        for name, one in reversed(list(properties.items())):
            value = self.node(one, f"{path}.properties.{name}", depth + 1)
            pair = Seq((self._constant(str(name)), Text(":"), SPACE, value))
            rest = self._named(path, after)
            if name in required:
                alone, after = Seq((pair, rest)), Seq((_COMMA, pair, rest))
            else:
                skipped = self._named(path, alone)
                alone = Alt((Seq((pair, rest)), skipped))
                after = Seq((Repeat(Seq((_COMMA, pair)), 0, 1), rest))
        return _listed("{", alone, "}")

    def _named(self, path: str, node: Node) -> Node:
        """The node as a rule, so that it is compiled once however often it is named."""
        name = f"{path} {len(self.rules)}"
        self.rules[name] = node
        return Ref(name)

    def _constant(self, value: object) -> Node:
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            text.encode()
        except (ValueError, TypeError, RecursionError) as error:
            raise RequestError(f"expected a JSON value in the JSON schema: {error}") from None
        self._n_characters += len(text)
        if self._n_characters > CHARACTERS_MAX:
            raise RequestError(f"expected a JSON schema of at most {CHARACTERS_MAX} characters")
        return Text(text)

    def _one_of(self, schema: Mapping[str, Any], path: str, depth: int) -> Node:
        key = "anyOf" if "anyOf" in schema else "oneOf" if "oneOf" in schema else "allOf"
        ones = schema[key]
        if not isinstance(ones, list) or not ones or (key == "allOf" and len(ones) > 1):
            wanted = "a list of one schema" if key == "allOf" else "a list of schemas"
            raise RequestError(f"expected {key} to be {wanted} at {path}, got {_shown(ones)}")
        return Alt(
            tuple(self.node(one, f"{path}.{key}[{i}]", depth + 1) for i, one in enumerate(ones))
        )

    def _enum(self, schema: Mapping[str, Any], path: str, _: int) -> Node:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if not isinstance(values, list) or not values:
            raise RequestError(f"expected enum to be a list of values at {path}")
        types = schema.get("type")
        if types is not None:
            wanted = types if isinstance(types, list) else [types]
            values = [value for value in values if any(_is_of(value, one) for one in wanted)]
            if not values:
                raise RequestError(f"expected a value of type {_shown(types)} at {path}, got none")
        return Alt(tuple(self._constant(value) for value in values))

    def _ref(self, schema: Mapping[str, Any], path: str, _: int) -> Node:
        ref = schema["$ref"]
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise RequestError(
                f"expected a $ref inside the schema (#/...) at {path}, got {_shown(ref)}"
            )
        if ref == "#":
            return Ref("root")
        if ref not in self.rules:
            self.rules[ref] = Seq(())
            self.waiting.append(ref)
        return Ref(ref)

    def _bounds(
        self, schema: Mapping[str, Any], low: str, high: str, path: str
    ) -> tuple[int, int | None]:
        least, most = self._whole_number(schema, low, path), self._whole_number(schema, high, path)
        least = least or 0
        if least < 0 or (most is not None and most < least):
            raise RequestError(f"expected 0 <= {low} <= {high} at {path}, got {least} and {most}")
        if least > REPETITIONS_MAX:
            raise RequestError(f"expected {low} up to {REPETITIONS_MAX} at {path}, got {least}")
        # What is shorter than asked for is valid too.
        return least, None if most is None else min(most, REPETITIONS_MAX)

    def _whole_number(self, schema: Mapping[str, Any], key: str, path: str) -> int | None:
        value = schema.get(key)
        whole = isinstance(value, float) and value.is_integer()
        if value is None or (isinstance(value, int) and not isinstance(value, bool)) or whole:
            return None if value is None else int(value)
        raise RequestError(f"expected {key} to be a whole number at {path}, got {_shown(value)}")

    _sole: Final[tuple[tuple[str, Callable[..., Node]], ...]] = (
        ("$ref", _ref),
        ("anyOf", _one_of),
        ("oneOf", _one_of),
        ("allOf", _one_of),
        ("const", _enum),
        ("enum", _enum),
    )


def _any_number(node: Node) -> Node:
    return _separated(node, 0, None)


def _separated(node: Node, least: int, most: int | None) -> Node:
    """From least to most of the node, with commas between them."""
    if most == 0:
        return Seq(())
    rest = Repeat(Seq((_COMMA, node)), max(0, least - 1), None if most is None else most - 1)
    some = Seq((node, rest))
    return some if least else Repeat(some, 0, 1)


def _is_of(value: object, name: object) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if isinstance(value, float) and value.is_integer():
        return name in ("integer", "number")
    return name in _TYPES_OF.get(type(value), ())


_TYPES_OF: Final[dict[type, tuple[str, ...]]] = {
    int: ("integer", "number"),
    float: ("number",),
    str: ("string",),
    type(None): ("null",),
    list: ("array",),
    dict: ("object",),
}


def _shown(value: object) -> str:
    """A value for a message; of a large one its kind and size."""
    if isinstance(value, dict | list):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value)[:80]
