"""Generations in LayerScale 0.3's words: one body, or a stream of frames.

A stream is {"text", "token", "pos"} frames, then one final frame with "done": true and
the whole result; nothing follows it, the client raises on a [DONE].
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from flashfeed.agents.service import SessionService
from flashfeed.models.errors import FlashfeedError
from flashfeed.models.generation import GeneratedPiece, GenerateOptions
from flashfeed.models.views import SessionView

from .errors import error_body
from .layerscale_v03_shapes import Generated
from .sse import frame


def fresh_answer(service: SessionService, session_id: str, prompt: str) -> Generated | None:
    """The answer of the standing question with that text, if there is one of the
    session's present data version."""
    view = service.get(session_id)
    if view.failed:
        return None
    for query in service.queries(session_id):
        answer = query.answer
        if answer is None or query.query.query.strip() != prompt.strip():
            continue
        if query.data_version == view.version:
            return {
                "text": answer.value,
                "n_tokens": answer.n_tokens,
                "total_tokens": view.n_tokens,
                "pos_max": view.n_tokens - 1,
                "finish_reason": "stop",
                "data_version": query.data_version,
                "confidence": answer.confidence,
                "flash": True,
                "flash_id": query.query.id,
                "logit_gap": answer.logit_gap,
            }
    return None


async def generate(
    service: SessionService, session_id: str, prompt: str, options: GenerateOptions
) -> Generated:
    """The whole generation. Cancelling this cancels it."""
    view = service.get(session_id)
    texts: list[str] = []
    last: GeneratedPiece | None = None
    async with aclosing(_pieces(service, session_id, prompt, options)) as pieces:
        async for piece in pieces:
            texts.append(piece.text)
            last = piece
    return _result(service, view, "".join(texts), last)


async def generate_frames(
    service: SessionService, session_id: str, prompt: str, options: GenerateOptions
) -> AsyncGenerator[bytes, None]:
    """The generation as it comes. Closing this cancels it.

    An error before the first frame is raised, for an ordinary HTTP error; later there
    is only a frame to say it in.
    """
    view = service.get(session_id)
    texts: list[str] = []
    last: GeneratedPiece | None = None
    try:
        async with aclosing(_pieces(service, session_id, prompt, options)) as pieces:
            async for piece in pieces:
                last = piece
                if piece.text:
                    texts.append(piece.text)
                    yield _token_frame(piece.text, piece.position)
    except FlashfeedError as error:
        if not texts:
            raise
        yield frame(error_body(error.status, error.code, str(error)))
        return
    yield frame({"done": True, **_result(service, view, "".join(texts), last)})


async def answer_frames(result: Generated) -> AsyncGenerator[bytes, None]:
    """A fresh answer as a stream: the text at once, then the final frame."""
    yield _token_frame(result["text"], result["pos_max"] + 1)
    yield frame({"done": True, **result})


def _pieces(
    service: SessionService, session_id: str, prompt: str, options: GenerateOptions
) -> AsyncGenerator[GeneratedPiece, None]:
    return service.generate(session_id, prompt, options)


def _token_frame(text: str, position: int) -> bytes:
    return frame({"text": text, "token": text, "pos": position})


def _result(
    service: SessionService, asked: SessionView, text: str, last: GeneratedPiece | None
) -> Generated:
    """The result. Tokens and positions are the session's, of which the generation's fork
    is no part; `data_version` is what was asked, also where the text has moved it on."""
    try:
        view = service.get(asked.session_id)
    except FlashfeedError:  # deleted meanwhile: the answer is good all the same
        view = asked
    return {
        "text": text,
        "n_tokens": last.n_tokens if last else 0,
        "total_tokens": view.n_tokens,
        "pos_max": view.n_tokens - 1,
        "finish_reason": (last and last.finish_reason) or "stop",
        "data_version": asked.version,
        "confidence": last.confidence if last else 0.0,
    }
