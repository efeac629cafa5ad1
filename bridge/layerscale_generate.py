"""Generations in LayerScale's words: one body, or a stream of frames; and what is answered
without one.

A stream is {"text", "token", "pos"} frames, then one final frame with "done": true and
the whole result; nothing follows it: client 0.3 raises on a [DONE], 0.8 ends without one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from flashfeed.agents.service import SessionService
from flashfeed.models.errors import FlashfeedError
from flashfeed.models.generation import GeneratedPiece
from flashfeed.models.session import Answer
from flashfeed.models.views import SessionView

from .answers import WholeAnswer
from .errors import error_body
from .layerscale_answer_bodies import called_tools
from .layerscale_answer_shapes import Generated
from .layerscale_ask_requests import GenerateBody
from .sse import frame


async def fast_answer(
    service: SessionService, view: SessionView, body: GenerateBody
) -> Generated | None:
    """What a `fast_answer` gives without a generation, None where that needs one.

    First the fresh answer of the standing question of that text, if it did not abstain. Where
    the answers it may have are listed, that one must be among them; else they are scored over
    the session's data, and the best is taken if it is far enough ahead.
    """
    choices = body.fast_answer if isinstance(body.fast_answer, list) else []
    if not body.fast_answer or view.failed:
        return None
    cached = _cached(service, view, body.text, choices)
    if cached is not None or not choices:
        return cached
    answer = await service.answer(view.session_id, body.text, choices, body.gap_threshold)
    if answer is None:
        return None
    return {**_without_generation(view, answer), "speculative": True}


def _cached(
    service: SessionService, view: SessionView, prompt: str, choices: list[str]
) -> Generated | None:
    for query in service.queries(view.session_id):
        answer = query.answer
        if answer is None or answer.abstained or query.query.query.strip() != prompt.strip():
            continue
        if query.data_version == view.version and (not choices or answer.value in choices):
            hit = _without_generation(view, answer)
            return {**hit, "flash": True, "flash_id": query.query.id}
    return None


def _without_generation(view: SessionView, answer: Answer) -> Generated:
    return {
        "id": f"gen_{uuid4().hex}",
        "object": "session.generation",
        "session_id": view.session_id,
        "text": answer.value,
        "n_tokens": answer.n_tokens,
        "total_tokens": view.n_tokens,
        "pos_max": view.n_tokens - 1,
        "finish_reason": "stop",
        "data_version": view.version,
        "confidence": answer.confidence,
        "logit_gap": answer.logit_gap,
        "usage": {"prompt_tokens": 0, "completion_tokens": 0},
    }


def generated(service: SessionService, asked: SessionView, answer: WholeAnswer) -> Generated:
    """The result. Tokens and positions are the session's, of which the generation's branch
    is no part; `data_version` is what was asked, also where the text has moved it on."""
    try:
        view = service.get(asked.session_id)
    except FlashfeedError:  # deleted meanwhile: the answer is good all the same
        view = asked
    last = answer.last
    body: Generated = {
        "id": f"gen_{uuid4().hex}",
        "object": "session.generation",
        "session_id": asked.session_id,
        "text": answer.text,
        "n_tokens": last.n_tokens,
        "total_tokens": view.n_tokens,
        "pos_max": view.n_tokens - 1,
        "finish_reason": answer.finish_reason,
        "data_version": asked.version,
        "confidence": last.confidence,
        "usage": {
            "prompt_tokens": last.prompt_tokens,
            "completion_tokens": last.n_tokens,
            "total_tokens": last.prompt_tokens + last.n_tokens,
            "prompt_tokens_details": {"cached_tokens": last.cached_tokens},
        },
    }
    if answer.tool_calls:
        body["tool_calls"] = called_tools(answer.tool_calls)
    return body


async def generate_frames(
    service: SessionService, asked: SessionView, pieces: AsyncGenerator[GeneratedPiece]
) -> AsyncGenerator[bytes, None]:
    """The generation as it comes. Closing this cancels it.

    An error before the first frame is raised, for an ordinary HTTP error; later there
    is only a frame to say it in.
    """
    read: list[GeneratedPiece] = []
    started = False
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                read.append(piece)
                if piece.text or piece.tool_calls:
                    started = True
                    yield _token_frame(piece.text, piece.position, bool(piece.tool_calls))
    except FlashfeedError as error:
        if not started:
            raise
        yield frame(error_body(error.status, error.code, str(error)))
        return
    yield frame({"done": True, **generated(service, asked, WholeAnswer.of(read))})


async def answer_frames(result: Generated) -> AsyncGenerator[bytes, None]:
    """An answer without a generation as a stream: the text at once, then the final frame."""
    yield _token_frame(result["text"], result["pos_max"] + 1)
    yield frame({"done": True, **result})


def _token_frame(text: str, position: int, tool_call: bool = False) -> bytes:
    """A step's text; with `tool_call` a call ended here, which the final frame has."""
    data: dict[str, Any] = {"text": text, "token": text, "pos": position}
    return frame(data | {"tool_call": True} if tool_call else data)
