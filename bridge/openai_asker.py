"""Whom a request asks: a live session, or a model without any data; and what answers.

The session's id comes in the body or in the header `x-layerscale-session-id`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from fastapi import Header

from flashfeed.agents.service import SessionService
from flashfeed.models.errors import ModelUnknown, Unavailable
from flashfeed.models.generation import (
    SEED_MAX,
    Continuation,
    GeneratedPiece,
    GenerateOptions,
    PlainPrompt,
)
from flashfeed.models.views import ModelView

from .errors import InvalidField
from .openai_fields import SESSION_ID_CHARS_MAX

SESSION_HEADER: Final = "x-layerscale-session-id"
SessionHeader = Annotated[
    str,
    Header(
        alias=SESSION_HEADER,
        max_length=SESSION_ID_CHARS_MAX,
        description="ask this live session's data, as `session_id` in the body does",
    ),
]


@dataclass(frozen=True)
class Asker:
    """Who answers: the session of `session_id`, or without one the model `reference` ("":
    the default). `model` is its name, as clients see it."""

    sessions: SessionService
    model: str
    session_id: str = ""
    reference: str = ""

    async def pieces(
        self, asked: PlainPrompt, options: GenerateOptions
    ) -> AsyncGenerator[GeneratedPiece]:
        """The generation. A session reads a text as a question after its data.

        Raises Unavailable where the session was closed under it.
        """
        if self.session_id:
            text = asked.text if isinstance(asked, Continuation) else asked
            pieces = self.sessions.generate(self.session_id, text, options)
        else:
            pieces = self.sessions.chat(asked, options, self.reference)
        async with aclosing(pieces):
            async for piece in pieces:
                if piece.finish_reason == "cancelled":
                    raise Unavailable("the session was closed while it answered; ask again")
                yield piece


def asker(sessions: SessionService, session_id: str, header: str, model: str) -> Asker:
    """Who answers a request.

    Raises InvalidField where body and header name two sessions, or `model` is another
    model than the session's; ModelUnknown, SessionUnknown.
    """
    if session_id and header and session_id != header:
        message = f"session_id: expected the session of {SESSION_HEADER}, got another"
        raise InvalidField(message, "session_id")
    views = sessions.models()
    known = known_names(views)
    named = known.get(model.casefold(), model)
    if not (session_id or header):
        if not named or named == sessions.model_id:
            return Asker(sessions, sessions.model_id)
        return Asker(sessions, named, reference=named)
    session = sessions.get(session_id or header)
    own = known.get(session.model.casefold(), session.model) or sessions.model_id
    if named and named != own:
        if named.casefold() not in known:
            names = ", ".join(view.id for view in views)
            raise ModelUnknown(f"model: expected one of {names}, got {model!r}")
        message = f"model: expected the session's own, {own!r}, got {model!r}"
        raise InvalidField(message, "model")
    return Asker(sessions, own, session_id=session.session_id)


def known_names(views: Sequence[ModelView]) -> dict[str, str]:
    """Every name that a model may be asked by, in lower case, and the model's id."""
    return {name.casefold(): view.id for view in views for name in (*view.aliases, view.id)}


def options_of(options: GenerateOptions, choice: int) -> GenerateOptions:
    """The options of one of several answers: each has a seed of its own, so that they
    differ, and the first is what one alone would be."""
    if options.seed is None or not choice:
        return options
    return msgspec.structs.replace(options, seed=(options.seed + choice) % (SEED_MAX + 1))
