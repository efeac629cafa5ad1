"""Anthropic's dialect where a real worker cannot be brought to it on demand."""

from __future__ import annotations

import asyncio
import json

import anthropic
import httpx
import pytest

from flashfeed.bridge import anthropic_shapes as shapes
from flashfeed.models.chat import ToolCall
from flashfeed.models.errors import FlashfeedError
from flashfeed.models.generation import GeneratedPiece

BODY = {"max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]}
CALLS = (ToolCall("call_1", "price", '{"symbol": "AAPL"}'), ToolCall("call_2", "price", "{}"))


def piece(text: str, n: int, **more: object) -> GeneratedPiece:
    counts = {"prompt_tokens": 30, "cached_tokens": 20}
    return GeneratedPiece(text, 10 + n, n, **(counts | more))


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (piece("", 8, finish_reason="stop"), "end_turn"),
        (piece("", 7, finish_reason="stop", stop="##"), "stop_sequence"),
        (piece("", 8, finish_reason="length"), "max_tokens"),
        (piece("", 7, finish_reason="length"), "model_context_window_exceeded"),
        (piece("", 7, finish_reason="tool_calls", tool_calls=CALLS), "tool_use"),
        (piece("", 7, finish_reason="tool_calls", stop="##"), "tool_use"),
    ],
)
def test_why_an_answer_ended(last, reason):
    assert shapes.stop_reason(last, 8) == reason


def test_the_events_of_an_answer_give_the_answer():
    pieces = [
        piece("", 1),
        piece("I ", 2),
        piece("look.", 3, tool_calls=CALLS[:1]),
        piece("", 4, tool_calls=CALLS[1:]),
        piece("So.", 5),
        piece("", 5, finish_reason="tool_calls"),
    ]
    writer = shapes.MessageEvents("msg_1", "m", 8)
    events = [writer.start(pieces[0])]
    events += [event for one in pieces for event in writer.add(one)]
    events += writer.end(pieces[-1])
    blocks: list[dict[str, object]] = []
    for event in events:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            delta = event["delta"]
            if delta["type"] == "text_delta":
                blocks[-1]["text"] += delta["text"]
            else:
                blocks[-1]["input"] = json.loads(delta["partial_json"])
    whole = shapes.message("msg_1", "m", pieces, 8)
    assert blocks == whole["content"]
    assert [block["type"] for block in blocks] == ["text", "tool_use", "tool_use", "text"]
    assert events[-2]["usage"] == whole["usage"] == shapes.usage(pieces[-1])
    assert whole["usage"] == {
        "input_tokens": 10,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 20,
        "output_tokens": 5,
    }


async def test_an_error_before_the_first_event_is_an_http_error(bridge, memory):
    memory.fails_after = 1
    async with anthropic.AsyncAnthropic(base_url=bridge, api_key="k", max_retries=0) as client:
        with pytest.raises(anthropic.InternalServerError) as raised:
            await client.messages.create(**BODY, model="memory", stream=True)
    assert raised.value.type == "api_error"


async def test_an_error_half_way_is_an_error_event(bridge, memory):
    memory.fails_after = 3
    async with anthropic.AsyncAnthropic(base_url=bridge, api_key="k", max_retries=0) as client:
        stream = await client.messages.create(**BODY, model="memory", stream=True)
        seen = []
        with pytest.raises(anthropic.APIStatusError, match="the engine is gone"):
            async for event in stream:
                seen.append(event.type)
    assert seen == ["message_start", "content_block_start", *["content_block_delta"] * 2]
    assert memory.generating == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_ends_the_generation(bridge, memory, stream):
    memory.piece_gate = asyncio.Event()
    async with httpx.AsyncClient(base_url=bridge) as http:
        asking = asyncio.create_task(http.post("/v1/messages", json=BODY | {"stream": stream}))
        async with asyncio.timeout(5):
            while not memory.generating:
                await asyncio.sleep(0.005)
            asking.cancel()
            while memory.generating:
                await asyncio.sleep(0.005)


async def test_one_call_where_no_more_are_wanted(bridge, memory, monkeypatch):
    async def chat(asked, options, model=""):  # type: ignore[no-untyped-def]
        memory.generating += 1
        try:
            yield piece("I look.", 1)
            yield piece("", 2, tool_calls=CALLS)
            yield piece("never read", 3, finish_reason="tool_calls")
        finally:
            memory.generating -= 1

    monkeypatch.setattr(memory, "chat", chat)
    tools = [{"name": "price", "input_schema": {"type": "object"}}]
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    async with anthropic.AsyncAnthropic(base_url=bridge, api_key="k") as client:
        asked = BODY | {"model": "memory", "tools": tools}
        both = await client.messages.create(**asked)
        one = await client.messages.create(**asked, tool_choice=choice)
        async with client.messages.stream(**asked, tool_choice=choice) as stream:
            streamed = await stream.get_final_message()
    assert [block.type for block in both.content] == ["text", "tool_use", "tool_use", "text"]
    assert [block.type for block in one.content] == ["text", "tool_use"]
    assert one.stop_reason == "tool_use"
    assert one.usage.output_tokens == 2
    assert [block.to_dict() for block in streamed.content] == [
        block.to_dict() for block in one.content
    ]
    assert memory.generating == 0


async def test_a_session_that_ends_meanwhile_is_said(bridge, memory, monkeypatch):
    async def chat(asked, options, model=""):  # type: ignore[no-untyped-def]
        yield piece("I ", 1)
        yield piece("", 1, finish_reason="cancelled")

    monkeypatch.setattr(memory, "chat", chat)
    async with anthropic.AsyncAnthropic(base_url=bridge, api_key="k", max_retries=0) as client:
        with pytest.raises(anthropic.NotFoundError, match="ended"):
            await client.messages.create(**BODY, model="memory")


async def test_what_the_service_raises_is_passed_on(bridge, memory, monkeypatch):
    class Teapot(FlashfeedError):
        status = 418
        code = "teapot"

    async def chat(asked, options, model=""):  # type: ignore[no-untyped-def]
        raise Teapot("short and stout")
        yield

    monkeypatch.setattr(memory, "chat", chat)
    async with httpx.AsyncClient(base_url=bridge) as http:
        for stream in (True, False):
            response = await http.post("/v1/messages", json=BODY | {"stream": stream})
            assert (response.status_code, response.json()["error"]["code"]) == (418, "teapot")
