"""Pipelines: named chains of prompts, over models and sessions.

A prompt's fields are filled as data, once: what is filled in is never read for fields
again, and is no format string.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from flashfeed.agents.service import SessionService
from flashfeed.models.chat import CONTENT_CHARS_MAX, ChatMessage, ChatRequest
from flashfeed.models.config import PipelineConfig
from flashfeed.models.errors import RequestError, SessionUnknown
from flashfeed.models.generation import GeneratedPiece, GenerateOptions

_FIELD: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class StepResult:
    """What a step answered; `step` counts from 1, `model_id` is the model or session."""

    step: int
    model_id: str
    text: str
    n_tokens: int
    prompt_tokens: int


async def run_pipeline(
    pipeline: PipelineConfig,
    given: Mapping[str, Any] | str,
    chats: SessionService,
    sessions: SessionService,
) -> AsyncGenerator[StepResult]:
    """The results of the steps, as they come. Raises RequestError for an input that a
    prompt cannot be filled with, and what the service raises."""
    fields = _fields(given)
    for number, step in enumerate(pipeline.steps, start=1):
        prompt = fill(step.prompt, fields)
        options = GenerateOptions(max_tokens=step.max_tokens, temperature=step.temperature)
        if step.session:
            answered_by = step.session
            pieces = sessions.generate(step.session, prompt, options)
        else:
            answered_by = step.model or chats.model_id
            pieces = chats.chat(one_question(prompt), options, step.model)
        text, last = await _read(pieces)
        yield StepResult(number, answered_by, text, last.n_tokens, last.prompt_tokens)
        fields["previous"] = text


def fill(template: str, fields: Mapping[str, str]) -> str:
    """The template with its fields. Raises RequestError, naming the one that is missing."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in fields:
            known = ", ".join(sorted(fields))
            raise RequestError(f"input: this pipeline needs {name!r}; got only {known}")
        return fields[name]

    text = _FIELD.sub(value, template)
    if len(text) > CONTENT_CHARS_MAX:
        raise RequestError(
            f"expected a filled prompt of at most {CONTENT_CHARS_MAX} characters, got {len(text)}"
        )
    return text


def one_question(prompt: str) -> ChatRequest:
    """A conversation of one message."""
    return ChatRequest(messages=(ChatMessage(role="user", content=prompt),))


def _fields(given: Mapping[str, Any] | str) -> dict[str, str]:
    if isinstance(given, str):
        return {"input": given}
    fields = {name: _text(value) for name, value in given.items() if name != "previous"}
    return {"input": _text(given), **fields}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


async def _read(pieces: AsyncGenerator[GeneratedPiece]) -> tuple[str, GeneratedPiece]:
    texts: list[str] = []
    last: GeneratedPiece | None = None
    async with aclosing(pieces):
        async for piece in pieces:
            texts.append(piece.text)
            last = piece
    assert last is not None, "a generation has a last piece"
    if last.finish_reason == "cancelled":
        raise SessionUnknown("the session ended while it answered")
    return "".join(texts), last
