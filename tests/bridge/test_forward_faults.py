"""A request on its way to another worker that is away, dies, hangs, or has handed the
session on: over a service in memory, with the other worker as a bare socket."""

import asyncio
import contextlib

import httpx
import pytest
import pytest_asyncio
import websockets

from flashfeed.agents.service import NOTED
from flashfeed.bridge.app import Cluster, create_app
from flashfeed.bridge.forwarded import HEADER, verify
from flashfeed.bridge.peers import ClusterPeers
from flashfeed.bridge.server import BridgeServer
from flashfeed.bridge.settings import BridgeSettings
from flashfeed.models.errors import SessionElsewhere
from flashfeed.models.ownership import Owner
from flashfeed.models.session import SessionSpec

from apache_kafka import certificates

SECRET = b"a secret of the group"
PUSH = {"json": {"data": [{"o": 1, "h": 2, "l": 0.5, "c": 1.5, "v": 9}]}}


class OtherWorker:
    """A worker as far as its socket: keeps what it was sent, answers with `says`, and then
    closes; None: never answers."""

    def __init__(self):
        self.says = b""
        self.heard = b""
        self.connected = asyncio.Event()

    async def serve(self, reader, writer):
        self.connected.set()
        with contextlib.suppress(OSError):
            self.heard = await reader.readuntil(b"\r\n\r\n")
            if self.says is None:
                await reader.read()  # until the other side gives up
                return
            writer.write(self.says)
            await writer.drain()
        writer.close()


class Ownership:
    """What the sending side asks: whether the owner's partition was claimed by another."""

    worker = "here"

    def __init__(self):
        self.claimed = asyncio.Event()

    async def moved(self, owner):
        await self.claimed.wait()


@pytest_asyncio.fixture
async def other():
    other = OtherWorker()
    server = await asyncio.start_server(other.serve, "127.0.0.1", 0)
    other.server = server
    other.port = server.sockets[0].getsockname()[1]
    yield other
    server.close()


@pytest.fixture
def ownership():
    return Ownership()


@pytest_asyncio.fixture
async def near(memory, other, ownership):
    """The URL of a bridge whose every session is the other worker's."""
    owner = Owner(3, 7, "other", f"http://127.0.0.1:{other.port}", live=True)

    def elsewhere(session_id):
        error = SessionElsewhere("the session is moving between workers", owner)
        NOTED.get().elsewhere = error
        raise error

    memory._at = elsewhere
    peers = ClusterPeers(SECRET)
    server = BridgeServer(create_app(memory, None, Cluster(ownership, peers)), "127.0.0.1", 0)
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    await server.stop()
    await peers.close()


async def pushed(near, **headers):
    async with httpx.AsyncClient(timeout=20) as client:
        return await client.post(f"{near}/v1/sessions/s/stream/push", headers=headers, **PUSH)


async def looked(near):
    async with httpx.AsyncClient(timeout=20) as client:
        return await client.get(f"{near}/v1/sessions/s/stats?x=%41&y=ä")


def expect_try_again(answer):
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert "127.0.0.1" not in answer.text


async def test_the_owners_answer_is_the_answer_byte_by_byte(near, other):
    body = b'{"odd":  "spaces"}'
    other.says = (
        b"HTTP/1.1 418 No\r\nX-Own: a\r\nConnection: close\r\nContent-Length: 18\r\n\r\n" + body
    )
    answer = await looked(near)
    assert (answer.status_code, answer.content) == (418, body)
    assert answer.headers["x-own"] == "a"
    line, *headers = other.heard.decode().split("\r\n")
    target = line.split(" ")[1]
    assert target == "/v1/sessions/s/stats?x=%41&y=%C3%A4", "as it came"
    sent = {name.lower(): value for name, _, value in (one.partition(": ") for one in headers)}
    assert verify(SECRET, sent[HEADER], "GET", target, b"").worker == "other"


async def test_keys_cookies_and_origins_stay_here(near, other):
    other.says = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    async with httpx.AsyncClient() as client:
        secrets = {"Authorization": "Bearer K", "X-Api-Key": "K", "Cookie": "a=K"}
        await client.get(f"{near}/v1/sessions/s/state", headers={**secrets, "X-Mine": "kept"})
    heard = other.heard.decode().lower()
    assert "x-mine: kept" in heard
    assert "bearer" not in heard
    assert "x-api-key" not in heard
    assert "cookie" not in heard


async def test_an_owner_that_is_away_is_to_be_tried_again(near, other):
    other.server.close()  # nobody listens: nothing can have been done
    await other.server.wait_closed()
    expect_try_again(await looked(near))
    expect_try_again(await pushed(near))


async def test_what_may_have_been_done_is_not_to_be_tried_again_unless_it_is_safe(near, other):
    other.says = b""
    answer = await pushed(near)
    assert answer.status_code == 424
    assert "retry-after" not in answer.headers
    expect_try_again(await pushed(near, **{"Idempotency-Key": "k"}))


async def test_a_key_makes_only_a_push_safe_to_try_again(near, other):
    """Nothing else is told by its key from its repeat: an append would be there twice."""
    other.says = b""
    async with httpx.AsyncClient(timeout=20) as client:
        key = {"Idempotency-Key": "k"}
        url = f"{near}/v1/sessions/s/append"
        answer = await client.post(url, headers=key, json={"text": "once"})
    assert answer.status_code == 424, answer.text
    assert "retry-after" not in answer.headers


async def test_an_owner_that_hangs_is_waited_for_until_another_takes_its_place(
    near, other, ownership
):
    other.says = None
    asked = [asyncio.create_task(looked(near)), asyncio.create_task(pushed(near))]
    await other.connected.wait()
    done, _ = await asyncio.wait(asked, timeout=0.5)
    assert not done
    ownership.claimed.set()
    expect_try_again(await asked[0])
    assert (await asked[1]).status_code == 424


async def test_an_answer_that_breaks_off_is_not_a_whole_one(near, other):
    other.says = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthe beginning"
    with pytest.raises(httpx.RemoteProtocolError):
        await looked(near)


async def test_a_socket_whose_owner_is_away_is_to_be_tried_again(near, other):
    other.says = b""
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(near.replace("http", "ws") + "/v1/sessions/s/ws")
    assert refused.value.response.status_code == 503
    assert int(refused.value.response.headers["retry-after"]) >= 1


async def test_a_socket_ends_when_another_takes_the_owners_place(near, other, ownership, memory):
    async def echo(socket):
        async for frame in socket:
            await socket.send(frame)

    async with websockets.serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        owner = Owner(3, 7, "other", f"http://127.0.0.1:{port}", live=True)

        def elsewhere(session_id):
            NOTED.get().elsewhere = SessionElsewhere("moving", owner)
            raise NOTED.get().elsewhere

        memory._at = elsewhere
        url = near.replace("http", "ws") + "/v1/sessions/s/ws"
        async with websockets.connect(url) as socket:
            for frame in ("text", b"bytes", "x" * 100_000):
                await socket.send(frame)
                assert await socket.recv() == frame
            ownership.claimed.set()
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
        assert closed.value.rcvd.code == 1013


async def test_what_was_written_before_is_not_done_again_elsewhere(near, other, memory):
    """The session moved in the middle of a request of several steps."""
    refuse = memory._at

    def after_a_write(session_id):
        NOTED.get().wrote = True
        refuse(session_id)

    memory._at = after_a_write
    expect_try_again(await pushed(near))
    assert not other.heard


async def test_a_worker_that_speaks_tls_is_believed_by_its_certificate(memory, ownership, tmp_path):
    ca_file, bundle = certificates(tmp_path)
    settings = BridgeSettings(tls=(bundle, bundle))
    far = BridgeServer(create_app(memory, settings), "127.0.0.1", 0)
    await far.start()
    owner = Owner(3, 7, "other", f"https://127.0.0.1:{far.port}", live=True)
    elsewhere = type(memory)()

    def refuse(session_id):
        NOTED.get().elsewhere = SessionElsewhere("moving", owner)
        raise NOTED.get().elsewhere

    elsewhere._at = refuse
    session = await memory.create(SessionSpec(type="ohlcv"))
    statuses = []
    for trusted in (str(ca_file), ""):
        peers = ClusterPeers(SECRET, trusted)
        near = BridgeServer(create_app(elsewhere, None, Cluster(ownership, peers)), "127.0.0.1", 0)
        await near.start()
        url = f"127.0.0.1:{near.port}/v1/sessions/{session.session_id}"
        async with httpx.AsyncClient() as client:
            statuses.append((await client.get(f"http://{url}/stream/status")).status_code)
        try:
            async with websockets.connect(f"ws://{url}/ws") as socket:
                assert session.session_id in await socket.recv()
                statuses.append(101)
        except websockets.InvalidStatus as refused:
            statuses.append(refused.response.status_code)
        await near.stop()
        await peers.close()
    await far.stop()
    assert statuses == [200, 101, 503, 503]
