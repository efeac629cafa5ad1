"""Who makes a request, as the routes see it. The gate has found that out before them.

Only a WebSocket at SELF_AUTHENTICATED may come to its route without a caller: its
protocol brings the key in its first message, and `admit` makes the sender the caller.
Until then there is no service in the scope to use by mistake.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, Final, TypeAlias, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from flashfeed.agents.service import SessionService

from .keys import Keys
from .limits import Allowances, TenantAllowance

SERVICE: Final = "flashfeed.service"
TENANT: Final = "flashfeed.tenant"
ALLOWANCE: Final = "flashfeed.allowance"
HELD: Final = "flashfeed.held"
"""The scope's ExitStack: what the caller holds of the allowance until the request ends."""

SELF_AUTHENTICATED: Final = "/"


def service_of(connection: HTTPConnection) -> SessionService:
    """The session service as the caller's tenant may use it."""
    return cast(SessionService, connection.scope[SERVICE])


def tenant_of(connection: HTTPConnection) -> str:
    """The caller's tenant; "" where no keys are set."""
    return cast(str, connection.scope[TENANT])


def allowance_of(connection: HTTPConnection) -> TenantAllowance | None:
    """What the caller's tenant may still take; None where no keys are set."""
    return cast("TenantAllowance | None", connection.scope.get(ALLOWANCE))


def is_known(connection: HTTPConnection) -> bool:
    """Whether the caller is known: a header had its key, or no keys are set."""
    return TENANT in connection.scope


def admit(connection: HTTPConnection, key: str) -> str | None:
    """Make the bearer of a key the caller; its tenant, or None where the key is nobody's.

    For a protocol that brings the key itself. It counts as a connection of the tenant
    from now on; its messages are the protocol's to count (`allowance_of(...).request()`).
    Raises LimitReached.
    """
    state = connection.app.state
    keys: Keys = state.keys
    allowances: Allowances = state.allowances
    service: SessionService = state.service
    tenant = keys.authenticate(key)
    if tenant is None:
        return None
    allowance = allowances.of(tenant)
    held: ExitStack = connection.scope[HELD]
    with ExitStack() as more:
        more.enter_context(allowance.connection())
        held.close()  # it was a stranger's place until now
        held.push(more.pop_all())
    connection.scope[TENANT], connection.scope[ALLOWANCE] = tenant, allowance
    connection.scope[SERVICE] = service.of(tenant, allowance)
    return tenant


Sessions: TypeAlias = Annotated[SessionService, Depends(service_of)]
"""A route's parameter of this type is its caller's session service."""

Tenant: TypeAlias = Annotated[str, Depends(tenant_of)]
"""A route's parameter of this type is its caller's tenant."""
