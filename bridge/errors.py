"""Errors as HTTP answers, in one envelope that every client reads:

{"type": "error", "error": {"message", "type", "param", "code"}, "message", "request_id"}

OpenAI and LayerScale read what is under `error`, Anthropic also `type` and
`request_id`, Llama Stack for JavaScript the outer `message`. The status, the code and
whether a retry makes sense come from the error's class (models/errors.py); `type` is
the family by status, in Anthropic's words, whose client has them as an enumeration.
"""

from __future__ import annotations

import http
import logging
import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from flashfeed.models.errors import FlashfeedError, RecordError

from .request_ids import HEADERS as REQUEST_ID_HEADERS
from .request_ids import current_request_id

log = logging.getLogger(__name__)

_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Unsupported(FlashfeedError):
    """The dialect knows this request, the bridge does not serve it yet."""

    status = 400
    code = "not_supported"

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class InvalidField(FlashfeedError):
    """One field of a request is not as it must be."""

    status = 400
    code = "invalid_request_error"

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class QueryUnknown(FlashfeedError):
    """The session has no standing question of that id."""

    status = 404
    code = "flash_query_not_found"


def error_body(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """The envelope of an error."""
    family = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {
        "type": "error",
        "error": {"message": message, "type": family, "param": param, "code": code},
        "message": message,
        "request_id": current_request_id(),
    }


def error_response(
    status: int,
    code: str,
    message: str,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error as an HTTP response."""
    # Here too: the answer to a failure does not pass the middleware that names requests.
    named = dict.fromkeys(REQUEST_ID_HEADERS, current_request_id())
    return JSONResponse(
        error_body(status, code, message, param), status, named | dict(headers or {})
    )


def flashfeed_response(error: FlashfeedError) -> Response:
    """A FlashfeedError as an HTTP response, with Retry-After where a retry can succeed."""
    param = getattr(error, "param", None)
    if isinstance(error, RecordError):
        param = error.path.removeprefix("$.")
    headers = None
    if error.retriable:
        # Whole seconds, rounded up: Retry-After knows no fractions.
        seconds = max(1, math.ceil(getattr(error, "retry_after_s", 1.0)))
        headers = {"Retry-After": str(seconds)}
    return error_response(error.status, error.code, str(error), param, headers)


def http_response(error: HTTPException, method: str, path: str) -> Response:
    """What the router refuses (no such route, wrong method) as an HTTP response."""
    if error.status_code == http.HTTPStatus.NOT_FOUND:
        message = f"no route {method} {path}; /openapi.json lists what this bridge serves"
        return error_response(404, "route_not_found", message)
    if error.status_code == http.HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"{path} does not take {method}"
        return error_response(405, "method_not_allowed", message, headers=error.headers)
    code = "content_too_large" if error.status_code == 413 else "invalid_request_error"
    return error_response(error.status_code, code, str(error.detail), headers=error.headers)


def validation_response(error: RequestValidationError) -> Response:
    """A request that is not as its model says, as a 400 that names the field."""
    faults = error.errors()
    first = faults[0]
    # The location's first part says where the field is looked for (body, path, query).
    path = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        message = f"{path}: this field is not known here, or not supported yet"
        return error_response(400, "not_supported", message, path)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return error_response(400, "invalid_request_error", f"{path}: {first['msg']}{more}", path)


def install(app: FastAPI) -> None:
    """Make the app answer every error in the envelope."""

    @app.exception_handler(FlashfeedError)
    async def on_flashfeed(request: Request, error: FlashfeedError) -> Response:
        if error.status >= 500 and not error.retriable:
            log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return flashfeed_response(error)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        return http_response(error, request.method, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def on_validation(_: Request, error: RequestValidationError) -> Response:
        return validation_response(error)

    @app.exception_handler(Exception)
    async def on_anything(_: Request, __: Exception) -> Response:
        # Starlette logs the traceback; a client learns nothing of our inside.
        return error_response(500, "internal_error", "the bridge failed; its log says why")
