"""The bridge on the worker's own event loop: uvicorn, without its signal handlers.

The worker decides when to stop; `stop` ends the event streams first, so that no
client holds it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Generator

import uvicorn
from fastapi import FastAPI

from flashfeed.models.errors import ConfigError

from .keys import Keys
from .origins import is_loopback
from .settings import BridgeSettings
from .slow_clients import cutting_protocols

DRAIN_S = 3
CONNECTIONS_WAITING_MAX = 2048


class BridgeServer:
    """Serves an app on one address. `port` 0 takes a free one."""

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on; after `start` never 0."""
        return self._port

    async def start(self) -> None:
        """Listen. Raises ConfigError where the address cannot be had, a certificate cannot
        be used, or anybody could come in."""
        refuse_open(self._host, self._app.state.settings.keys)
        config = self._config()
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            certificate, key = self._app.state.settings.tls
            raise ConfigError(
                f"bridge.tls_cert, bridge.tls_key: cannot use {certificate} and {key}: {error}"
            ) from None
        listener = self._bind()
        # Its DEBUG writes a WebSocket's headers out, the key among them.
        protocol_log = logging.getLogger("uvicorn.error")
        if protocol_log.getEffectiveLevel() < logging.INFO:
            protocol_log.setLevel(logging.INFO)
        server = _Server(config)
        serving = asyncio.create_task(server.serve([listener]), name="bridge")
        up = asyncio.create_task(server.up.wait())
        await asyncio.wait([serving, up], return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if serving.done():
            await serving
            raise ConfigError("the bridge's server ended while it started")
        self._server, self._serving = server, serving

    async def stop(self) -> None:
        """End the streams, let running requests end within DRAIN_S, stop listening."""
        if self._server is None or self._serving is None:
            return
        self._app.state.closing.set()
        self._server.should_exit = True
        serving, self._server, self._serving = self._serving, None, None
        await serving

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        # The protocol is named because asyncio sets TCP_NODELAY only where it is: without
        # it every answer waits 40 ms for the client's delayed acknowledgement.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._port))
        except OSError as error:
            listener.close()
            raise ConfigError(f"cannot listen on {self._host}:{self._port}: {error}") from None
        listener.setblocking(False)
        self._port = listener.getsockname()[1]
        return listener

    def _config(self) -> uvicorn.Config:
        settings: BridgeSettings = self._app.state.settings
        certificate, key = settings.tls or (None, None)
        state = self._app.state
        http, websocket = cutting_protocols(state.stalled_s, state.metrics)
        return uvicorn.Config(
            self._app,
            http=http,
            ws=websocket,
            log_config=None,  # the worker's logging is set up already
            access_log=False,
            lifespan="off",
            loop="none",
            # What is read of a head before it is whole. Some room above our own bound, so
            # that a head not much too large is told so in our words.
            h11_max_incomplete_event_size=2 * settings.header_bytes_max,
            ws_max_size=settings.body_bytes_max,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            timeout_graceful_shutdown=DRAIN_S,
            backlog=CONNECTIONS_WAITING_MAX,
            server_header=False,
        )


def refuse_open(host: str, keys: Keys) -> None:
    """Raises ConfigError where a bridge without keys would listen beyond this machine."""
    if not keys and not is_loopback(host):
        raise ConfigError(
            f"bridge.host: without API keys the bridge listens on 127.0.0.1 alone, not on "
            f"{host}; set bridge.keys_file or bridge.api_keys_env (`flashfeed keys new TENANT` "
            "makes a key)"
        )


class _Server(uvicorn.Server):
    """uvicorn's server, told apart by two things: no signals, and it says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals to the worker."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        self.up.set()
