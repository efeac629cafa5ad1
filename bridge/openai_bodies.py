"""What OpenAI's answers have in common: the counts of tokens, and their probabilities. Pure."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flashfeed.models.generation import GeneratedPiece

Json = dict[str, Any]


@dataclass(frozen=True)
class Head:
    """What every body and every chunk of one answer says of itself; `created` is in
    seconds since 1970."""

    id: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))


def new_id(prefix: str) -> str:
    """An id that no other answer has."""
    return f"{prefix}{uuid.uuid4().hex}"


def usage(ends: Sequence[GeneratedPiece], choices: int = 0) -> Json:
    """The counts of an answer, from the last pieces of its choices. So many `choices` (0:
    all) share a prompt, which counts once, as it was first read."""
    firsts = ends[:: choices or len(ends)]
    read = sum(end.prompt_tokens for end in firsts)
    written = sum(end.n_tokens for end in ends)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": sum(end.cached_tokens for end in firsts)},
    }


def tokens_of(pieces: Iterable[GeneratedPiece]) -> list[GeneratedPiece]:
    """The pieces that stand for a token: all but the last, which only ends the answer."""
    return [piece for piece in pieces if piece.finish_reason is None]


def chat_logprobs(pieces: Iterable[GeneratedPiece]) -> Json:
    """The tokens of a chat's answer with their log-probabilities."""
    content = [
        {
            **_token(piece.raw, piece.log_probability),
            "top_logprobs": [_token(one.raw, one.log_probability) for one in piece.top],
        }
        for piece in tokens_of(pieces)
    ]
    return {"content": content, "refusal": None}


def _token(raw: bytes, log_probability: float) -> Json:
    text = raw.decode("utf-8", "replace")
    return {"token": text, "logprob": log_probability, "bytes": list(raw)}
