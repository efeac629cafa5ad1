"""A generation against a live session: what is asked, and what comes back."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]


class GenerateOptions(msgspec.Struct, frozen=True):
    """How to sample. `temperature` 0 is greedy; `seed` None draws one. `clear_after`:
    nothing stays in the session; without, prompt and answer become an item of its window."""

    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=32_768)] = 256
    temperature: Annotated[float, msgspec.Meta(ge=0, le=5)] = 0.0
    top_p: Probability = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    clear_after: bool = True


class GeneratedPiece(msgspec.Struct, frozen=True):
    """One step of a generation's stream.

    `text` may be empty (part of a character, or held back because a stop string may
    begin in it); the texts of all pieces joined are the answer. `position` is the
    token's position in the fork. The last piece alone has `finish_reason`.
    """

    text: str
    position: int
    n_tokens: int
    confidence: float = 0.0
    finish_reason: Literal["stop", "length", "cancelled"] | None = None
