"""Who makes a request, as the routes see it. The gate has found that out before them."""

from __future__ import annotations

from typing import Annotated, TypeAlias, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from flashfeed.agents.service import SessionService

SERVICE = "flashfeed.service"
TENANT = "flashfeed.tenant"


def service_of(connection: HTTPConnection) -> SessionService:
    """The session service as the caller's tenant may use it."""
    return cast(SessionService, connection.scope[SERVICE])


def tenant_of(connection: HTTPConnection) -> str:
    """The caller's tenant; "" where no keys are set."""
    return cast(str, connection.scope[TENANT])


Sessions: TypeAlias = Annotated[SessionService, Depends(service_of)]
"""A route's parameter of this type is its caller's session service."""
