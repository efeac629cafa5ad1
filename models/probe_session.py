"""The sessions of `flashfeed probe`: their names are reserved, since a metric or a person has to
tell them from the sessions that somebody wants."""

from __future__ import annotations

from typing import Final

from .errors import RequestError

PROBE_PREFIX: Final = "flashfeed-probe-"


def is_probe(session_key: str) -> bool:
    """Whether it is the key of a session of the probe's; no tenant's key is."""
    return session_key.startswith(PROBE_PREFIX)


def refuse_probe(session_key: str) -> None:
    """Raises RequestError where somebody would make a session that the probe calls its own."""
    if is_probe(session_key):
        raise RequestError(
            f"session {session_key}: names that begin with {PROBE_PREFIX} are those of "
            "`flashfeed probe`; choose another"
        )
