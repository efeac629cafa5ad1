"""Conversations as the text that follows a session's data, in segments. Pure.

A session's context ends inside an open user turn, after the data lines. A chat goes on
from there, and is a branch after the data (DESIGN.md):

    ... data lines | tool guide | first user text | gap | assistant text | gap | ... | gap

The gaps are the model's own (`turn_gaps.py`), each the same for the same two roles. So a
conversation with more messages begins, to the last token, as the shorter one did before
its last gap, and only the difference is decoded; and no text from outside is ever given
to Jinja. Some templates begin an answer otherwise than they show it later (Qwen3's empty
thinking): then the last answer is decoded again in the next turn, and nothing before it.

System messages at the beginning open the first user text, after the tool guide, for the
session's own system text is decoded long before; later ones are turns of their own where
the template has that. RequestError names a message that has no place where it stands.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from flashfeed.models.chat import ChatMessage, Tool, ToolChoice
from flashfeed.models.errors import RequestError

from .chat import Segment
from .tool_guide import CALL_PREFIX, guide, must_call, offered, written_call
from .turn_gaps import After, Turn, Turns

_PARAGRAPH: Final = Segment("\n\n", True)


def render_turns(
    turns: Turns,
    messages: Sequence[ChatMessage],
    tools: Sequence[Tool] = (),
    tool_choice: ToolChoice = "auto",
) -> tuple[Segment, ...]:
    """A conversation as what follows the data, up to where the assistant speaks.

    To be tokenised one segment at a time, each with its own `special`. Where the last
    message is the assistant's, its text stands at the end, to be continued; where a tool
    must be called, CALL_PREFIX does. Raises RequestError for a message that has no place.
    """
    if not messages:
        raise RequestError("expected at least one message, got none")
    _expect_answered_calls(messages)
    segments = list(guide(offered(tools, tool_choice)))
    opening = _opening(messages)
    texts = [text for message in messages[:opening] if (text := _text(turns, message))]
    for place, text in enumerate(texts):
        segments += [_PARAGRAPH] if place else []
        segments.append(Segment(text, False))
    turn: Turn = "user"
    prefill = ""
    for place in range(opening, len(messages)):
        message = messages[place]
        following = _turn(message)
        if message.role == "assistant" and place == len(messages) - 1:
            prefill = message.content
            break
        segments.append(Segment(_expect_gap(turns, turn, following, place), True))
        segments += _body(turns, message)
        turn = following
    segments.append(Segment(_expect_gap(turns, turn, "reply", len(messages) - 1), True))
    segments.append(Segment(prefill, False))
    segments.append(Segment(CALL_PREFIX if must_call(tool_choice) else "", True))
    return tuple(segment for segment in segments if segment.text)


def render_plain(
    turns: Turns,
    messages: Sequence[ChatMessage],
    tools: Sequence[Tool] = (),
    tool_choice: ToolChoice = "auto",
) -> tuple[str, tuple[Segment, ...]]:
    """A chat without data: the system text that its session opens with, and the rest.

    The leading system messages are that text, "" without any.
    """
    system = list(itertools.takewhile(lambda message: _turn(message) == "system", messages))
    text = system_text(messages)
    # Emptied rather than taken away: an error names a message by its place.
    rest = [ChatMessage(role="system")] * len(system) + list(messages[len(system) :])
    return text, render_turns(turns, rest, tools, tool_choice)


def system_text(messages: Sequence[ChatMessage]) -> str:
    """The text of a conversation's leading system messages, "" without any."""
    system = itertools.takewhile(lambda message: _turn(message) == "system", messages)
    return "\n\n".join(message.content for message in system if message.content)


def _turn(message: ChatMessage) -> Turn:
    return "system" if message.role == "developer" else message.role


def _opening(messages: Sequence[ChatMessage]) -> int:
    """How many messages belong to the open user turn: leading system ones, and one user's."""
    leading = 0
    while leading < len(messages) and _turn(messages[leading]) == "system":
        leading += 1
    return leading + (leading < len(messages) and messages[leading].role == "user")


def _text(turns: Turns, message: ChatMessage) -> str:
    rewrite = turns.rewrites.get(_turn(message))
    return rewrite(message.content) if rewrite else message.content


def _body(turns: Turns, message: ChatMessage) -> list[Segment]:
    """A message's text, and the calls after it."""
    text = _text(turns, message)
    segments = [Segment(text, False)] if text else []
    for call in message.tool_calls:
        if segments and not segments[-1].text.endswith("\n"):
            segments.append(Segment("\n", True))
        segments += written_call(call)
    return segments


def _expect_gap(turns: Turns, turn: Turn, following: After, place: int) -> str:
    gap = turns.gaps.get((turn, following))
    if gap is None:
        allowed = sorted(
            after for before, after in turns.gaps if before == turn and after != "reply"
        )
        what = "an answer" if following == "reply" else f"a message of role {following!r}"
        raise RequestError(
            f"messages[{place}]: this model's chat template has no place for {what} after "
            f"one of role {turn!r}; expected one of {', '.join(allowed)}"
        )
    return gap


def _expect_answered_calls(messages: Sequence[ChatMessage]) -> None:
    """Tool messages answer calls of the assistant's message just before them."""
    calls: set[str] = set()
    for place, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in calls:
                raise RequestError(
                    f"messages[{place}]: expected the result of a call of the assistant message "
                    f"before it ({', '.join(sorted(calls)) or 'no calls'}), "
                    f"got tool_call_id {message.tool_call_id!r}"
                )
            calls.remove(message.tool_call_id)
        else:
            calls = {call.id for call in message.tool_calls}
    if messages[-1].tool_calls:
        raise RequestError(
            f"messages[{len(messages) - 1}]: expected the results of its tool calls after it"
        )
