"""The way between a worker and a broker: a TCP proxy that can be cut and healed."""

from __future__ import annotations

import asyncio
import contextlib

CHUNK_BYTES = 65_536


class Link:
    """Passes on what comes to one port to another.

    whole      bytes pass
    silent     nothing passes and nothing is refused, as where packets are dropped: what is sent
               meanwhile comes when it is healed
    refused    connections are reset, and new ones closed at once
    """

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._passes = asyncio.Event()
        self._passes.set()
        self._refuses = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        await self._drop()

    def cut(self) -> None:
        """Fall silent."""
        self._passes.clear()

    async def refuse(self) -> None:
        """Reset what there is, and refuse what comes."""
        self._refuses = True
        await self._drop()

    def heal(self) -> None:
        """Be whole."""
        self._refuses = False
        self._passes.set()

    async def _drop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        other: asyncio.StreamWriter | None = None
        try:
            await self._passes.wait()
            there, other = await asyncio.open_connection("127.0.0.1", self._target)
            ways = {
                asyncio.create_task(self._pass_on(reader, other)),
                asyncio.create_task(self._pass_on(there, writer)),
            }
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass  # the broker is away: so is its port
        except asyncio.CancelledError:
            pass
        finally:
            for one in (writer, other):
                if one is not None:
                    one.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._passes.wait()
                writer.write(data)
                await writer.drain()
