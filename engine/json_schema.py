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

from .grammar_rules import (
    NESTING_MAX,
    REPETITIONS_MAX,
    Alt,
    Chars,
    Node,
    Ref,
    Repeat,
    Seq,
    Text,
    except_chars,
)
from .integer_range import integers_between

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
# A format is an annotation too, unless it is one of `_FORMATS`.
_BY_TYPE: Final[dict[str, frozenset[str]]] = {
    "object": frozenset(("properties", "required", "additionalProperties")),
    "array": frozenset(("items", "prefixItems", "minItems", "maxItems")),
    "string": frozenset(("minLength", "maxLength", "format")),
    "integer": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "format")),
    "number": frozenset(("format",)),
    "boolean": frozenset(),
    "null": frozenset(),
}

_SPACE: Final = Repeat(Text(" "), 0, 1)
_DIGIT: Final = Chars(((0x30, 0x39),))
_NATURAL: Final = Alt((Text("0"), Seq((Chars(((0x31, 0x39),)), Repeat(_DIGIT, 0, 14)))))
_INTEGER: Final = Seq((Repeat(Text("-"), 0, 1), _NATURAL))
_EXPONENT: Final = Seq(
    (
        Chars(((0x45, 0x45), (0x65, 0x65))),
        Repeat(Chars(((0x2B, 0x2B), (0x2D, 0x2D))), 0, 1),
        Repeat(_DIGIT, 1, 2),
    )
)
_NUMBER: Final = Seq(
    (
        _INTEGER,
        Repeat(Seq((Text("."), Repeat(_DIGIT, 1, 15))), 0, 1),
        Repeat(_EXPONENT, 0, 1),
    )
)
_HEX: Final = Chars(((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)))


def _hex(n: int) -> Node:
    return Repeat(_HEX, n, n)


_CHARACTER: Final = Alt(
    (
        # DEL and the C1 controls are legal JSON, and never wanted.
        except_chars(((0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x9F))),
        Seq((Text("\\"), Chars(tuple((ord(one), ord(one)) for one in '"\\/bfnrt')))),
        # A surrogate alone is no character: \uD800 to \uDFFF are left out.
        Seq((Text("\\u"), Chars(((0x30, 0x39), (0x41, 0x43), (0x61, 0x63))), *[_HEX] * 3)),
        Seq((Text("\\u"), Chars(((0x44, 0x44), (0x64, 0x64))), Chars(((0x30, 0x37),)), _HEX, _HEX)),
        Seq((Text("\\u"), Chars(((0x45, 0x46), (0x65, 0x66))), *[_HEX] * 3)),
    )
)


def _two_digits(least: int, most: int) -> Node:
    """A number of two digits from least to most."""
    return Alt(tuple(Text(f"{n:02}") for n in range(least, most + 1)))


def _days(months: tuple[int, ...], days: int) -> Node:
    """The month and day of a date."""
    return Seq((Alt(tuple(Text(f"{n:02}") for n in months)), Text("-"), _two_digits(1, days)))


_DATE: Final = Seq(
    (
        Repeat(_DIGIT, 4, 4),
        Text("-"),
        # The 29th of February is left out: not every year has it.
        Alt((_days((1, 3, 5, 7, 8, 10, 12), 31), _days((4, 6, 9, 11), 30), _days((2,), 28))),
    )
)
_HOUR: Final = _two_digits(0, 23)
_SIXTY: Final = _two_digits(0, 59)
_OFFSET: Final = Alt(
    (Text("Z"), Seq((Chars(((0x2B, 0x2B), (0x2D, 0x2D))), _HOUR, Text(":"), _SIXTY)))
)
_TIME: Final = Seq(
    (
        Seq((_HOUR, Text(":"), _SIXTY, Text(":"), _SIXTY)),
        Repeat(Seq((Text("."), Repeat(_DIGIT, 1, 6))), 0, 1),
        _OFFSET,
    )
)
_FORMATS: Final[dict[str, Node]] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": Seq((_DATE, Text("T"), _TIME)),
    "uuid": Seq((_hex(8), *[Seq((Text("-"), _hex(n))) for n in (4, 4, 4, 12)])),
}

_STRING: Final = Seq((Text('"'), Repeat(_CHARACTER, 0, None), Text('"')))
_BUILT_IN: Final[dict[str, Node]] = {
    "string": _STRING,
    "number": _NUMBER,
    "integer": _INTEGER,
    "boolean": Alt((Text("true"), Text("false"))),
    "null": Text("null"),
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
    return Seq((Text(open_), _SPACE, items, _SPACE, Text(close)))


_COMMA: Final = Seq((Text(","), _SPACE))


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
        if isinstance(types, list) and types:
            self._known(schema, {"type"}.union(*(_BY_TYPE.get(str(t), ()) for t in types)), path)
            return Alt(tuple(self._typed(str(one), schema, path, depth) for one in types))
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
            pair = Seq((_STRING, Text(":"), _SPACE, value))
            self.rules["value"] = Alt(
                (
                    *_BUILT_IN.values(),
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
        if name not in _BUILT_IN:
            raise RequestError(f"expected a known type at {path}, got {_shown(name)}")
        return _BUILT_IN[name]

    def _integer(self, schema: Mapping[str, Any], path: str) -> Node:
        keys = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
        least, above, most, below = (self._whole_number(schema, key, path) for key in keys)
        lows = [low for low in (least, None if above is None else above + 1) if low is not None]
        highs = [high for high in (most, None if below is None else below - 1) if high is not None]
        low, high = max(lows, default=None), min(highs, default=None)
        if low is None and high is None:
            return _INTEGER
        if low is not None and high is not None and high < low:
            raise RequestError(f"expected a whole number to be left at {path}, got {low} to {high}")
        return integers_between(low, high)

    def _string(self, schema: Mapping[str, Any], path: str) -> Node:
        least, most = self._bounds(schema, "minLength", "maxLength", path)
        form = schema.get("format")
        if isinstance(form, str) and form in _FORMATS:
            if least or most is not None:
                raise RequestError(f"expected format or lengths at {path}, got both")
            return Seq((Text('"'), _FORMATS[form], Text('"')))
        return Seq((Text('"'), Repeat(_CHARACTER, least, most), Text('"')))

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
        if not isinstance(properties, Mapping) or not isinstance(required, list):
            raise RequestError(f"expected properties and a list of required names at {path}")
        missing = [name for name in required if name not in properties]
        if missing:
            raise RequestError(f"{path} requires {_shown(missing[0])}, which properties lacks")
        # `tail` is what follows where nothing, and where something, was written before.
        after: Node = Seq(())
        alone: Node = Seq(())
        if more is not False and not properties:
            value = self.node(more, f"{path}.additionalProperties", depth + 1)
            alone = _any_number(Seq((_STRING, Text(":"), _SPACE, value)))
        for name, one in reversed(list(properties.items())):
            value = self.node(one, f"{path}.properties.{name}", depth + 1)
            pair = Seq((self._constant(str(name)), Text(":"), _SPACE, value))
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
