"""OpenAI's completions, the older way: texts that a model goes on with as they stand, or
questions to a live session. The choices of each prompt come one after the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from flashfeed.models.generation import Continuation, GeneratedPiece

from .answers import whole_answer
from .caller import Sessions
from .openai_asker import Asker, SessionHeader, asker, options_of
from .openai_bodies import Head, Json, new_id, usage
from .openai_completions_bodies import LegacyLogprobs, body, choice
from .openai_completions_requests import CompletionBody
from .openai_stream import openai_stream
from .sse import frame

router = APIRouter(prefix="/v1", tags=["OpenAI"])


@router.post(
    "/completions",
    response_model=None,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def create_completion(
    asked: CompletionBody, request: Request, sessions: Sessions, session: SessionHeader = ""
) -> dict[str, Any] | Response:
    """Go on with a text, or with several."""
    who = asker(sessions, asked.session_id, session, asked.model)
    head = Head(new_id("cmpl-"), who.model)
    prompts, options = asked.prompts(), asked.options()
    if asked.stream:
        return openai_stream(request, _frames(asked, who, head, prompts))
    choices: list[Json] = []
    ends = []
    for prompt in prompts:
        for place in range(asked.n):
            pieces = who.pieces(prompt, options_of(options, place))
            answer = await whole_answer(request, pieces)
            text = prompt.text + answer.text if asked.echo else answer.text
            logprobs = None if asked.logprobs is None else LegacyLogprobs().of(answer.pieces)
            choices.append(choice(len(choices), text, logprobs, answer.finish_reason))
            ends.append(answer.last)
    return body(head, choices) | {"usage": usage(ends, asked.n)}


async def _frames(
    asked: CompletionBody, who: Asker, head: Head, prompts: list[Continuation]
) -> AsyncGenerator[bytes]:
    options = asked.options()
    counts: Json = {"usage": None} if asked.stream_options.include_usage else {}
    ends: list[GeneratedPiece] = []
    for number in range(len(prompts) * asked.n):
        prompt = prompts[number // asked.n]
        text = prompt.text if asked.echo else ""
        legacy = None if asked.logprobs is None else LegacyLogprobs()
        answer = who.pieces(prompt, options_of(options, number % asked.n))
        async with aclosing(answer) as pieces:
            async for piece in pieces:
                text += piece.text
                ended = piece.finish_reason
                if text or ended or legacy:
                    logprobs = legacy.of([piece]) if legacy and not ended else None
                    yield frame(body(head, [choice(number, text, logprobs, ended)]) | counts)
                text = ""
        ends.append(piece)
    if counts:
        yield frame(body(head, []) | {"usage": usage(ends, asked.n)})
