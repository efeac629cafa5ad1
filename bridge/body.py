"""A request's body that can be read again: what was taken off the connection is kept, and
given out from its beginning to whoever comes next."""

from __future__ import annotations

from collections import deque

from starlette.types import Message, Receive

from flashfeed.models.errors import FlashfeedError


class BodyTooLarge(FlashfeedError):
    """A body is larger than the bridge takes."""

    status = 413
    code = "content_too_large"


class ClientGone(Exception):
    """The client went away before its body was here."""


class Body:
    """The messages of a request's body, at most `bytes_max` of them."""

    def __init__(self, receive: Receive, bytes_max: int) -> None:
        self._receive = receive
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: list[Message] = []
        self._again: deque[Message] = deque()
        self._keeps = True
        self._ended = False

    async def receive(self) -> Message:
        """The next message of the request: what was kept first, then the connection's."""
        if self._again:
            return self._again.popleft()
        message = await self._receive()
        if message["type"] != "http.request" or self._ended:
            return message
        self._ended = not message.get("more_body", False)
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._bytes_max:
            raise BodyTooLarge(f"expected a body of at most {self._bytes_max} bytes")
        if self._keeps:
            self._kept.append(message)
        return message

    async def whole(self) -> bytes:
        """The whole body; after it `receive` begins at its beginning again. Raises
        BodyTooLarge, and ClientGone where it ends early."""
        while not self._ended:
            self._again.clear()
            if (await self.receive())["type"] == "http.disconnect":
                raise ClientGone
        self._again = deque(self._kept)
        return b"".join(message.get("body", b"") for message in self._kept)

    def forget(self) -> None:
        """Nobody will read it again."""
        self._keeps = False
        self._kept.clear()
