"""Clients that do not read, and clients that go: by real sockets."""

import asyncio
import base64
import contextlib
import json
import os
import re
import socket
import time

import httpx
import pytest

from flashfeed.bridge.settings import BridgeSettings
from flashfeed.models.events import DataUpdated
from flashfeed.models.session import SessionSpec

QUICK = BridgeSettings(stalled_s=0.3)
LARGE = DataUpdated(
    session_id="x" * 100_000, type="iot", data_version=3, data_count=1, tokens=8,
    decoded_tokens=30, n_tokens=50, update_ms=1.0, pending=0, event_time=None, updated_at="",
    origins=(), records_first=0, records_last=7,
)  # fmt: skip
PING = json.dumps({"type": "ping"}).encode()


def request(path, body=None):
    data = json.dumps(body).encode() if body is not None else b""
    method = "POST" if data else "GET"
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def upgrade(path):
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    ).encode()


def text_frame(data):
    """A client's WebSocket frame, masked with zeros."""
    assert len(data) < 126
    return bytes([0x81, 0x80 | len(data)]) + bytes(4) + data


def connect(port):
    """A connection with a small buffer on this side."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.settimeout(30)
    return client


async def dropped(port, kind):
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    name = f'flashfeed_bridge_slow_clients_dropped_total{{kind="{kind}"}}'
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, flags=re.M).group(1))


async def until(condition, seconds=10):
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


@pytest.fixture
async def session(memory):
    await memory.create(SessionSpec(type="iot"), "s1")
    return memory


async def test_a_stream_that_nobody_reads_is_cut_and_its_generation_ends(session, serve):
    session.pieces = ("x" * 1000,) * 50_000
    server = await serve(QUICK)
    with connect(server.port) as client:
        client.sendall(request("/v1/sessions/s1/generate", {"prompt": "?", "stream": True}))
        await until(lambda: is_true(session.generating == 1))
        began = time.monotonic()
        await until(lambda: is_true(session.generating == 0))
        assert time.monotonic() - began < 8
        assert await dropped(server.port, "http") == 1


async def is_true(value):
    return value


async def test_an_event_stream_that_nobody_reads_is_cut(session, serve):
    server = await serve(QUICK)
    with connect(server.port) as client:
        client.sendall(request("/flashfeed/v1/sessions/s1/events"))
        await until(lambda: is_true(bool(session.held["s1"].subscribers)))

        async def cut():
            for queue in session.held["s1"].subscribers:
                queue.put_nowait(LARGE)
            return not session.held["s1"].subscribers

        await until(cut)
        assert await dropped(server.port, "http") == 1


async def test_a_websocket_that_nobody_reads_is_cut(session, serve):
    server = await serve(QUICK)
    with connect(server.port) as client:
        client.sendall(upgrade("/v1/sessions/s1/ws"))
        await until(lambda: is_true(bool(session.held["s1"].subscribers)))

        async def cut():
            with contextlib.suppress(BlockingIOError, ConnectionError):
                client.setblocking(False)
                client.send(text_frame(PING) * 1000)
            return not session.held["s1"].subscribers

        await until(cut, 30)
        assert await dropped(server.port, "websocket") == 1


async def test_a_reader_that_is_slow_but_reads_is_served_to_the_end(session, serve):
    session.pieces = ("x" * 1000,) * 500
    server = await serve(QUICK)
    client = connect(server.port)
    client.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=client, limit=4096)
    writer.write(request("/v1/sessions/s1/generate", {"prompt": "?", "stream": True}))
    read = b""
    began = time.monotonic()
    while b"\r\n0\r\n\r\n" not in read[-20:]:
        part = await reader.read(20_000)
        assert part, "cut"
        read += part
        await asyncio.sleep(0.02)
    writer.close()
    assert time.monotonic() - began > 2 * QUICK.stalled_s
    assert read.count(b'"token":"xxx') == 500
    assert await dropped(server.port, "http") == 0


# -- the real worker ---------------------------------------------------------------------


@pytest.fixture
def alive(worker):
    """A session of the real worker, and a client of its bridge."""
    with httpx.Client(base_url=worker.url, timeout=60) as http:
        body = {"type": "iot", "prompt": "Tell a long story about the sea."}
        session_id = http.post("/v1/sessions/init", json=body).json()["session_id"]
        yield http, session_id
        http.delete(f"/v1/sessions/{session_id}")


def generated(http):
    text = http.get("/metrics").text
    found = re.search(r"^flashfeed_generated_tokens_total (\S+)$", text, flags=re.M)
    return float(found.group(1)) if found else 0.0


@pytest.mark.broker
@pytest.mark.model
@pytest.mark.parametrize("stream", [True, False])
def test_a_generation_ends_within_a_step_when_its_client_goes(worker, alive, stream):
    http, session_id = alive
    before = generated(http)
    port = int(worker.url.rpartition(":")[2])
    body = {"prompt": "Once upon a time", "max_tokens": 1000, "stream": stream}
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(request(f"/v1/sessions/{session_id}/generate", body))
        seen = 0
        if stream:
            while seen < 3:
                seen += client.recv(65536).count(b"data: ")
        else:
            state = f"/v1/sessions/{session_id}/state"
            while not http.get(state).json()["in_use"]:
                time.sleep(0.02)
            time.sleep(0.5)
    gone = time.monotonic()
    while (now := generated(http)) == before:
        assert time.monotonic() - gone < 2
        time.sleep(0.01)
    if stream:
        assert seen <= now - before <= seen + 3  # the step that ran, and the closing's way here
    assert now - before < 200
    assert not http.get(f"/v1/sessions/{session_id}/state").json()["in_use"]


@pytest.mark.broker
@pytest.mark.model
def test_a_rude_websocket_is_cut_and_harms_nobody(worker, alive):
    http, session_id = alive
    port = int(worker.url.rpartition(":")[2])
    with connect(port) as client:
        client.sendall(upgrade(f"/v1/sessions/{session_id}/ws"))
        assert b"101" in client.recv(1000)
        client.settimeout(5)
        with pytest.raises(OSError):  # it blocks, since nobody takes the pongs; then it is cut
            for _ in range(100_000):
                client.sendall(text_frame(PING) * 100)
        body = {"prompt": "The sea is", "max_tokens": 4}
        assert http.post(f"/v1/sessions/{session_id}/generate", json=body).json()["n_tokens"] == 4
        ends = time.monotonic() + 20
        while asyncio.run(dropped(port, "websocket")) == 0:
            assert time.monotonic() < ends
            time.sleep(0.2)


@pytest.mark.broker
@pytest.mark.model
def test_a_thousand_quiet_subscribers_cost_less_than_100_mb(worker, alive):
    http, session_id = alive
    port = int(worker.url.rpartition(":")[2])
    with contextlib.ExitStack() as stack:

        def subscribe(number):
            clients = []
            for _ in range(number):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
                client.sendall(request(f"/flashfeed/v1/sessions/{session_id}/events"))
                clients.append(client)
            for client in clients:
                assert b"200 OK" in client.recv(100)
            return clients

        subscribe(50)  # what the first ones load and warm is not theirs
        before = resident_mb(worker.pid)
        clients = subscribe(1000)
        assert resident_mb(worker.pid) - before < 70
        records = {"data": [{"sid": "a", "val": 1.0}]}
        http.post(f"/v1/sessions/{session_id}/stream/push", json=records).raise_for_status()
        for client in clients:  # and every one of them is served
            text = b""
            while b"flashfeed.data_updated" not in text:
                text += client.recv(65536)


def resident_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        [line] = [line for line in status if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024
