"""Who makes a request, as the routes see it. The gate has found that out before them.

Only a WebSocket at SELF_AUTHENTICATED may come to its route without a caller: its
protocol brings the key in its first message, and `admit` makes the sender the caller.
Until then there is no service in the scope to use by mistake.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from flashfeed.agents.service import SessionService

from .keys import Keys

SERVICE: Final = "flashfeed.service"
TENANT: Final = "flashfeed.tenant"

SELF_AUTHENTICATED: Final = "/"


def service_of(connection: HTTPConnection) -> SessionService:
    """The session service as the caller's tenant may use it."""
    return cast(SessionService, connection.scope[SERVICE])


def tenant_of(connection: HTTPConnection) -> str:
    """The caller's tenant; "" where no keys are set."""
    return cast(str, connection.scope[TENANT])


def is_known(connection: HTTPConnection) -> bool:
    """Whether the caller is known: a header had its key, or no keys are set."""
    return TENANT in connection.scope


def admit(connection: HTTPConnection, key: str) -> str | None:
    """Make the bearer of a key the caller; its tenant, or None where the key is nobody's."""
    keys: Keys = connection.app.state.keys
    service: SessionService = connection.app.state.service
    tenant = keys.authenticate(key)
    if tenant is not None:
        connection.scope[TENANT], connection.scope[SERVICE] = tenant, service.of(tenant)
    return tenant


Sessions: TypeAlias = Annotated[SessionService, Depends(service_of)]
"""A route's parameter of this type is its caller's session service."""
