"""Requests for a session that another worker owns, passed on to it: one hop, whole.

A dialect asks its session service, the service says that the session is elsewhere and
notes it (agents/service.py), the dialect makes an error of it in its own words; that
error is dropped here before the client sees it, and the request is asked again at the
owner. No dialect knows of it, and a session id may stand where it wants: in the path, a
header, the body, or a document. What had been written before is not asked again, and
what another worker passed on here is not passed on once more: the error goes out.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import httpx
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flashfeed.agents.service import NOTED, Noted, Ownership
from flashfeed.models.errors import FlashfeedError, SessionElsewhere, Unavailable, WriteUncertain

from .body import Body, ClientGone
from .caller import TENANT
from .errors import flashfeed_response, http_response
from .forward_socket import Upstream, pass_socket_on
from .forwarded import FORWARDED, HEADER, target_of
from .peers import ClusterPeers
from .sse import disconnected, run_until

log = logging.getLogger(__name__)

UNAVAILABLE: Final = 503
LAST_ANSWERS_S: Final = 2.0
_HOP: Final = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
# The owner goes by the signed tenant: it needs no key, and no page's origin.
_NOT_PASSED: Final = _HOP | frozenset(
    f"host content-length expect authorization x-api-key api-key cookie origin {HEADER}".split()
)
_NOT_RETURNED: Final = _HOP | {"date", "server"}
_PUSH: Final = "/push"
_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


class Forward:
    """ASGI middleware, behind the gate."""

    def __init__(
        self,
        app: ASGIApp,
        ownership: Ownership,
        peers: ClusterPeers,
        closing: asyncio.Event,
        body_bytes_max: int,
    ) -> None:
        self._app = app
        self._ownership = ownership
        self._peers = peers
        self._closing = closing
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, and pass it on where its session is elsewhere."""
        if scope["type"] not in ("http", "websocket") or FORWARDED in scope:
            await self._app(scope, receive, send)
            return
        noted = Noted()
        token = NOTED.set(noted)
        try:
            if scope["type"] == "http":
                await self._http(scope, receive, send, noted)
            else:
                await self._websocket(scope, receive, send, noted)
        finally:
            NOTED.reset(token)

    # -- HTTP -----------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send, noted: Noted) -> None:
        body = Body(receive, self._body_bytes_max)
        begun = False
        elsewhere: SessionElsewhere | None = None

        async def unless_elsewhere(message: Message) -> None:
            nonlocal begun, elsewhere
            if not begun:
                begun = True
                if message.get("status") == UNAVAILABLE and not noted.wrote:
                    elsewhere = noted.elsewhere
                if elsewhere is None:
                    body.forget()
            if elsewhere is None:
                await send(message)

        await self._app(scope, body.receive, unless_elsewhere)
        if elsewhere is not None:
            try:
                whole = await body.whole()
            except ClientGone:
                return
            except HTTPException as refused:  # the gate's bounds, at the end of the body
                refusal = http_response(refused, scope["method"], scope["path"])
                await refusal(scope, receive, send)
                return
            await self._pass_on(scope, receive, send, whole, elsewhere)

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, body: bytes, elsewhere: SessionElsewhere
    ) -> None:
        answer = _Answer(send)
        try:
            asked = self._ask_owner(scope, body, elsewhere, answer)
            moved = self._ownership.moved(elsewhere.owner)
            await run_until(asked, disconnected(receive), moved, self._stopping(answer))
            if not answer.begun:  # the owner hangs, or this worker stops
                raise _lost(scope)
        except FlashfeedError as error:
            await flashfeed_response(error)(scope, receive, send)

    async def _stopping(self, answer: _Answer) -> None:
        """Returns when the worker stops; what has not begun may yet be answered."""
        await self._closing.wait()
        if not answer.begun:
            await asyncio.sleep(LAST_ANSWERS_S)

    async def _ask_owner(
        self, scope: Scope, body: bytes, elsewhere: SessionElsewhere, answer: _Answer
    ) -> None:
        owner, method, target = elsewhere.owner, scope["method"], target_of(scope)
        headers = passed_headers(scope)
        header = self._peers.signed(owner, scope[TENANT], method, target, body)
        headers.append((HEADER, header))
        try:
            async with self._peers.stream(owner, method, target, headers, body) as response:
                await answer.relay(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unavailable("the session's worker cannot be reached; try again") from error
        except httpx.HTTPError as error:
            log.warning("%s %s: lost the session's worker: %r", method, scope["path"], error)
            if not answer.begun:
                raise _lost(scope) from error
            # The answer ends here, unfinished: the server cuts the connection.

    # -- WebSocket --------------------------------------------------------------------

    async def _websocket(self, scope: Scope, receive: Receive, send: Send, noted: Noted) -> None:
        begun = False
        elsewhere: SessionElsewhere | None = None

        async def unless_elsewhere(message: Message) -> None:
            nonlocal begun, elsewhere
            if not begun:
                begun = True
                if message["type"] != "websocket.accept" and not noted.wrote:
                    elsewhere = noted.elsewhere
            if elsewhere is None:
                await send(message)

        await self._app(scope, receive, unless_elsewhere)
        if elsewhere is not None:
            owner, target = elsewhere.owner, target_of(scope)
            signed = self._peers.signed(owner, scope[TENANT], "WEBSOCKET", target, b"")
            headers = [*passed_headers(scope), (HEADER, signed)]
            tls = self._peers.tls if owner.url.startswith("https:") else None
            upstream = Upstream(owner.url + target, headers, tls, self._body_bytes_max)
            await pass_socket_on(
                upstream,
                scope,
                receive,
                send,
                lambda: (self._closing.wait(), self._ownership.moved(owner)),
            )


class _Answer:
    """The owner's answer on its way to the client."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def relay(self, response: httpx.Response) -> None:
        """Pass everything on as it comes; a client that reads slowly slows the owner."""
        headers = [
            (name.lower(), value)
            for name, value in response.headers.raw
            if name.decode("latin-1").lower() not in _NOT_RETURNED
        ]
        self.begun = True
        start = {"type": "http.response.start", "status": response.status_code, "headers": headers}
        await self._send(start)
        async for chunk in response.aiter_raw():
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _lost(scope: Scope) -> FlashfeedError:
    """What a request is whose answer never began: the owner may have done it. Only a push
    is told by its key from its repeat."""
    has_key = bool(Headers(scope=scope).get("idempotency-key"))
    if scope["method"] in _REPEATABLE or (has_key and scope["path"].endswith(_PUSH)):
        return Unavailable("the session's worker was lost; try again")
    return WriteUncertain(
        "the session's worker was lost and may have done this all the same; look at the "
        "session before asking again; a push with an Idempotency-Key may be repeated"
    )


def passed_headers(scope: Scope) -> list[tuple[str, str]]:
    """A request's headers as they are passed on."""
    headers = Headers(scope=scope)
    return [(name, value) for name, value in headers.items() if name not in _NOT_PASSED]
