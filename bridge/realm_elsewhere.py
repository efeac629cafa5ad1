"""A session that another worker owns, asked over that worker's Realm socket.

A Realm connection is one, and its calls may name sessions of several workers, so the
connection cannot be passed on whole as other WebSockets are (forward_socket.py): each
call is, signed as they are, one hop.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from flashfeed.models.errors import FlashfeedError, Overloaded, RequestError, Unavailable
from flashfeed.models.generation import GeneratedPiece, GenerateOptions
from flashfeed.models.ownership import Owner

from .caller import SELF_AUTHENTICATED
from .forwarded import HEADER
from .peers import ClusterPeers

CONNECT_S: Final = 5.0
FRAME_BYTES_MAX: Final = 8 * 1024 * 1024
_CALL: Final = "1"

_decoder = msgspec.json.Decoder(dict[str, Any])


async def generate_at(
    peers: ClusterPeers,
    owner: Owner,
    tenant: str,
    session_id: str,
    prompt: str,
    options: GenerateOptions,
) -> AsyncGenerator[GeneratedPiece]:
    """The answer of a session, from its owner; closing this ends it there. Raises what the
    owner says, and Unavailable where it cannot be reached or is lost."""
    signed = peers.signed(owner, tenant, "WEBSOCKET", SELF_AUTHENTICATED, b"")
    tls: ssl.SSLContext | None = peers.tls if owner.url.startswith("https:") else None
    params = {
        "prompt": prompt,
        "session_id": session_id,
        "stream": True,
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": options.top_k,
        "repetition_penalty": options.repetition_penalty,
    }
    try:
        async with connect(
            "ws" + owner.url.removeprefix("http") + SELF_AUTHENTICATED,
            additional_headers=[(HEADER, signed)],
            ssl=tls,
            max_size=FRAME_BYTES_MAX,
            open_timeout=CONNECT_S,
            compression=None,
            proxy=None,
        ) as socket:
            call = {"id": _CALL, "function": "generate", "params": params}
            await socket.send(msgspec.json.encode(call).decode())
            async for raw in socket:
                frame = _decoder.decode(raw)
                if frame.get("id") != _CALL:  # the welcome
                    continue
                yield _piece(frame)
                if frame["status"] != "streaming":
                    return
    except (OSError, TimeoutError, WebSocketException, msgspec.DecodeError) as error:
        raise Unavailable("the session's worker cannot be reached; try again") from error
    raise Unavailable("the session's worker was lost; try again")


def _piece(frame: dict[str, Any]) -> GeneratedPiece:
    """A frame as a piece of the answer; only the last one has counts. Raises what it says."""
    if frame["status"] == "error":
        raise _error(frame["error"])
    if frame["status"] == "cancelled":
        return GeneratedPiece("", 0, 0, finish_reason="cancelled")
    data = frame["data"]
    if frame["status"] == "streaming":
        return GeneratedPiece(data["token"], 0, 0)
    tokens, prompt_tokens = data["tokens_generated"], data["prompt_tokens"]
    return GeneratedPiece("", 0, tokens, finish_reason="stop", prompt_tokens=prompt_tokens)


def _error(info: dict[str, Any]) -> FlashfeedError:
    """The owner's error as one of ours."""
    kinds: dict[str, type[FlashfeedError]] = {
        "DISPATCH_ERROR": RequestError,
        "RATE_LIMIT_EXCEEDED": Overloaded,
    }
    error = kinds.get(info["code"], Unavailable)(info["message"])
    error.code = info["details"]["code"]
    if isinstance(error, Overloaded):
        error.retry_after_s = float(info.get("retry_after", 1))
    return error
