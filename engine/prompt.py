"""What a generation is asked, made ready: tokens, and what its answer must look like.

Everything here may be done in the caller's thread; the engine's thread gets the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from flashfeed.models.chat import ChatRequest, Tool, ToolChoice
from flashfeed.models.errors import RequestError
from flashfeed.models.generation import Continuation, GenerateOptions, PlainPrompt

from .chat import Segment
from .chat_turns import render_plain, render_turns
from .grammar import compile_options
from .grammar_rules import Program
from .model import Model
from .tool_guide import call_schema, must_call, offered


@dataclass(frozen=True)
class Prompt:
    """What is put after the data, and how the answer is written.

    `keep`: it is a chat, and its tokens stay for the next turn. The first `settled` of them
    are what the next turn is sure to begin with; behind these a template may write the same
    conversation otherwise once it goes on. `program` is the grammar
    that the answer follows, None for free text. `key` is a text of this answer alone.
    """

    tokens: tuple[int, ...]
    options: GenerateOptions
    keep: bool = False
    settled: int = 0
    program: Program | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    key: str = ""


def make_prompt(
    model: Model, asked: str | ChatRequest, options: GenerateOptions, key: str
) -> Prompt:
    """A text or a conversation as a prompt. Raises RequestError for what cannot be asked."""
    if isinstance(asked, str):
        tokens = model.tokens(asked) + model.tail
        return Prompt(tokens, options, program=_program(model, options), key=key)
    segments = render_turns(
        model.turns, asked.messages, offered(asked.tools, asked.tool_choice), asked.tool_choice
    )
    return _chat_prompt(model, asked, options, key, segments)


def make_plain_prompt(
    model: Model, asked: PlainPrompt, options: GenerateOptions, key: str
) -> Prompt:
    """What follows the system text of a plain chat, or a whole text to go on with. Raises
    RequestError for what cannot be asked."""
    if isinstance(asked, Continuation):
        tokens = model.tokens(asked.text)
        if not tokens:
            raise RequestError("expected a prompt of at least one token, got an empty one")
        return Prompt(tokens, options, keep=True, program=_program(model, options), key=key)
    _, segments = render_plain(
        model.turns, asked.messages, offered(asked.tools, asked.tool_choice), asked.tool_choice
    )
    return _chat_prompt(model, asked, options, key, segments)


def _chat_prompt(
    model: Model,
    asked: ChatRequest,
    options: GenerateOptions,
    key: str,
    segments: tuple[Segment, ...],
) -> Prompt:
    tools = offered(asked.tools, asked.tool_choice)
    if must_call(asked.tool_choice):
        if options.grammar or options.json_schema is not None:
            raise RequestError(
                "expected a tool_choice that may answer freely beside a grammar or a "
                f"json_schema, got {asked.tool_choice!r}"
            )
        schema = call_schema(tools, asked.tool_choice)
        options = msgspec.structs.replace(options, json_schema=schema)
    tokens = model.segment_tokens(segments)
    return Prompt(
        tokens,
        options,
        keep=True,
        settled=len(tokens) - len(model.segment_tokens(segments[-1:])),
        program=_program(model, options),
        tools=tools,
        tool_choice=asked.tool_choice,
        key=key,
    )


def _program(model: Model, options: GenerateOptions) -> Program | None:
    program = compile_options(options)
    if program is not None:
        _ = model.vocabulary  # made once, in a third of a second: not in the engine's thread
    return program
