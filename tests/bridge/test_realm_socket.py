"""The Realm WebSocket where a real worker cannot be brought to it on demand: limits,
failures, clients that leave, a server that stops."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
import websockets

from flashfeed.bridge import realm_socket
from flashfeed.bridge.app import create_app
from flashfeed.bridge.keys import Keys, key_hash
from flashfeed.bridge.server import BridgeServer
from flashfeed.bridge.settings import BridgeSettings
from flashfeed.models.config import LimitsConfig

from client_packages import CLIENTS, node_modules

KEY = "a-key-of-acme-0123456789"
ASK = {"id": "1", "function": "generate", "params": {"prompt": "Hello"}}


@asynccontextmanager
async def connected(server, auth=""):  # type: ignore[no-untyped-def]
    """A connection, logged in; its reader."""
    async with websockets.connect(f"ws://127.0.0.1:{server.port}/") as socket:

        async def read():  # type: ignore[no-untyped-def]
            return json.loads(await asyncio.wait_for(socket.recv(), 5))

        if auth:
            assert (await read())["type"] == "auth_required"
            await socket.send(json.dumps({"type": "auth", "api_key": auth}))
            assert (await read())["type"] == "auth_success"
        assert (await read())["status"] == "connected"
        yield socket, read


async def until(condition):  # type: ignore[no-untyped-def]
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def keyed(**limits):  # type: ignore[no-untyped-def]
    return BridgeSettings(
        keys=Keys({"acme": [key_hash(KEY.encode())]}), limits=LimitsConfig(**limits)
    )


async def test_a_client_that_goes_ends_what_it_asked_for(serve, memory):
    memory.piece_gate = asyncio.Event()
    async with connected(await serve()) as (socket, _):
        for number in range(3):
            await socket.send(json.dumps(ASK | {"id": str(number)}))
        await until(lambda: memory.generating == 3)
    await until(lambda: memory.generating == 0)


async def test_calls_at_a_time_are_bounded_and_ids_used_once(serve, memory):
    memory.piece_gate = asyncio.Event()
    async with connected(await serve()) as (socket, read):
        for number in range(realm_socket.CALLS_MAX):
            await socket.send(json.dumps(ASK | {"id": str(number)}))
        await until(lambda: memory.generating == realm_socket.CALLS_MAX)
        await socket.send(json.dumps(ASK | {"id": "3"}))
        again = await read()
        await socket.send(json.dumps(ASK | {"id": "too many"}))
        refused = await read()
        memory.piece_gate.set()
        answers = [await read() for _ in range(realm_socket.CALLS_MAX)]
        await socket.send(json.dumps(ASK | {"id": "3"}))
        once_more = await read()
    assert (again["error"]["code"], "'3' is running" in again["error"]["message"]) == (
        "DISPATCH_ERROR",
        True,
    )
    assert refused["id"] == "too many"
    assert refused["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert refused["error"]["retry_after"] == 1
    assert {answer["status"] for answer in [*answers, once_more]} == {"complete"}


async def test_a_stop_cancels_what_runs(serve, memory):
    memory.piece_gate = asyncio.Event()
    server = await serve()
    async with connected(server) as (socket, read):
        await socket.send(json.dumps(ASK))
        await until(lambda: memory.generating == 1)
        async with asyncio.timeout(3):
            await server.stop()
        assert await read() == {"id": "1", "status": "cancelled"}
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await read()
    assert closed.value.rcvd.code == 1001
    assert memory.generating == 0


async def test_a_failure_half_way_ends_the_call_and_not_the_connection(serve, memory):
    memory.fails_after = 3
    async with connected(await serve()) as (socket, read):
        params = {"prompt": "Hello", "stream": True}
        await socket.send(json.dumps(ASK | {"params": params}))
        frames = [await read() for _ in range(3)]
        assert [frame["status"] for frame in frames] == ["streaming", "streaming", "error"]
        assert frames[-1]["error"]["code"] == "INTERNAL_ERROR"
        memory.fails_after = None
        await socket.send(json.dumps(ASK))
        assert (await read())["status"] == "complete"


async def test_what_nobody_foresaw_is_an_internal_error(serve, memory, monkeypatch):
    monkeypatch.setattr(memory, "chat", lambda *_: 1 / 0)
    async with connected(await serve()) as (socket, read):
        await socket.send(json.dumps(ASK))
        answer = await read()
    assert answer["error"]["code"] == "INTERNAL_ERROR"
    assert "zero" not in answer["error"]["message"]


async def test_a_tenant_that_calls_too_often_is_told_when_to_come_again(serve, memory):
    async with connected(await serve(keyed(requests_per_s=0.5)), KEY) as (socket, read):
        seen = []
        for number in range(6):
            await socket.send(json.dumps({"id": str(number), "function": "health"}))
            seen.append(await read())
    [*_, last] = seen
    assert seen[0]["status"] == "complete"
    assert last["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert 1 <= last["error"]["retry_after"] <= 3


async def test_connections_of_a_tenant_are_bounded_at_the_login(serve):
    server = await serve(keyed(connections=1))
    async with (
        connected(server, KEY),
        websockets.connect(f"ws://127.0.0.1:{server.port}/") as second,
    ):
        assert json.loads(await second.recv())["type"] == "auth_required"
        await second.send(json.dumps({"type": "auth", "api_key": KEY}))
        failed = json.loads(await second.recv())
        assert failed["type"] == "auth_failed"
        assert failed["error"]["code"] == "RATE_LIMIT_EXCEEDED"
        with pytest.raises(websockets.ConnectionClosed):
            await second.recv()


async def test_a_key_in_a_header_needs_no_login(serve):
    server = await serve(keyed())
    url = f"ws://127.0.0.1:{server.port}/"
    async with websockets.connect(url, additional_headers={"x-api-key": KEY}) as socket:
        assert json.loads(await socket.recv())["status"] == "connected"


async def test_who_does_not_log_in_is_not_kept(serve, monkeypatch):
    monkeypatch.setattr(realm_socket, "AUTH_S", 0.1)
    server = await serve(keyed())
    async with websockets.connect(f"ws://127.0.0.1:{server.port}/") as socket:
        assert json.loads(await socket.recv())["type"] == "auth_required"
        failed = json.loads(await asyncio.wait_for(socket.recv(), 5))
        assert (failed["type"], failed["error"]["code"]) == ("auth_failed", "UNAUTHORIZED")
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 5)


async def test_a_long_call_says_that_it_still_runs(serve, memory, monkeypatch):
    monkeypatch.setattr(realm_socket, "KEEP_ALIVE_S", 0.1)
    memory.piece_gate = asyncio.Event()
    async with connected(await serve()) as (socket, read):
        await socket.send(json.dumps(ASK))
        for _ in range(2):
            frame = await read()
            assert (frame["id"], frame["status"]) == ("1", "streaming")
            assert (frame["data"]["token"], frame["data"]["is_final"]) == ("", False)
        memory.piece_gate.set()
        while (frame := await read())["status"] == "streaming":
            pass
        assert frame["status"] == "complete"


async def test_a_client_that_does_not_read_is_given_up(serve, memory, monkeypatch):
    monkeypatch.setattr(realm_socket, "SEND_S", 0.2)
    memory.pieces = ("x" * 1_000_000,) * 200
    server = await serve()
    async with websockets.connect(
        f"ws://127.0.0.1:{server.port}/", max_queue=1, max_size=None, compression=None
    ) as socket:
        params = {"prompt": "Hello", "stream": True}
        await socket.send(json.dumps(ASK | {"params": params}))
        await until(lambda: memory.prompts and not memory.generating)
        with pytest.raises(websockets.ConnectionClosed):
            while True:
                frame = json.loads(await asyncio.wait_for(socket.recv(), 30))
                assert frame.get("status") != "complete"


@pytest.mark.client("realm-ws (from its README)", "reconnect")
@pytest.mark.client("realm-ws (from its README)", "timeout")
async def test_the_client_gives_up_a_silent_call_and_comes_back_after_a_stop(memory):
    memory.piece_gate = asyncio.Event()
    server = BridgeServer(create_app(memory), "127.0.0.1", 0)
    await server.start()
    node = await asyncio.create_subprocess_exec(
        "node",
        str(CLIENTS / "realm_reconnect.mjs"),
        str(node_modules()),
        f"ws://127.0.0.1:{server.port}",
        stdout=asyncio.subprocess.PIPE,
    )
    assert node.stdout is not None

    async def line():  # type: ignore[no-untyped-def]
        return json.loads(await asyncio.wait_for(node.stdout.readline(), 20))

    assert await line() == {"event": "the call timed out"}
    await server.stop()
    assert await line() == {"event": "disconnected", "connected": False}
    again = BridgeServer(create_app(memory), "127.0.0.1", server.port)
    await again.start()
    try:
        while (seen := await line())["event"] == "disconnected":
            pass
        assert seen == {"event": "reconnected", "status": "healthy"}
        assert await asyncio.wait_for(node.wait(), 10) == 0
    finally:
        await again.stop()
