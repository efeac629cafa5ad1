"""Frames as the published client reads them, and streams that end when they should."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layerscale._streaming import _iter_sse_lines

from flashfeed.bridge.sse import HEARTBEAT, EventStream, ascii_json, frame, run_until
from flashfeed.models.errors import SessionUnknown, Unavailable

HTTP = {"type": "http", "asgi": {"spec_version": "2.3"}}


class Client:
    """An ASGI client: what was sent to it, and when it went."""

    def __init__(self):
        self.gone = asyncio.Event()
        self.messages = []
        self.got = asyncio.Condition()

    async def receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.messages.append(message)
        async with self.got:
            self.got.notify_all()

    @property
    def body(self):
        return b"".join(m.get("body", b"") for m in self.messages)

    async def has(self, part):
        async with asyncio.timeout(5), self.got:
            await self.got.wait_for(lambda: part in self.body)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20)), st.sampled_from(["", "a_b"]))
def test_a_frame_reads_back_as_it_was(data, name):
    text = frame(data, name or None).decode("ascii") + frame("next").decode("ascii")
    # httpx splits lines as str.splitlines does, at U+2028 too.
    first, second = _iter_sse_lines(iter(text.splitlines()))
    assert json.loads(first.data) == data
    assert first.event == (name or None)
    assert json.loads(second.data) == "next"


def test_a_frame_byte_for_byte():
    assert frame({"a": "\u2028"}, "x") == b'event: x\ndata: {"a":"\\u2028"}\n\n'


def test_what_is_not_finite_becomes_null():
    assert (
        ascii_json({"a": [float("inf"), 1.5], "b": (float("nan"),)})
        == '{"a":[null,1.5],"b":[null]}'
    )


async def test_run_until_releases_what_main_holds():
    released = asyncio.Event()

    async def main():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            released.set()

    assert await run_until(main(), asyncio.sleep(0.01)) is None
    assert released.is_set()


async def test_run_until_gives_the_result_and_the_error():
    async def result():
        return 7

    async def failure():
        raise KeyError("x")

    assert await run_until(result(), asyncio.sleep(60)) == 7
    with pytest.raises(KeyError):
        await run_until(failure(), asyncio.sleep(60))


async def test_frames_in_order_then_the_end():
    async def frames():
        yield frame(1)
        yield frame(2)

    client = Client()
    await EventStream(frames(), 15, asyncio.Event())(HTTP, client.receive, client.send)
    headers = dict(client.messages[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert b"content-length" not in headers
    assert client.body == b"data: 1\n\ndata: 2\n\n"
    assert client.messages[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_an_error_before_the_first_frame_sends_nothing():
    async def frames():
        raise SessionUnknown("no session x")
        yield b""

    client = Client()
    with pytest.raises(SessionUnknown):
        await EventStream(frames(), 15, asyncio.Event())(HTTP, client.receive, client.send)
    assert client.messages == []


async def test_silence_is_filled_with_heartbeats():
    async def frames():
        yield frame(1)
        await asyncio.sleep(60)

    client = Client()
    stream = EventStream(frames(), 0.02, asyncio.Event())
    serving = asyncio.create_task(stream(HTTP, client.receive, client.send))
    await client.has(b"data: 1\n\n" + HEARTBEAT + HEARTBEAT)
    client.gone.set()
    await serving


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_quiet_stream_ends_at_once_when(who):
    held = []

    async def frames():
        held.append(1)
        try:
            yield frame(1)
            await asyncio.sleep(60)
        finally:
            held.clear()

    client, closing = Client(), asyncio.Event()
    stream = EventStream(frames(), 15, closing)
    serving = asyncio.create_task(stream(HTTP, client.receive, client.send))
    await client.has(b"data: 1")
    (client.gone if who == "client" else closing).set()
    async with asyncio.timeout(1):
        await serving
    assert held == []


async def test_a_server_that_closes_before_the_first_frame_says_so():
    async def frames():
        await asyncio.sleep(60)
        yield b""

    closing = asyncio.Event()
    closing.set()
    client = Client()
    with pytest.raises(Unavailable):
        await EventStream(frames(), 15, closing)(HTTP, client.receive, client.send)


async def test_a_client_that_does_not_read_stops_the_frames():
    produced = []

    async def frames():
        for number in range(1000):
            produced.append(number)
            yield frame(number)

    class Stuck(Client):
        async def send(self, message):
            await super().send(message)
            if b"data: 2" in self.body:
                await asyncio.sleep(60)

    client = Stuck()
    stream = EventStream(frames(), 15, asyncio.Event())
    serving = asyncio.create_task(stream(HTTP, client.receive, client.send))
    await client.has(b"data: 2")
    await asyncio.sleep(0.02)
    assert produced == [0, 1, 2]
    client.gone.set()
    await asyncio.wait_for(serving, 1)
