"""What a chat request may be, and what its errors say."""

from __future__ import annotations

import msgspec
import pytest

from flashfeed.models.chat import ChatRequest, NamedTool

HELLO = {"role": "user", "content": "Hello"}
CALL = {"id": "1", "name": "now", "arguments": "{}"}


def request(**fields: object) -> ChatRequest:
    return msgspec.convert({"messages": [HELLO], **fields}, ChatRequest)


def test_a_request_with_tools() -> None:
    read = request(
        messages=[
            HELLO,
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "content": "noon", "tool_call_id": "1"},
        ],
        tools=[{"name": "now"}],
        tool_choice={"name": "now"},
    )
    assert read.messages[1].tool_calls[0].arguments == "{}"
    assert read.tool_choice == NamedTool(name="now")
    assert request().tool_choice == "auto"


def nested(depth: int) -> dict[str, object]:
    return {"items": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": []}, "length >= 1"),
        ({"messages": [{"role": "robot"}]}, "robot"),
        ({"messages": [{"role": "user", "tool_calls": [CALL]}]}, "assistant messages only"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool_call_id"),
        ({"messages": [{**HELLO, "tool_call_id": "1"}]}, "tool_call_id"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "arguments": "{"}]}]},
            "arguments that are JSON",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "arguments": "[]"}]}]},
            "a JSON object",
        ),
        ({"tools": [{"name": "two words"}]}, "regex"),
        ({"tools": [{"name": "a"}, {"name": "a"}]}, "different names"),
        ({"tools": [{"name": "a", "parameters": {"type": "array"}}]}, "type object"),
        ({"tools": [{"name": "a", "parameters": {"title": "x" * 60_000}}]}, "at most 50000 bytes"),
        ({"tools": [{"name": "a", "parameters": nested(40)}]}, "at most 32 deep"),
        ({"tools": [{"name": f"t{n}"} for n in range(65)]}, "length <= 64"),
        ({"tool_choice": "required"}, "got none"),
        ({"tools": [{"name": "a"}], "tool_choice": {"name": "b"}}, "'b'"),
        ({"tool_choice": "sometimes"}, "sometimes"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        request(**fields)
