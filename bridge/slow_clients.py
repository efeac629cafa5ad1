"""Clients that do not read: cut off when they took nothing for some seconds.

A connection buffers what asyncio's transport holds (64 KiB) and what the kernel does
(SEND_BUFFER_BYTES); behind that whoever sends waits. Here, below every dialect, is who
waits no longer than `stalled_s`: the connection is aborted, not closed, since a close
would wait for the client to read. The routes then see a client that went.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import struct
import termios
from typing import Any

from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

from .metrics import BridgeMetrics, Connection
from .request_heads import BoundedHeads

log = logging.getLogger(__name__)

# The kernel would let a client that does not read hold megabytes of its memory. It doubles
# this number for its own bookkeeping.
SEND_BUFFER_BYTES = 128 * 1024

# The types say nothing of use here: of WebSockets uvicorn chooses the implementation.
_Http: Any = BoundedHeads
_WebSocket: Any = AutoWebSocketsProtocol


class _CutsOff:
    """Mixed into a protocol: a full buffer starts the clock, room in it stops the clock."""

    kind: Connection
    stalled_s: float
    metrics: BridgeMetrics
    transport: asyncio.Transport
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client is here."""
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES
        )
        super().connection_made(transport)  # type: ignore[misc]

    def pause_writing(self) -> None:
        """The buffer is full."""
        super().pause_writing()  # type: ignore[misc]
        if self._clock is None:
            self._start_clock(unread_bytes(self.transport))

    def resume_writing(self) -> None:
        """There is room again."""
        self._stop_clock()
        super().resume_writing()  # type: ignore[misc]

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._stop_clock()
        super().connection_lost(exc)  # type: ignore[misc]

    def _start_clock(self, unread: int) -> None:
        loop = asyncio.get_running_loop()
        self._clock = loop.call_later(self.stalled_s, self._look, unread)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _look(self, unread_before: int) -> None:
        unread = unread_bytes(self.transport)
        # Slow, but it reads: the buffer is bounded all the same. (Its kernel tells of room in
        # steps of a sixteenth of its own buffer: `stalled_s` must not be too short for that.)
        if unread < unread_before:
            self._start_clock(unread)
            return
        self._clock = None
        peer = self.transport.get_extra_info("peername")
        log.info("%s of %s is cut: it did not read for %.0f s", self.kind, peer, self.stalled_s)
        self.metrics.slow_client_dropped(self.kind)
        self.transport.abort()


def unread_bytes(transport: asyncio.Transport) -> int:
    """Bytes on the way to the client, in the transport and in the kernel (SIOCOUTQ, tcp(7))."""
    descriptor = transport.get_extra_info("socket").fileno()
    [queued] = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
    return transport.get_write_buffer_size() + int(queued)


def cutting_protocols(
    stalled_s: float, metrics: BridgeMetrics
) -> tuple[type[asyncio.Protocol], type[asyncio.Protocol]]:
    """uvicorn's HTTP and WebSocket protocols for one server, with the clock."""
    shared = {"stalled_s": stalled_s, "metrics": metrics}
    http = type("CuttingHttp", (_CutsOff, _Http), {"kind": "http", **shared})
    websocket = type("CuttingWebSocket", (_CutsOff, _WebSocket), {"kind": "websocket", **shared})
    return http, websocket
