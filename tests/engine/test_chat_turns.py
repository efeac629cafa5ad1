"""Conversations as segments: the template's own words, stable as they grow, text kept text."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import llama_cpp.llama_cpp as C
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashfeed.engine.chat import ChatTemplate, Segment, chat_pieces
from flashfeed.engine.chat_turns import render_plain, render_turns
from flashfeed.engine.model import Model
from flashfeed.engine.tool_guide import CALL_PREFIX
from flashfeed.engine.turn_gaps import Turns, find_turns
from flashfeed.models.chat import ChatMessage, NamedTool, Tool, ToolCall
from flashfeed.models.errors import RequestError

FOLDER = Path(__file__).parent / "templates"
FAMILIES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
GEMMA = "google-gemma-2-2b-it"
LLAMA = "meta-llama-Llama-3.2-3B-Instruct"
QWEN = "Qwen-Qwen2.5-7B-Instruct"
QWEN3 = "Qwen-Qwen3-0.6B"
TOOLS = (
    Tool(
        name="price",
        description="The last price of a symbol.",
        parameters={"type": "object", "properties": {"symbol": {"type": "string"}}},
    ),
    Tool(name="now"),
)
CALLS = (
    ToolCall(id="1", name="price", arguments='{"symbol":  "AAPL"}'),
    ToolCall(id="2", name="now", arguments="{}"),
)


@cache
def template(family: str) -> ChatTemplate:
    return ChatTemplate((FOLDER / f"{family}.jinja").read_text(), "<bos>", "<eos>")


@cache
def turns_of(family: str) -> Turns:
    return find_turns(template(family))


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


def assistant(text: str, calls: tuple[ToolCall, ...] = ()) -> ChatMessage:
    return ChatMessage(role="assistant", content=text, tool_calls=calls)


def system(text: str) -> ChatMessage:
    return ChatMessage(role="system", content=text)


def result(text: str, call: str) -> ChatMessage:
    return ChatMessage(role="tool", content=text, tool_call_id=call)


def joined(segments: tuple[Segment, ...]) -> str:
    return "".join(segment.text for segment in segments)


texts = st.text(max_size=30) | st.sampled_from(
    ["<|im_end|>\n", "<|im_start|>system\n", "[/INST]", "</tool_response>", " trimmed \n", ""]
)


@st.composite
def rounds(draw: st.DrawFn) -> list[ChatMessage]:
    """A user's text and what follows it up to an answer, tools included."""
    messages = [user(draw(texts))]
    calls = draw(st.integers(0, 2))
    if calls:
        messages.append(assistant(draw(texts), CALLS[:calls]))
        messages += [result(draw(texts), call.id) for call in CALLS[:calls]]
    return [*messages, assistant(draw(texts))]


conversations = st.lists(rounds(), min_size=1, max_size=4)


@pytest.mark.parametrize("family", FAMILIES)
@given(n=st.integers(1, 5), words=st.lists(st.from_regex(r"\A\w{1,8}\Z"), min_size=10, max_size=10))
def test_an_ordinary_conversation_is_what_the_template_writes(
    family: str, n: int, words: list[str]
) -> None:
    roles = ["user", "assistant"] * n
    conversation = [(role, word) for role, word in zip(roles[:-1], words, strict=False)]
    messages = [user(text) if role == "user" else assistant(text) for role, text in conversation]
    whole = template(family).render([{"role": r, "content": text} for r, text in conversation])
    open_turn = chat_pieces(template(family)).bare
    assert open_turn + joined(render_turns(turns_of(family), messages)) == whole


@pytest.mark.parametrize("family", FAMILIES)
@given(conversation=conversations, n=st.integers(1, 4))
def test_a_longer_conversation_begins_as_the_shorter_one(
    family: str, conversation: list[list[ChatMessage]], n: int
) -> None:
    """So its tokens do, segments being tokenised one by one."""
    turns = turns_of(family)
    messages = [message for one in conversation for message in one]
    whole = render_turns(turns, [*messages, user("x")], TOOLS)
    for end in range(1, len(messages) + 1):
        shown = messages[:end]
        if shown[-1].tool_calls or shown[-1].role == "assistant":
            continue
        closed = render_turns(turns, shown, TOOLS)[:-1]
        assert whole[: len(closed)] == closed


@pytest.mark.model
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conversation=conversations)
def test_the_real_model_s_tokens_grow_only_at_the_end(
    model: Model, conversation: list[list[ChatMessage]]
) -> None:
    messages: list[ChatMessage] = []
    held: tuple[int, ...] = ()
    for one in conversation:
        *asked, answer = [*messages, *one]
        prompt = model.segment_tokens(render_turns(model.turns, asked, TOOLS))
        assert prompt[: len(held)] == held
        # Here an answer begins as it is shown later: what was generated stays too.
        answered = (Segment(answer.content, False),)
        held = prompt + model.segment_tokens(answered)
        messages = [*asked, answer]


@pytest.mark.model
def test_the_real_model_s_segments_are_the_tokens_of_the_whole(model: Model) -> None:
    messages = [user("How is AAPL?"), assistant("It rises."), user("Why? Say it in one line.")]
    segments = render_turns(model.turns, messages)
    assert model.segment_tokens(segments) == model.template_tokens(joined(segments))
    assert joined(segments).endswith("<|im_start|>assistant\n")


@pytest.mark.model
def test_what_looks_like_a_special_token_stays_text(model: Model) -> None:
    vocabulary = C.llama_model_get_vocab(model.handle)
    controls = {t for t in range(model.n_vocab) if C.llama_vocab_is_control(vocabulary, t)}
    hostile = "".join(model.text((token,)) for token in controls)
    assert "<|im_end|>" in hostile
    calls = (ToolCall(id="1", name="f", arguments=f'{{"a": "{hostile}"}}'),)
    tool = Tool(name="f", description=hostile, parameters={"title": hostile})
    messages = [
        system(hostile),
        user(hostile),
        assistant(hostile, calls),
        result(hostile, "1"),
        assistant(hostile),
        user(hostile),
        assistant(hostile),
    ]
    segments = render_turns(model.turns, messages, (tool,))
    assert joined(segments).count("<|im_end|>") > len(messages)
    for segment in segments:
        if hostile in segment.text:
            assert not segment.special
            assert not controls & set(model.segment_tokens((segment,)))
    turns_begun = model.segment_tokens(segments).count(model.template_tokens("<|im_start|>")[0])
    assert turns_begun == len(messages) - 2  # system and first user text open no turn


@pytest.mark.parametrize("family", FAMILIES)
def test_every_text_appears_once(family: str) -> None:
    messages = [
        system("WORDa"),
        user("WORDb"),
        assistant("WORDc", CALLS),
        result("WORDd", "1"),
        result("WORDe", "2"),
        assistant("WORDf"),
        user("WORDg"),
        assistant("WORDh"),
    ]
    text = joined(render_turns(turns_of(family), messages, TOOLS))
    order = [text.index(f"WORD{letter}") for letter in "abcdefgh"]
    assert order == sorted(order)
    assert text.count("WORD") == 8
    # Calls as they were written, spaces included.
    assert '{"name": "price", "arguments": {"symbol":  "AAPL"}}' in text


def test_the_first_user_text_joins_the_open_turn_after_the_system_texts() -> None:
    developer = ChatMessage(role="developer", content="Be kind.")
    segments = render_turns(turns_of(QWEN), [system("Be brief."), developer, user("Hello")])
    assert joined(segments) == ("Be brief.\n\nBe kind.\n\nHello<|im_end|>\n<|im_start|>assistant\n")
    assert [segment.special for segment in segments] == [False, True, False, True, False, True]


def test_a_later_system_message_is_a_turn_of_its_own_where_that_can_be() -> None:
    messages = [user("a"), assistant("b"), system("From now on, shout."), user("c")]
    text = joined(render_turns(turns_of(LLAMA), messages))
    assert "<|start_header_id|>system<|end_header_id|>\n\nFrom now on, shout.<|eot_id|>" in text
    with pytest.raises(RequestError, match=r"messages\[2\].*'system'.*'assistant'"):
        render_turns(turns_of(GEMMA), messages)


def test_a_message_without_a_place_is_named() -> None:
    with pytest.raises(RequestError, match=r"messages\[1\].*role 'user' after.*'user'"):
        render_turns(turns_of(GEMMA), [user("a"), user("b")])
    with pytest.raises(RequestError, match=r"messages\[2\]"):
        render_plain(turns_of(GEMMA), [system("s"), user("a"), user("b")])
    assert joined(render_turns(turns_of(QWEN), [user("a"), user("b")])).startswith(
        "a<|im_end|>\n<|im_start|>user\nb"
    )
    with pytest.raises(RequestError, match="at least one message"):
        render_turns(turns_of(QWEN), [])


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([user("a"), result("r", "1")], r"messages\[1\].*no calls"),
        ([user("a"), assistant("", CALLS), result("r", "9")], r"messages\[2\].*1, 2.*'9'"),
        ([user("a"), assistant("", CALLS), result("r", "1"), result("r", "1")], r"messages\[3\]"),
        ([user("a"), assistant("", CALLS)], r"messages\[1\].*results"),
    ],
)
def test_results_belong_to_the_calls_before_them(messages: list[ChatMessage], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        render_turns(turns_of(QWEN), messages, TOOLS)


def test_calls_and_results_in_hermes_form() -> None:
    messages = [user("a"), assistant("Wait.", CALLS), result("7", "1"), result("8", "2")]
    text = joined(render_turns(turns_of(QWEN), messages))
    assert text == (
        "a<|im_end|>\n<|im_start|>assistant\nWait.\n"
        '<tool_call>\n{"name": "price", "arguments": {"symbol":  "AAPL"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n7\n</tool_response>\n"
        "<tool_response>\n8\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def test_an_assistant_s_last_text_is_continued() -> None:
    segments = render_turns(turns_of(QWEN3), [user("a"), assistant("The answer is ")])
    assert joined(segments).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\nThe answer is ")
    assert segments[-1] == Segment("The answer is ", False)


def test_an_assistant_s_first_text_closes_the_data_s_turn() -> None:
    segments = render_turns(turns_of(QWEN), [assistant("Hello."), user("Hi")])
    assert joined(segments).startswith("<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>")


def test_the_guide_comes_first_and_is_the_same_for_all_chats() -> None:
    one = render_turns(turns_of(QWEN), [system("s"), user("a")], TOOLS)
    other = render_turns(turns_of(QWEN), [user("b")], TOOLS, "required")
    assert one[:3] == other[:3]
    assert [segment.special for segment in one[:3]] == [True, False, True]
    assert '"name": "price"' in one[1].text
    assert "<tool_call>" in one[2].text
    assert one[3].text == "s"


def test_the_tool_choice() -> None:
    asked = [user("a")]
    plain = render_turns(turns_of(QWEN), asked)
    assert render_turns(turns_of(QWEN), asked, TOOLS, "none") == plain
    auto = render_turns(turns_of(QWEN), asked, TOOLS)
    for choice in ("required", NamedTool(name="now")):
        forced = render_turns(turns_of(QWEN), asked, TOOLS, choice)  # type: ignore[arg-type]
        assert forced == (*auto, Segment(CALL_PREFIX, True))
    with pytest.raises(RequestError, match="'later'"):
        render_turns(turns_of(QWEN), asked, TOOLS, NamedTool(name="later"))
    with pytest.raises(RequestError, match="expected tools"):
        render_turns(turns_of(QWEN), asked, (), "required")


def test_without_data_the_system_messages_are_the_session_s_own() -> None:
    text, segments = render_plain(turns_of(QWEN), [system("s"), system("t"), user("a")], TOOLS)
    assert text == "s\n\nt"
    assert segments == render_turns(turns_of(QWEN), [user("a")], TOOLS)
    assert render_plain(turns_of(QWEN), [user("a")])[0] == ""
    assert render_plain(turns_of(QWEN), [system("s")]) == (
        "s",
        (Segment("<|im_end|>\n<|im_start|>assistant\n", True),),
    )
