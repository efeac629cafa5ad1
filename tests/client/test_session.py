"""A session's events over HTTP: through lost connections, each once, to the session's end."""

import asyncio
import contextlib
import threading

import pytest

from flashfeed.client import Refused, SessionEvents, Unreachable, Wanted
from flashfeed.client.session import read_frames

pytestmark = [pytest.mark.broker, pytest.mark.model]


def url_of(server):
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Proxy:
    """A TCP proxy that cuts its connections when told to."""

    def __init__(self, url):
        self._port = int(url.rpartition(":")[2])
        self._writers = []
        self.connections = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = url_of(self._server)
        return self

    async def __aexit__(self, *_):
        self.cut()
        self._server.close()

    def cut(self):
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader, writer):
        self.connections += 1
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, up_writer]

        async def carry(source, target):
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
                target.close()

        await asyncio.gather(carry(reader, up_writer), carry(up_reader, writer))


async def after(session, value):
    return await asyncio.to_thread(session.push, value)


async def one(events):
    async with asyncio.timeout(30):
        return await anext(events)


async def test_what_comes_is_what_the_session_says(worker, session):
    await after(session, 20.0)
    async with SessionEvents(worker.url, session.id) as events:
        version = await after(session, 21.5)
        got = [await one(events), await one(events)]
    [answer] = session.standing()["flash_queries"]
    assert [event.data.data_version for event in got] == [version, version]
    assert (got[0].data.value, got[0].data.confidence) == (answer["value"], answer["confidence"])


async def test_a_lost_connection_loses_no_newest_answer_and_repeats_none(worker, session):
    async with (
        Proxy(worker.url) as proxy,
        SessionEvents(proxy.url, session.id, wanted=Wanted(query="hot")) as events,
    ):
        versions = [await after(session, 20.0)]
        got = [await one(events)]
        proxy.cut()
        versions.append(await after(session, 21.0))  # while nobody is connected
        got.append(await one(events))
        proxy.cut()
        third = asyncio.create_task(one(events))
        while proxy.connections < 3:
            await asyncio.sleep(0.01)
        versions.append(await after(session, 22.0))
        got.append(await third)
    assert [event.data.data_version for event in got] == versions


async def test_what_stands_comes_first_where_it_is_asked_for(worker, session):
    version = await after(session, 20.0)
    async with SessionEvents(worker.url, session.id, standing=True) as events:
        got = [await one(events), await one(events)]
    assert [event.data.data_version for event in got] == [version, version]
    assert len({event.id for event in got}) == 2


def test_a_restart_gets_the_answer_it_missed(worker, session, tmp_path):
    def events():
        return SessionEvents(worker.url, session.id, wanted=Wanted(query="hot"), position=position)

    position = tmp_path / "here.json"
    session.push(20.0)
    with events():
        pass
    version = session.push(21.0)
    with events() as reader:
        assert next(reader).data.data_version == version
    with events() as reader:  # it was not handled
        assert next(reader).data.data_version == version
        reader.handled()
    with events() as reader:
        late = threading.Timer(1, session.push, [22.0])
        late.start()
        assert next(reader).data.data_version > version
        late.join()


async def test_the_events_end_with_the_session(worker, session):
    async with SessionEvents(worker.url, session.id) as events:
        await asyncio.to_thread(session.delete)
        with pytest.raises(StopAsyncIteration):
            await one(events)


def test_no_such_session_is_refused(worker):
    with (
        pytest.raises(Refused, match="404: no session nobody"),
        SessionEvents(worker.url, "nobody"),
    ):
        pass


def test_nobody_there_is_unreachable():
    events = SessionEvents("http://127.0.0.1:1", "x", give_up_s=0.5)
    with pytest.raises(Unreachable, match="no connection"), events:
        pass


async def test_what_is_no_bridge_is_said(worker):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ndata: hello\n\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = url_of(server)
    async with server:
        with pytest.raises(Unreachable, match="no flashfeed bridge"):
            async with SessionEvents(url, "x"):
                pass


async def test_frames():
    async def lines():
        for line in (
            ": hi",
            "id: 1",
            "event:x",
            "data: a",
            "data:  b",
            "",
            "",
            "data",
            "",
            "data: cut",
        ):
            yield line

    assert [frame async for frame in read_frames(lines())] == [
        {"id": "1", "event": "x", "data": "a\n b"},
        {"data": ""},
    ]
