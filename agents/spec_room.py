"""Whether a session's spec has room in the engine's contexts. Pure."""

from __future__ import annotations

from flashfeed.codecs.registry import text_codec
from flashfeed.models.errors import ConfigError, RequestError
from flashfeed.models.session import SessionSpec


def check_room(spec: SessionSpec, context_tokens: int) -> None:
    """Raises RequestError where the spec asks for more tokens than a session's context can
    have."""
    room = spec.context or context_tokens
    if spec.window_tokens > room:
        raise RequestError(
            f"window: expected at most {room} tokens, what the session's context takes, "
            f"got {spec.window_tokens}"
        )
    if spec.context > context_tokens:
        raise RequestError(f"context: expected at most {context_tokens} tokens, got {spec.context}")


def check_text(spec: SessionSpec) -> None:
    """Raises RequestError where there is no such text codec for sessions of the type."""
    try:
        text_codec(spec.text, spec.type)
    except ConfigError as error:
        raise RequestError(f"text: {error}") from None
