"""Chats without a session's data: what they read, what stays, who shares what."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from flashfeed.engine import Engine
from flashfeed.models.chat import ChatMessage, ChatRequest
from flashfeed.models.errors import ContextFull, ModelUnknown, Overloaded, RequestError
from flashfeed.models.generation import Continuation, GeneratedPiece, GenerateOptions

pytestmark = pytest.mark.model

SYSTEM = ChatMessage(role="system", content="You are terse.")
QUESTION = ChatMessage(role="user", content="What is the capital of France?")
OPTIONS = GenerateOptions(max_tokens=8)


async def ask(engine: Engine, asked: ChatRequest | Continuation, **of: str) -> list[GeneratedPiece]:
    return [piece async for piece in engine.chat(asked, OPTIONS, **of)]


def text(pieces: list[GeneratedPiece]) -> str:
    return "".join(piece.text for piece in pieces)


async def test_a_chat_reads_what_the_models_own_template_writes(engine: Engine) -> None:
    request = ChatRequest(messages=(SYSTEM, QUESTION))
    answer = await ask(engine, request)
    model = engine._open_sessions().model
    written = model._template.render(
        [{"role": one.role, "content": one.content} for one in request.messages]
    )
    expected = model.first_tokens + model.template_tokens(written)
    assert answer[-1].prompt_tokens == len(expected) == await engine.count_prompt(request)
    # The same tokens as a text to go on with give the same answer.
    assert "Paris" in text(answer)


async def test_a_next_turn_decodes_only_what_is_new(engine: Engine) -> None:
    first = await ask(engine, ChatRequest(messages=(SYSTEM, QUESTION)), tenant="turns")
    said = ChatMessage(role="assistant", content=text(first))
    more = ChatMessage(role="user", content="And of Spain?")
    second = await ask(engine, ChatRequest(messages=(SYSTEM, QUESTION, said, more)), tenant="turns")
    assert second[-1].cached_tokens >= first[-1].prompt_tokens
    fresh = await ask(
        engine, ChatRequest(messages=(SYSTEM, QUESTION, said, more)), tenant="another"
    )
    assert text(fresh) == text(second)
    assert fresh[-1].cached_tokens < first[-1].prompt_tokens


async def test_every_piece_says_what_was_read_and_the_last_one_what_ended_it(
    engine: Engine,
) -> None:
    request = ChatRequest(messages=(SYSTEM, QUESTION))
    options = GenerateOptions(max_tokens=12, stop=("nothing", "Par"))
    pieces = [piece async for piece in engine.chat(request, options)]
    assert {piece.prompt_tokens for piece in pieces} == {await engine.count_prompt(request)}
    assert len({piece.cached_tokens for piece in pieces}) == 1
    assert [piece.stop for piece in pieces] == [""] * (len(pieces) - 1) + ["Par"]
    assert "Par" not in text(pieces)


async def test_a_text_is_gone_on_with_as_it_stands(engine: Engine) -> None:
    start = Continuation("One, two, three, four,")
    answer = await ask(engine, start)
    assert answer[-1].prompt_tokens == await engine.count_prompt(start)
    assert answer[-1].prompt_tokens == engine.count_tokens(start.text)
    assert "five" in text(answer)
    with pytest.raises(RequestError, match="at least one token"):
        await ask(engine, Continuation(""))


async def test_no_tenant_finds_another_ones_tokens(engine: Engine) -> None:
    secret = ChatRequest(messages=(ChatMessage(role="user", content="The code is 4711. " * 4),))
    await ask(engine, secret, tenant="one")
    again = await ask(engine, secret, tenant="one")
    other = await ask(engine, secret, tenant="two")
    assert again[-1].cached_tokens > other[-1].cached_tokens


async def test_many_chats_at_once_share_the_places(engine: Engine) -> None:
    asked = [
        ChatRequest(messages=(ChatMessage(role="user", content=f"Say {number}."),))
        for number in range(12)
    ]
    answers = await asyncio.gather(*(ask(engine, one) for one in asked))
    assert all(answer[-1].finish_reason in ("stop", "length") for answer in answers)
    plain = [one for one in engine._open_sessions() if one.plain]
    assert len(plain) <= engine.settings.chats_max


async def test_a_chat_that_nobody_reads_gives_its_place_back(engine: Engine) -> None:
    many = [Continuation(f"Number {number}: ") for number in range(3 * engine.settings.chats_max)]
    for one in many:
        async with aclosing(engine.chat(one, GenerateOptions(max_tokens=500))) as pieces:
            await anext(pieces)
    assert await ask(engine, many[0])


async def test_no_place_free_says_so(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashfeed.engine.plain_chats._WAIT_S", 0.05)
    long = GenerateOptions(max_tokens=2000, ignore_eos=True)
    running = [
        engine.chat(Continuation(f"Tale {number}: "), long)
        for number in range(engine.settings.chats_max)
    ]
    try:
        for pieces in running:
            await anext(pieces)
        with pytest.raises(Overloaded, match="chats without a session"):
            await ask(engine, Continuation("One more"))
    finally:
        for pieces in running:
            await pieces.aclose()


async def test_a_chat_without_room_names_no_session(engine: Engine) -> None:
    """Places are counted over all tenants; a number of them is nobody's to read."""
    long = "one two three four " * 200
    system = ChatMessage(role="system", content=long)
    for asked in (Continuation(long), ChatRequest(messages=(system, QUESTION))):
        with pytest.raises(ContextFull, match=r"^this chat h") as refused:
            await ask(engine, asked)
        assert "session" not in str(refused.value)
    assert await ask(engine, Continuation("One, two,"))  # the place is free again


async def test_an_unknown_model_opens_no_place(engine: Engine) -> None:
    before = len(engine._open_sessions())
    with pytest.raises(ModelUnknown):
        await ask(engine, Continuation("Hello"), model="nobody's")
    assert len(engine._open_sessions()) <= before
