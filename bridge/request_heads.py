"""HTTP/1.1 whose request heads are bounded, in bytes and in time: before any route, and before
anybody has shown a key."""

from __future__ import annotations

import asyncio
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_TIMEOUT_S: Final = 10.0


class BoundedHeads(H11Protocol):
    """uvicorn's HTTP/1.1; a refusal names the limit, and a head has to come to its end: who
    sends it a byte at a time would hold a connection without ever having shown a key."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A head is awaited."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Perhaps it is here now."""
        super().data_received(data)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited."""
        self._forget_head()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._forget_head()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or has a head that does not end."""
        bound = self.config.h11_max_incomplete_event_size
        super().send_400_response(f"{msg} A request's head has at most {bound} bytes.")
