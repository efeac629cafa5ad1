"""Tenants: whose a session is, and how that is written on Kafka.

A tenant's session is keyed `tenant SEPARATOR id` wherever sessions of all tenants meet
(topics, partitions, the engine), and shown to its tenant under the id alone. So the ids
of two tenants never meet, and nothing has to be hidden from anybody by a check. Neither
a tenant's name nor a session's id has a control character in it, so a key reads one way.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeAlias

import msgspec

from .errors import RequestError

SEPARATOR: Final = "\x1f"
TENANT_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}\Z"
TENANT_RULE: Final = "1 to 64 of A-Z a-z 0-9 _ -"

SESSION_ID_CHARS_MAX: Final = 128
SESSION_ID_PATTERN: Final = f"^[A-Za-z0-9_-][A-Za-z0-9._:@-]{{0,{SESSION_ID_CHARS_MAX - 1}}}$"

TenantName: TypeAlias = Annotated[str, msgspec.Meta(pattern=TENANT_PATTERN)]


def scope_of(tenant: str) -> str:
    """What every session key of the tenant begins with; "" for the worker's own."""
    return f"{tenant}{SEPARATOR}" if tenant else ""


def session_key(tenant: str, session_id: str) -> str:
    """The key of a tenant's session."""
    return scope_of(tenant) + session_id


def split_key(key: str) -> tuple[str, str]:
    """The tenant ("" for none) and the session id of a key."""
    tenant, separator, session_id = key.partition(SEPARATOR)
    return (tenant, session_id) if separator else ("", key)


def check_session_id(session_id: str) -> None:
    """Raises RequestError where an id that a client chose is none: it has to stand in a
    URL's path as it is."""
    if re.fullmatch(SESSION_ID_PATTERN, session_id) is None:
        raise RequestError(
            f"expected a session id of 1 to {SESSION_ID_CHARS_MAX} of A-Z a-z 0-9 _ - . : @, "
            f"none of the last three first, got {len(session_id)} characters: {session_id[:50]!r}"
        )
