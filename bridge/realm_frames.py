"""Realm's WebSocket frames: what a client sends, and the replies to it. Pure.

A client sends {"type": "auth", "api_key"} or a call, {"id", "function", "params",
"tenant_id"}. A call is answered by frames {"id", "status", "data" or "error"}, the last of
which is complete, error or cancelled.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from flashfeed.models.chat import CONTENT_CHARS_MAX
from flashfeed.models.errors import FlashfeedError, RequestError
from flashfeed.models.generation import MAX_TOKENS_MAX, GenerateOptions

from .nesting import JSON_DEPTH_MAX, is_deeper

Code: TypeAlias = Literal[
    "UNAUTHORIZED",
    "RATE_LIMIT_EXCEEDED",
    "DISPATCH_ERROR",
    "INTERNAL_ERROR",
    "FUNCTION_NOT_FOUND",
]
Status: TypeAlias = Literal["streaming", "complete", "error", "cancelled"]
CALL_ID_MAX: Final = 128
CallId = Annotated[str, msgspec.Meta(min_length=1, max_length=CALL_ID_MAX)]
TenantId = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{3,64}$")]
Name = Annotated[str, msgspec.Meta(max_length=2000)]
KEY_CHARACTERS_MAX: Final = 512


class Auth(msgspec.Struct, frozen=True):
    """Who sends what follows."""

    api_key: Annotated[str, msgspec.Meta(max_length=KEY_CHARACTERS_MAX)]


class Call(msgspec.Struct, frozen=True):
    """A function to run. `tenant_id` is the client's own, within the tenant of its key."""

    id: CallId
    function: Annotated[str, msgspec.Meta(max_length=100)]
    params: dict[str, Any] = {}
    tenant_id: TenantId | None = None


class GenerateParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Text for a prompt."""

    prompt: Annotated[
        str,
        msgspec.Meta(min_length=1, max_length=CONTENT_CHARS_MAX, description="what is asked"),
    ]
    model: Annotated[Name, msgspec.Meta(description="a name, file or URL; empty: the default")] = ""
    max_tokens: Annotated[
        int, msgspec.Meta(ge=1, le=MAX_TOKENS_MAX, description="the longest answer, in tokens")
    ] = 100
    temperature: Annotated[float, msgspec.Meta(description="0 is the likeliest token")] = 0.7
    stream: Annotated[bool, msgspec.Meta(description="a frame for each token")] = False
    top_p: Annotated[float, msgspec.Meta(description="1 is off")] = 1.0
    top_k: Annotated[int, msgspec.Meta(description="0 is off")] = 0
    repetition_penalty: Annotated[float, msgspec.Meta(description="1 is off")] = 1.0
    session_id: Annotated[Name, msgspec.Meta(description="a live session to ask; no model")] = ""

    def options(self) -> GenerateOptions:
        """How to sample. Raises RequestError, naming the parameter."""
        return GenerateOptions(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
        )


class PipelineParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pipeline's run."""

    pipeline: Annotated[Name, msgspec.Meta(description="the pipeline's name")]
    input: Annotated[
        dict[str, Any] | str, msgspec.Meta(description="fields for its prompts, or a text")
    ] = {}
    stream: Annotated[bool, msgspec.Meta(description="a frame for each step")] = False


class NoParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing."""


class MalformedFrame(RequestError):
    """What came is no frame of this protocol. `call_id` is the call it may have meant."""

    def __init__(self, message: str, call_id: str = "") -> None:
        super().__init__(message)
        self.call_id = call_id


class FunctionUnknown(RequestError):
    """No function of that name."""

    code = "function_not_found"


class Unauthorized(FlashfeedError):
    """No key, or one that is nobody's."""

    status = 401
    code = "invalid_api_key"


_decoder = msgspec.json.Decoder(dict[str, Any])


def read_frame(raw: bytes) -> Auth | Call:
    """The frame. Raises MalformedFrame."""
    if is_deeper(raw, JSON_DEPTH_MAX):
        raise MalformedFrame(
            f"expected JSON of arrays and objects nested at most {JSON_DEPTH_MAX} deep, got deeper"
        )
    try:
        fields = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedFrame(f"expected a JSON object in a frame: {error}") from None
    call_id = fields.get("id")
    try:
        if fields.get("type") == "auth":
            return msgspec.convert(fields, Auth)
        known = {key: value for key, value in fields.items() if value is not None}
        return msgspec.convert(known, Call)
    except msgspec.ValidationError as error:
        # An answer that names the call reaches who waits for it.
        named = call_id if isinstance(call_id, str) and len(call_id) <= CALL_ID_MAX else ""
        raise MalformedFrame(_told(error), named) from None


def read_params(params: dict[str, Any], kind: type[msgspec.Struct]) -> Any:
    """A call's parameters; null is the same as left out. Raises RequestError."""
    given = {key: value for key, value in params.items() if value is not None}
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise RequestError(f"params: {_told(error)}") from None


def reply(call_id: str, status: Status, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """A frame that answers a call."""
    frame: dict[str, Any] = {"id": call_id, "status": status}
    return frame if data is None else frame | {"data": data}


def error_reply(call_id: str, error: FlashfeedError) -> dict[str, Any]:
    """The frame that ends a call in an error."""
    return {"id": call_id, "status": "error", "error": error_info(error)}


def error_info(error: FlashfeedError) -> dict[str, Any]:
    """An error in Realm's words. `retry_after` (whole seconds) where a retry can succeed."""
    info: dict[str, Any] = {
        "code": _code(error),
        "message": str(error),
        "details": {"code": error.code},
    }
    if error.retriable:
        info["retry_after"] = max(1, math.ceil(getattr(error, "retry_after_s", 1.0)))
    return info


def token(text: str, index: int, is_final: bool) -> dict[str, Any]:
    """The data of a streaming frame. An empty text that is not final says: still at it."""
    return {"token": text, "text": text, "index": index, "is_final": is_final}


def _code(error: FlashfeedError) -> Code:
    if isinstance(error, FunctionUnknown):
        return "FUNCTION_NOT_FOUND"
    if error.status in (401, 403):
        return "UNAUTHORIZED"
    if error.status == 429:
        return "RATE_LIMIT_EXCEEDED"
    return "DISPATCH_ERROR" if error.status < 500 else "INTERNAL_ERROR"


def _told(error: msgspec.ValidationError) -> str:
    message, _, path = str(error).partition(" - at `")
    where = path.rstrip("`").removeprefix("$").removeprefix(".")
    return f"{where}: {message}" if where else message
