"""Calls in a model's text, in every form, cut anywhere, broken or not."""

from __future__ import annotations

import itertools
import json
import time

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_cpp.llama_grammar import json_schema_to_gbnf

from flashfeed.engine.json_end import JsonEnd
from flashfeed.engine.tool_calls import ToolCallReader
from flashfeed.engine.tool_guide import call_schema, guide
from flashfeed.models.chat import NamedTool, Tool, ToolCall, ToolChoice
from flashfeed.models.errors import RequestError

TOOLS = (
    Tool(
        name="price",
        parameters={
            "properties": {"symbol": {"type": "string"}},
            "required": ["symbol"],
        },
    ),
    Tool(name="now"),
)
PRICE = '{"name": "price", "arguments": {"symbol": "A \\"<b>\\" {x}"}}'
ARGUMENTS = '{"symbol": "A \\"<b>\\" {x}"}'
Read = list[str | tuple[str, str]]


def read(
    text: str, *cuts: int, choice: ToolChoice = "auto", key: str = "k"
) -> list[str | ToolCall]:
    """What a reader makes of the text in pieces, neighbouring texts joined."""
    reader = ToolCallReader(TOOLS, choice, key)
    places = [0, *sorted(cuts), len(text)]
    parts: list[str | ToolCall] = []
    for start, end in itertools.pairwise(places):
        parts += reader.add(text[start:end])
    parts += reader.end()
    whole: list[str | ToolCall] = []
    for part in parts:
        if isinstance(part, str) and whole and isinstance(whole[-1], str):
            whole[-1] += part
        else:
            whole.append(part)
    return whole


def seen(text: str, choice: ToolChoice = "auto") -> Read:
    return [
        part if isinstance(part, str) else (part.name, part.arguments)
        for part in read(text, choice=choice)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("just text", ["just text"]),
        (f"<tool_call>\n{PRICE}\n</tool_call>", [("price", ARGUMENTS)]),
        (f"<tool_call>{PRICE}", [("price", ARGUMENTS)]),
        (f"Wait.\n<tool_call>{PRICE}</tool_call>\n", ["Wait.", ("price", ARGUMENTS)]),
        (
            f'<tool_call>{PRICE}</tool_call>\n<tool_call>{{"name": "now"}}</tool_call> So.',
            [("price", ARGUMENTS), ("now", "{}"), " So."],
        ),
        ('<tool_call>[{"name":"now"},{"name":"now"}]</tool_call>', [("now", "{}"), ("now", "{}")]),
        (f'[TOOL_CALLS][{PRICE}, {{"name":"now"}}]', [("price", ARGUMENTS), ("now", "{}")]),
        (f"[TOOL_CALLS] {PRICE} done", [("price", ARGUMENTS), " done"]),
        ('<|python_tag|>{"name": "now", "parameters": {}}', [("now", "{}")]),
        ('\n{"name": "now", "parameters": {"a":1}}\n', [("now", '{"a":1}')]),
        ('{"type": "function", "name": "now", "parameters": {}}', [("now", "{}")]),
        (f'{PRICE}; {{"name": "now", "parameters": {{}}}}', [("price", ARGUMENTS), ("now", "{}")]),
        (f"[{PRICE}]", [("price", ARGUMENTS)]),
        # Arguments as a string with JSON in it.
        ('<tool_call>{"name":"now","arguments":"{\\"a\\": 1}"}', [("now", '{"a": 1}')]),
    ],
)
def test_the_forms_that_models_write(text: str, expected: Read) -> None:
    assert seen(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "other", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "now", "arguments": {}</tool_call>',
        '<tool_call>{"name": "now", "arguments": 7}</tool_call>',
        '<tool_call>{"name": "now", "arguments": {"a": tru}}</tool_call>',
        '<tool_call>{"name": "now", "arguments": "no JSON"}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        "<tool_call></tool_call>",
        "<tool_call>now()</tool_call>",
        '<tool_call>{"name": "now", "argu',
        "<tool_call>[]</tool_call>",
        "<tool_call>" + "[" * 5000,
        '[TOOL_CALLS]now{"a": 1}',
        '{"answer": 42}',
        '{"name": "now"}',  # an answer in JSON, rather than a call without arguments
        '{"name": "now", "arguments": {}} is how one calls it.',
        "[1, 2] and so on",
        "[",
        "a < b <tool",
        '{"name": "now", "arguments": {}',
        f'{PRICE}; {{"name": "other", "arguments": {{}}}}',
    ],
)
def test_what_is_no_call_is_text_to_the_last_character(text: str) -> None:
    assert "".join(str(part) for part in seen(text)) == text


def test_a_good_call_after_a_broken_one_is_read() -> None:
    broken = '<tool_call>{"name": "now", "arguments": {}</tool_call>'
    assert seen(f"{broken}\n<tool_call>{PRICE}</tool_call>") == [broken, ("price", ARGUMENTS)]


fragments = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", PRICE, f"[{PRICE}]"),
        *('{"name":"now","parameters":{}}', '{"name":"now"}', "{", "}", "[", "]", '"', "\\", ";"),
        *(" ", "\n", "text", "<", "</tool", "é", "🙂", ",", ":"),
    ]
)
model_texts = st.lists(fragments | st.text(max_size=5), max_size=12).map("".join)
choices = st.sampled_from(["auto", "required"])


@given(text=model_texts, cuts=st.lists(st.integers(0, 400), max_size=12), choice=choices)
def test_any_cut_gives_what_the_whole_gives(text: str, cuts: list[int], choice: ToolChoice) -> None:
    whole = read(text, choice=choice)
    assert read(text, *(min(cut, len(text)) for cut in cuts), choice=choice) == whole
    assert read(text, *range(len(text)), choice=choice) == whole


@given(text=model_texts)
def test_no_text_is_lost(text: str) -> None:
    """Between the calls, every character but white space is given out, and in order."""
    parts = read(text)
    if not any(isinstance(part, ToolCall) for part in parts):
        assert "".join(map(str, parts)) == text
    rest = text
    for part in parts:
        if isinstance(part, str):
            at = rest.find(part.strip())
            assert at >= 0
            rest = rest[at + len(part.strip()) :]
        else:
            assert part.name in rest


def test_text_is_given_out_as_soon_as_it_is_clear() -> None:
    reader = ToolCallReader(TOOLS)
    assert reader.add("The price") == ("The price",)
    assert reader.add(" is <") == (" is",)
    assert reader.add("b>") == (" <b>",)
    assert reader.add("<tool_") == ()
    assert reader.add(f"call>{PRICE[:-1]}") == ()
    (call,) = reader.add("}")  # before the closing tag
    assert isinstance(call, ToolCall)
    assert reader.add("</tool_call>") == reader.end() == ()


def test_without_tools_nothing_is_held_back() -> None:
    for reader in (ToolCallReader(()), ToolCallReader(TOOLS, "none")):
        assert reader.add(f"<tool_call>{PRICE}") == (f"<tool_call>{PRICE}",)
        assert reader.end() == ()


@pytest.mark.parametrize("choice", ["required", NamedTool(name="price")])
def test_where_a_call_is_asked_for_the_answer_begins_inside_the_tag(choice: ToolChoice) -> None:
    assert seen(PRICE, choice) == [("price", ARGUMENTS)]
    assert seen(f"{PRICE}\n</tool_call>", choice) == [("price", ARGUMENTS)]
    assert seen("I would rather not.", choice) == ["I would rather not."]


def test_ids_are_stable_and_no_two_calls_share_one() -> None:
    text = f"<tool_call>{PRICE}</tool_call>" * 3
    first, other = ([p.id for p in read(text, key=k) if isinstance(p, ToolCall)] for k in "ab")
    assert all(one.startswith("call_") for one in first)
    assert len({*first, *other}) == 6
    assert read(text, 5, 40, key="a") == read(text, key="a")


def test_the_time_does_not_grow_with_the_square_of_a_text() -> None:
    """Prompts can make a model write any text."""
    for hostile in ('<tool_call>{"a":"', "<tool_call>[", '{"name":"now","parameters":{}};', "<"):
        text = hostile * (200_000 // len(hostile))
        started = time.perf_counter()
        read(text, *range(0, len(text), 5))
        assert time.perf_counter() - started < 10


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
    behind=st.text(),
)
def test_the_end_of_a_json_value_is_found(value: object, behind: str) -> None:
    text = json.dumps([value], ensure_ascii=False)
    assert JsonEnd().find(text + behind) == len(text)
    slowly = JsonEnd()
    assert [slowly.find(text[:n]) for n in range(len(text) + 1)] == [None] * len(text) + [len(text)]


@pytest.mark.parametrize("text", ["x", "[}", '["a\n"]', "[<", "[" * 65, "]"])
def test_what_cannot_be_json_is_not_waited_for(text: str) -> None:
    end = JsonEnd()
    assert end.find(text) is None
    assert end.failed


def test_the_schema_of_a_call() -> None:
    schema = call_schema(TOOLS, "required")
    jsonschema.validate({"name": "price", "arguments": {"symbol": "A"}}, schema)
    jsonschema.validate({"name": "now", "arguments": {}}, schema)
    for wrong in (
        {"name": "price", "arguments": {}},
        {"name": "other", "arguments": {}},
        {"name": "now"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    one = call_schema(TOOLS, NamedTool(name="now"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "price", "arguments": {"symbol": "A"}}, one)


def test_references_inside_a_tool_s_schema_stay_its_own() -> None:
    def tool(name: str, kind: str) -> Tool:
        point = {"type": "object", "properties": {"x": {"type": kind}, "in": {"$ref": "#/$defs/P"}}}
        at = {"type": "object", "properties": {"at": {"$ref": "#/$defs/P"}}}
        return Tool(name=name, parameters={**at, "$defs": {"P": point}})

    schema = call_schema((tool("a", "integer"), tool("b", "string")), "required")
    jsonschema.validate({"name": "a", "arguments": {"at": {"in": {"x": 1}}}}, schema)
    jsonschema.validate({"name": "b", "arguments": {"at": {"in": {"x": "1"}}}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "b", "arguments": {"at": {"x": 1}}}, schema)
    rules = json_schema_to_gbnf(json.dumps(schema)).splitlines()
    assert "alternative-0-arguments-at ::= tool-0-part-0" in rules
    assert "alternative-1-arguments-at ::= tool-1-part-0" in rules
    lost = Tool(name="c", parameters={"properties": {"x": {"$ref": "#/$defs/Q"}}})
    with pytest.raises(RequestError, match="'#/\\$defs/Q'"):
        call_schema((lost,), "required")


def test_the_guide_lists_the_tools_as_openai_does() -> None:
    listed = [json.loads(line) for line in guide(TOOLS)[1].text.splitlines()]
    assert [one["function"]["name"] for one in listed] == ["price", "now"]
    assert listed[1]["function"]["parameters"] == {"type": "object", "properties": {}}
    assert guide(()) == ()


def test_calls_read_back_are_valid() -> None:
    for part in read(f"<tool_call>{PRICE}</tool_call>"):
        msgspec.convert(msgspec.to_builtins(part), ToolCall)
