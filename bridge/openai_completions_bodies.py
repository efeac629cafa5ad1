"""Completions (OpenAI's older way) in OpenAI's words, whole and in chunks. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from encodings import utf_8

from flashfeed.models.generation import Finish, GeneratedPiece

from .openai_bodies import Head, Json, tokens_of


def body(head: Head, choices: list[Json]) -> Json:
    """A whole completion or a chunk of one: they look alike."""
    return {
        "id": head.id,
        "object": "text_completion",
        "created": head.created,
        "model": head.model,
        "choices": choices,
    }


def choice(index: int, text: str, logprobs: Json | None, finish_reason: Finish | None) -> Json:
    """One choice, or what a chunk adds to it."""
    return {
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": finish_reason,
    }


class LegacyLogprobs:
    """The older form of log-probabilities: parallel lists, and where in the answer's text
    (in characters) each token begins."""

    def __init__(self) -> None:
        self._decoder = utf_8.IncrementalDecoder("replace")
        self._offset = 0

    def of(self, pieces: Iterable[GeneratedPiece]) -> Json:
        """Of the pieces that come next."""
        tokens, values, offsets = [], [], []
        tops: list[dict[str, float]] = []
        for piece in tokens_of(pieces):
            name = piece.raw.decode("utf-8", "replace")
            tokens.append(name)
            values.append(piece.log_probability)
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(piece.raw))
            top = {one.raw.decode("utf-8", "replace"): one.log_probability for one in piece.top}
            tops.append({name: piece.log_probability} | top)
        return {
            "tokens": tokens,
            "token_logprobs": values,
            "top_logprobs": tops,
            "text_offset": offsets,
        }
