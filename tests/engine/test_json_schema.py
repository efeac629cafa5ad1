"""Schemas: what is written under one is JSON and valid, and what cannot be held is refused."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashfeed.engine import Engine
from flashfeed.engine.grammar import Grammar, Vocabulary, compile_options
from flashfeed.engine.grammar_rules import compile_rules
from flashfeed.engine.integer_range import integers_between
from flashfeed.engine.model import Model
from flashfeed.engine.sampler import Sampler
from flashfeed.models.errors import RequestError
from flashfeed.models.generation import GenerateOptions
from flashfeed.models.session import SessionSpec

BYTES = Vocabulary([bytes([byte]) for byte in range(256)] + [b""])


def grammar(schema: Any) -> Grammar:
    program = compile_options(GenerateOptions(json_schema=schema))
    assert program is not None
    return Grammar(program, BYTES, (256,))


def fits(schema: Any, text: str) -> bool:
    one = grammar(schema)
    for byte in text.encode():
        if not one.allows(byte):
            return False
        one.accept(byte)
    return one.is_complete


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 4},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "mood": {"enum": ["well", "ill", None, 'a"\\b\n', 1.5]},
        "friends": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
    },
    "required": ["age"],
    "title": "A person",
}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (
            PERSON,
            [
                '{"age":0}', '{ "name": "Zoë", "age": 120 }', '{"age":7,"mood":null}',
                '{"age":7,"mood":"a\\"\\\\b\\n"}', '{"age":1,"friends":[{"age":2},{"age":3}]}',
                '{"name":"\\u00e9","age":7,"mood":1.5,"friends":[]}',
            ],
            [
                "{}", '{"age":121}', '{"age":-1}', '{"age":07}', '{"age":7,"name":"x"}',
                '{"name":"","age":7}', '{"name":"Peter","age":7}', '{"age":7,}', '{,"age":7}',
                '{"age":7,"other":1}', '{"name":"a\nb","age":7}', '{"name":"\\ud800","age":7}',
            ],
        ),
        ({"type": "boolean"}, ["true", "false"], ["True", "null", "1"]),
        ({"type": ["null", "number"]}, ["null", "-1.5e3", "0"], ["01", "+1", ".5", "1.", '"1"']),
        ({"const": {"a": [1, "é"]}}, ['{"a": [1, "é"]}'], ['{"a": [1]}']),
        ({"type": "string", "enum": ["a", 1]}, ['"a"'], ["1"]),
        ({"type": "array", "items": {"type": "null"}, "minItems": 2}, ["[null,null]"], ["[null]"]),
        (
            {"type": "array", "prefixItems": [{"const": 1}, {"type": "string"}], "items": False},
            ['[1, "x"]'],
            ["[1]", '[1,"x",2]'],
        ),
        ({"type": "array", "maxItems": 0}, ["[]", "[ ]"], ["[1]"]),
        ({"anyOf": [{"type": "null"}, {"const": "x"}]}, ["null", '"x"'], ['"y"']),
        ({"allOf": [{"type": "null"}]}, ["null"], ["1"]),
        (
            {"type": "object", "additionalProperties": {"type": "integer"}},
            ['{"x": 1, "y":2}', "{}"],
            ['{"x":"1"}'],
        ),
        ({"type": "object", "additionalProperties": False}, ["{}"], ['{"x":1}']),
        ({}, ['{"a": [1, {"b": null}], "c": "d"}', "[]", "1"], ["{", "[1,]"]),
        ({"type": "string", "format": "date"}, ['"2026-11-30"'], ['"2026-11-31"', '"2026-13-01"']),
        ({"format": "date-time"}, ['"2026-01-31T23:59:59.5+01:00"'], ['"2026-01-31"']),
        ({"format": "uuid"}, ['"01234567-89ab-cdef-0123-456789abcdef"'], ['"0123"']),
        ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 3}, ["2"], ["1", "3"]),
        (
            {
                "$ref": "#/$defs/a~1b",
                "$defs": {"a/b": {"type": "array", "items": {"$ref": "#/$defs/a~1b"}}},
            },
            ["[[],[[]]]"],
            ["[1]"],
        ),
    ],
)  # fmt: skip
def test_what_fits(schema: Any, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if not fits(schema, text)] == []
    assert [text for text in bad if fits(schema, text)] == []
    for text in good:
        jsonschema.validate(json.loads(text), schema)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "thing"}, "type to be one of"),
        ({"type": 3}, "type to be one of"),
        ({"type": []}, "type to be one of"),
        ({"type": ["null", "thing"]}, "known type"),
        ({"type": "string", "pattern": "^a$"}, "'pattern' at \\$ is not supported"),
        ({"type": "number", "minimum": 1}, "'minimum'"),
        ({"type": "array", "uniqueItems": True}, "'uniqueItems'"),
        ({"properties": {"a": {"not": {}}}}, "'not' at \\$.properties.a|type to be"),
        ({"$ref": "https://example.org/s.json"}, "\\$ref inside the schema"),
        ({"$ref": "#/$defs/no"}, "names nothing"),
        ({"$ref": "#"}, "left-recursive"),
        ({"type": "string", "minLength": 5000}, "up to 2000"),
        ({"type": "string", "minLength": 2, "maxLength": 1}, "minLength <= maxLength"),
        ({"type": "string", "minLength": "2"}, "whole number"),
        ({"type": "integer", "minimum": 2.5}, "whole number"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "whole number to be left"),
        ({"type": "integer", "minimum": 10**20}, "15 digits"),
        ({"type": "object", "required": ["x"]}, "required name in properties"),
        ({"type": "object", "required": [["x"]]}, "list of required names"),
        ({"type": "object", "properties": []}, "properties and a list"),
        ({"enum": []}, "list of values"),
        ({"enum": [float("nan")]}, "a JSON value"),
        ({"enum": ["\ud800"]}, "a JSON value"),
        ({"type": "null", "enum": [1]}, "value of type"),
        ({"anyOf": []}, "list of schemas"),
        ({"allOf": [{}, {}]}, "list of one"),
        ({"items": 3}, "JSON schema at \\$.items"),
        ({"prefixItems": 3}, "prefixItems"),
    ],
)
def test_what_is_wrong_or_cannot_be_held_is_said(schema: Any, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        grammar(schema)


def nested(n: int) -> Any:
    schema: Any = {"type": "null"}
    for _ in range(n):
        schema = {"type": "array", "items": schema}
    return schema


def nested_list(n: int) -> Any:
    value: Any = []
    for _ in range(n):
        value = [value]
    return value


@pytest.mark.parametrize(
    "schema",
    [
        nested(300),
        {"const": nested_list(50_000)},
        {"type": nested_list(50_000)},
        {"properties": {f"p{n}": {"type": "null"} for n in range(3000)}},
        {"enum": ["x" * 70_000]},
        {"type": "array", "items": {"type": "string", "minLength": 2000}, "minItems": 2000,
         "maxItems": 2000, "prefixItems": nested_list(100_000)},
    ],
    ids=["nested", "nested const", "nested type", "many", "long", "all"],
)  # fmt: skip
def test_schemas_without_measure_are_refused(schema: Any) -> None:
    with pytest.raises(RequestError):
        grammar(schema)


KEYWORDS = (
    *("type", "properties", "required", "additionalProperties", "items", "prefixItems"),
    *("minItems", "maxItems", "minLength", "maxLength", "format", "minimum", "exclusiveMaximum"),
    *("enum", "const", "anyOf", "allOf", "oneOf", "$ref", "$defs", "title"),
)
TYPES = ("object", "array", "string", "integer", "number", "null", "#", "#/$defs/a")
anything = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3),
        st.sampled_from(TYPES),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4)
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(KEYWORDS), anything, max_size=4))
def test_whatever_comes_as_a_schema_is_run_or_refused(schema: Any) -> None:
    try:
        grammar(schema)
    except RequestError as error:
        assert "expected" in str(error) or "schema" in str(error) or "grammar" in str(error)


def test_large_bounds_are_made_smaller_and_large_schemas_run() -> None:
    assert fits({"type": "string", "maxLength": 10**9}, '"abc"')
    many = {"type": "object", "properties": {f"p{n}": {"type": "null"} for n in range(500)}}
    assert fits(many, '{"p3": null, "p499": null}')
    assert not fits(many, '{"p499": null, "p3": null}')


@given(st.integers(-3000, 3000), st.integers(-3000, 3000), st.integers(-3100, 3100))
@settings(max_examples=150)
def test_whole_numbers_between(one: int, other: int, probe: int) -> None:
    low, high = sorted((one, other))
    for value in (probe, low, high, low - 1, high + 1):
        assert integer_fits(low, high, str(value)) == (low <= value <= high)
    assert not integer_fits(low, high, "-0")
    assert not integer_fits(low, high, "007")


def integer_fits(low: int, high: int, text: str) -> bool:
    one = Grammar(compile_rules({"root": integers_between(low, high)}), BYTES, (256,))
    for byte in text.encode():
        if not one.allows(byte):
            return False
        one.accept(byte)
    return one.is_complete


names = st.sampled_from(["a", "ab", "b", "grüße", 'q"', "\\", "a.properties.b"])
leaves = st.one_of(
    st.sampled_from(
        [
            {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"},
            {"type": "null"}, {"type": ["string", "null"]}, {"type": "string", "format": "date"},
            {"type": "string", "minLength": 1, "maxLength": 3}, {"$ref": "#/$defs/node"}, {},
            {"type": "integer", "minimum": -3, "maximum": 250},
        ]
    ),
    st.lists(st.one_of(names, st.integers(-5, 5), st.none()), min_size=1, max_size=3).map(
        lambda values: {"enum": values}
    ),
)  # fmt: skip


def inside(schemas: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(
            lambda item, least, more: {
                "type": "array", "items": item, "minItems": least, "maxItems": least + more
            },
            schemas, st.integers(0, 2), st.integers(0, 2),
        ),
        st.builds(
            lambda named, n: {
                "type": "object", "properties": named, "required": list(named)[:n]
            },
            st.dictionaries(names, schemas, max_size=3), st.integers(0, 3),
        ),
        st.builds(lambda ones: {"anyOf": ones}, st.lists(schemas, min_size=1, max_size=2)),
    )  # fmt: skip


NODE = {
    "type": "object",
    "properties": {"left": {"$ref": "#/$defs/node"}, "v": {"type": "boolean"}},
    "required": ["v"],
}
schemas = st.recursive(leaves, inside, max_leaves=5).map(
    lambda schema: {**schema, "$defs": {"node": NODE}}
)


@pytest.mark.model
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(schema=schemas, seed=st.integers(0, 2**32))
def test_random_text_under_random_schemas_is_valid(model: Model, schema: Any, seed: int) -> None:
    """Logits at random, closing ones likelier, so that most texts end."""
    options = GenerateOptions(json_schema=schema, temperature=1.0, seed=seed)
    program = compile_options(options)
    assert program is not None
    one = Grammar(program, model.vocabulary, model.ends)
    sampler = Sampler(options, model.n_vocab, (), model.ends, one)
    random = np.random.default_rng(seed)
    closing = [token for text in ('"', "}", "]", "null") for token in model.tokens(text)]
    written = b""
    for step in range(120):
        row = random.normal(size=model.n_vocab).astype(np.float32)
        row[[*closing, *model.ends]] += 8 + step / 10
        token = sampler.pick(row).token
        if token in model.ends:
            jsonschema.validate(json.loads(written), schema)
            return
        written += model.piece(token)


@pytest.mark.model
async def test_the_model_writes_what_the_schema_asks_for(engine: Engine, name: str) -> None:
    await engine.open(name, SessionSpec(type="event", prompt="You answer in JSON."))
    small = {
        "type": "object",
        "properties": {
            "state": {"enum": ["well", "ill"]},
            "score": {"type": "integer", "minimum": 0, "maximum": 10},
            "why": {"type": "string", "maxLength": 8},
        },
        "required": ["state", "score", "why"],
    }
    for temperature in (0.0, 1.0):
        options = GenerateOptions(
            json_schema=small, max_tokens=50, temperature=temperature, seed=5, logprobs=2
        )
        pieces = [piece async for piece in engine.generate(name, "How is the pump?", options)]
        assert pieces[-1].finish_reason == "stop"
        jsonschema.validate(json.loads("".join(piece.text for piece in pieces)), small)
        assert b"".join(piece.raw for piece in pieces).startswith(b"{")
        assert all(len(piece.top) == 2 for piece in pieces[:-1])
        assert all(piece.log_probability <= 0 for piece in pieces)
    with pytest.raises(RequestError, match="'pattern'"):
        wrong = GenerateOptions(json_schema={"type": "string", "pattern": "x"})
        [piece async for piece in engine.generate(name, "?", wrong)]
    await engine.close(name)
