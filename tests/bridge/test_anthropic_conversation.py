"""Anthropic's blocks as a conversation of the service's."""

from __future__ import annotations

import pytest

from flashfeed.bridge.anthropic_conversation import conversation
from flashfeed.bridge.errors import InvalidField, Unsupported
from flashfeed.models.chat import ChatMessage, NamedTool, Tool, ToolCall

USER = {"role": "user", "content": "Hello"}
PRICE = {
    "name": "price",
    "description": "The last price.",
    "input_schema": {"type": "object", "properties": {"symbol": {"type": "string"}}},
    "cache_control": {"type": "ephemeral"},
}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "price", "input": {"symbol": "Ä", "n": [1]}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "150.7"}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


@pytest.mark.parametrize(
    ("system", "read"),
    [
        ("Be terse.", "Be terse."),
        ([text("Be terse."), {**text("Be kind."), "cache_control": {}}], "Be terse.\n\nBe kind."),
    ],
)
def test_system_is_the_first_message(system, read):
    asked = conversation([USER], system)
    assert asked.messages == (
        ChatMessage(role="system", content=read),
        ChatMessage(role="user", content="Hello"),
    )


@pytest.mark.parametrize("system", [None, "", []])
def test_no_system_is_no_message(system):
    assert conversation([USER], system).messages == (ChatMessage(role="user", content="Hello"),)


def test_blocks_are_paragraphs_and_turns_of_one_role_are_one_turn():
    asked = conversation(
        [
            {"role": "user", "content": [text("One."), text("Two.")]},
            {"role": "user", "content": "Three."},
            {"role": "assistant", "content": [text("So")]},
        ]
    )
    assert [(one.role, one.content) for one in asked.messages] == [
        ("user", "One.\n\nTwo.\n\nThree."),
        ("assistant", "So"),
    ]


def test_calls_and_their_results():
    asked = conversation(
        [
            USER,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    text("I look."),
                    CALL,
                    CALL | {"id": "toolu_2"},
                ],
            },
            {
                "role": "user",
                "content": [
                    RESULT,
                    RESULT
                    | {"tool_use_id": "toolu_2", "is_error": True, "content": [text("gone")]},
                    text("And now?"),
                ],
            },
        ],
        tools=[PRICE],
    )
    arguments = '{"symbol": "Ä", "n": [1]}'
    assert asked.messages[1:] == (
        ChatMessage(
            role="assistant",
            content="I look.",
            tool_calls=(
                ToolCall("toolu_1", "price", arguments),
                ToolCall("toolu_2", "price", arguments),
            ),
        ),
        ChatMessage(role="tool", tool_call_id="toolu_1", content="150.7"),
        ChatMessage(role="tool", tool_call_id="toolu_2", content="Error: gone"),
        ChatMessage(role="user", content="And now?"),
    )
    assert asked.tools == (Tool("price", "The last price.", PRICE["input_schema"]),)


@pytest.mark.parametrize(
    ("choice", "name", "read"),
    [
        ("auto", None, "auto"),
        ("any", None, "required"),
        ("none", None, "none"),
        ("tool", "price", NamedTool("price")),
    ],
)
def test_the_choice_of_a_tool(choice, name, read):
    assert conversation([USER], None, [PRICE], choice, name).tool_choice == read


@pytest.mark.parametrize(
    ("asked", "error", "param"),
    [
        ({"messages": [{"role": "tool", "content": ""}]}, InvalidField, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, InvalidField, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 3}]}, InvalidField, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [3]}]}, InvalidField, "messages.0.content.0"),
        (
            {"messages": [USER, {"role": "user", "content": [{"type": "image"}]}]},
            Unsupported,
            "messages.1.content.0.type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
            InvalidField,
            "messages.0.content.0.text",
        ),
        (
            {"messages": [USER, {"role": "user", "content": [text("x"), RESULT]}]},
            InvalidField,
            "messages.1.content.1",
        ),
        (
            {"messages": [{"role": "assistant", "content": [CALL | {"input": "x"}]}]},
            InvalidField,
            "messages.0.content.0.input",
        ),
        # The service's own check, with the place as the client knows it.
        (
            {"messages": [{"role": "user", "content": "x" * 400_001}], "system": "s"},
            InvalidField,
            "messages.0.content",
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": [CALL | {"name": "a b"}]}]},
            InvalidField,
            "messages.1.tool_use.0.name",
        ),
        ({"messages": [USER], "tools": [{"name": "x"}]}, InvalidField, "tools.0.input_schema"),
        (
            {"messages": [USER], "tools": [{"type": "web_search_20250305"}]},
            Unsupported,
            "tools.0.type",
        ),
        ({"messages": [USER], "tools": [PRICE | {"strict": True}]}, Unsupported, "tools.0.strict"),
        (
            {"messages": [USER], "tools": [PRICE], "choice": "tool"},
            InvalidField,
            "tool_choice.name",
        ),
        ({"messages": [USER | {"name": "x"}]}, Unsupported, "messages.0.name"),
        ({"messages": [USER], "system": 3}, InvalidField, "system"),
        (
            {"messages": [{"role": "user", "content": [text("x")] * 1001}]},
            InvalidField,
            "messages.0.content",
        ),
    ],
)
def test_what_cannot_be_read_is_named(asked, error, param):
    with pytest.raises(error) as raised:
        conversation(**asked)
    assert raised.value.param == param
    assert str(raised.value).startswith(param)
