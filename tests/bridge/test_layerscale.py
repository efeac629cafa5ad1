"""LayerScale where a real worker cannot be brought to it on demand: refusals, failures half way,
clients that leave, the order on a socket."""

import asyncio
import json

import httpx
import pytest
import websockets
from layerscale import APIStatusError, AsyncLayerScale, InternalServerError, RateLimitError

from flashfeed.bridge.keys import Keys, key_hash, new_key
from flashfeed.bridge.settings import BridgeSettings
from flashfeed.models.errors import Overloaded, Unavailable
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec

from client_packages import module_beside

v08 = module_beside("layerscale==0.8.0", "layerscale", "layerscale_v08")

CANDLE = {"o": 1, "h": 2, "l": 0.5, "c": 1.5, "v": 10}
SPEC = SessionSpec(type="ohlcv", prompt="You are an analyst.", flash=(FlashQuery("up?"),))


async def wait_for(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def session(memory):
    view = await memory.create(SPEC)
    return memory.held[view.session_id]


@pytest.fixture
async def client(bridge):
    async with AsyncLayerScale(base_url=bridge, max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
async def socket(bridge, session):
    url = bridge.replace("http", "ws") + f"/v1/sessions/{session.id}/ws"
    async with websockets.connect(url) as socket:
        assert json.loads(await socket.recv())["type"] == "connected"
        yield socket


async def frames(socket, count):
    return [json.loads(await asyncio.wait_for(socket.recv(), 5)) for _ in range(count)]


# -- push ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "raised"),
    [(Overloaded("full"), RateLimitError), (Unavailable("rebuilding"), InternalServerError)],
)
async def test_a_refused_push_names_when_to_come_again(client, session, memory, error, raised):
    memory.push_error = error
    with pytest.raises(raised) as refused:
        await client.sessions.push(session.id, [CANDLE])
    assert refused.value.response.headers["retry-after"] == "1"


async def test_the_client_comes_again_by_itself_and_the_push_is_written_once(
    bridge, session, memory
):
    memory.push_error = Overloaded("full")
    async with AsyncLayerScale(base_url=bridge, max_retries=2) as client:
        pushing = asyncio.create_task(client.sessions.push(session.id, [CANDLE]))
        await asyncio.sleep(0.2)
        memory.push_error = None
        assert (await pushing).pushed == 1
    assert len(session.records) == 1


async def test_wait_returns_when_everything_is_applied(client, session, memory):
    memory.apply_at_once = False
    waiting = asyncio.create_task(
        client.sessions.push(session.id, [CANDLE], wait=True, wait_interval=0.01)
    )
    await wait_for(lambda: session.waiting)
    await asyncio.sleep(0.1)
    assert not waiting.done()
    memory.apply(session.id)
    assert (await waiting).queue_size == 1


# -- generate -----------------------------------------------------------------------


async def test_sampling_is_passed_on(bridge, session, memory):
    body = {
        "prompt": "p",
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": "x",
        "clear_after": 1,
    }
    async with httpx.AsyncClient() as http:
        response = await http.post(f"{bridge}/v1/sessions/{session.id}/generate", json=body)
    assert response.status_code == 200
    [(prompt, options)] = memory.prompts
    assert prompt == "p"
    assert (options.max_tokens, options.temperature, options.top_p) == (7, 0.5, 0.9)
    assert (options.seed, options.stop) == (3, ("x",))
    assert options.clear_after


@pytest.mark.parametrize(("asked", "cleared"), [(None, True), (True, True), (0, False)])
async def test_whether_a_generation_stays_is_passed_on(bridge, session, memory, asked, cleared):
    body = {"prompt": "p"} | ({} if asked is None else {"clear_after": asked})
    async with httpx.AsyncClient() as http:
        before = memory.get(session.id).n_tokens
        response = await http.post(f"{bridge}/v1/sessions/{session.id}/generate", json=body)
    [(_, options)] = memory.prompts
    assert options.clear_after is cleared
    assert (response.json()["total_tokens"] == before) is cleared


@pytest.mark.parametrize(
    ("size", "window"), [(0, WindowSpec("grow")), (100, WindowSpec("exact", 100))]
)
async def test_a_window_size_is_an_exact_window(client, memory, size, window):
    created = await client.sessions.create(type="ohlcv", window_size=size)
    assert memory.held[created.session_id].spec.window == window
    assert created.window_size == size
    status = await client.sessions.stream_status(created.session_id)
    assert status.streaming.window_size == size


async def test_a_generation_that_fails_at_once_is_a_plain_error(client, session, memory):
    memory.fails_after = 1
    with pytest.raises(APIStatusError) as failed:
        await client.sessions.query_stream(session.id, prompt="p")
    assert failed.value.code == "internal_error"


async def test_a_generation_that_fails_later_ends_with_an_error_frame(bridge, session, memory):
    memory.fails_after = 3
    body = {"prompt": "p", "stream": True}
    async with httpx.AsyncClient() as http:
        response = await http.post(f"{bridge}/v1/sessions/{session.id}/generate", json=body)
    *tokens, last = [json.loads(part[6:]) for part in response.text.split("\n\n") if part]
    assert [token["token"] for token in tokens] == ["The", " trend"]
    assert last["error"]["message"] == "the engine is gone"


async def test_a_stream_is_tokens_then_done_and_ascii(bridge, session):
    body = {"prompt": "p", "stream": True}
    async with httpx.AsyncClient() as http:
        response = await http.post(f"{bridge}/v1/sessions/{session.id}/generate", json=body)
    assert response.content.isascii()
    *tokens, done = [json.loads(part[6:]) for part in response.text.split("\n\n") if part]
    assert [set(token) for token in tokens] == [{"text", "token", "pos"}] * 4
    assert done["done"] is True
    assert done["text"] == "".join(token["text"] for token in tokens) == "The trend is \u2028up"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_its_generation(bridge, session, memory, stream):
    memory.piece_gate = asyncio.Event()
    async with httpx.AsyncClient() as http:
        request = http.post(
            f"{bridge}/v1/sessions/{session.id}/generate", json={"stream": stream}, timeout=60
        )
        asking = asyncio.create_task(request)
        await wait_for(lambda: memory.generating == 1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await wait_for(lambda: memory.generating == 0)


async def test_a_fast_answer_is_only_of_the_present_version(client, session, memory):
    async def ask():
        return await client.sessions.query(session.id, prompt=" up? ", fast_answer=True)

    assert (await ask()).flash is None
    memory.apply(session.id)
    answer = await ask()
    assert (answer.flash, answer.flash_id, answer.text) == (True, 1, "bullish")
    assert (answer.confidence, answer.logit_gap, answer.data_version) == (0.75, 1.5, 1)
    chunks = [
        chunk
        async for chunk in await client.sessions.query_stream(
            session.id, prompt="up?", fast_answer=True
        )
    ]
    assert [chunk.done for chunk in chunks] == [False, True]
    assert chunks[1].text == "bullish"
    memory.answers_at = 0  # the answers are of an older version than the session
    assert (await ask()).flash is None


# -- events and socket ----------------------------------------------------------------


async def test_a_client_that_leaves_its_events_is_forgotten(client, session, memory):
    events = await client.sessions.events(session.id)
    assert (await anext(events)).type == "connected"
    assert len(session.subscribers) == 1
    await events.close()
    await wait_for(lambda: not session.subscribers)


async def test_the_events_end_with_the_session(client, session, memory):
    events = await client.sessions.events(session.id)
    await memory.delete(session.id)
    assert [event.type async for event in events] == ["connected"]


async def test_push_ack_precedes_the_events_of_the_push(socket, session):
    for _ in range(3):
        await socket.send(json.dumps({"type": "push", "data": [CANDLE]}))
    got = await frames(socket, 9)
    for version in (1, 2, 3):
        ack = next(
            i
            for i, f in enumerate(got)
            if f["type"] == "push_ack" and f["data"]["total_pushed"] == version
        )
        caused = [
            i
            for i, f in enumerate(got)
            if f["type"] != "push_ack" and f["data"]["data_version"] == version
        ]
        assert len(caused) == 2
        assert ack < min(caused)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "{",
        "[]",
        b"\xff",
        "[" * 50_000,
        '{"type":"dance"}',
        '{"type":"push"}',
        '{"type":"push","data":{}}',
        '{"type":"push","data":[1]}',
        '{"type":"push","data":[{"o":1}]}',
    ],
)
async def test_a_bad_frame_is_an_error_and_the_connection_stays(socket, raw):
    await socket.send(raw)
    await socket.send('{"type":"ping"}')
    error, pong = await frames(socket, 2)
    assert error["type"] == "error"
    assert error["data"]["code"] == 400
    assert error["data"]["message"]
    assert pong["type"] == "pong"


async def test_a_refused_push_on_a_socket_is_an_error_frame(socket, memory):
    memory.push_error = Overloaded("the queue is full")
    await socket.send(json.dumps({"type": "push", "data": [CANDLE]}))
    [error] = await frames(socket, 1)
    assert error == {"type": "error", "data": {"message": "the queue is full", "code": 429}}


async def test_an_unforeseen_failure_of_a_push_is_an_error_frame(socket, memory):
    memory.push_error = RuntimeError("secret detail")
    await socket.send(json.dumps({"type": "push", "data": [CANDLE]}))
    await socket.send('{"type":"ping"}')
    error, pong = await frames(socket, 2)
    assert error["data"]["code"] == 500
    assert "secret" not in error["data"]["message"]
    assert pong["type"] == "pong"


async def test_close_ends_the_connection(socket, session):
    await socket.send('{"type":"close"}')
    with pytest.raises(websockets.ConnectionClosedOK):
        await asyncio.wait_for(socket.recv(), 5)
    await wait_for(lambda: not session.subscribers)


async def test_a_reader_that_fell_behind_is_told_to_come_again(socket, session):
    session.subscribers[0].put_nowait(None)
    with pytest.raises(websockets.ConnectionClosed) as closed:
        await asyncio.wait_for(socket.recv(), 5)
    assert closed.value.rcvd.code == 1013


async def test_a_refused_upgrade_is_plain_http(bridge, session):
    url = bridge.replace("http", "ws")
    for path, headers, status in [
        ("/v1/sessions/none/ws", {}, 404),
        ("/other", {}, 404),
        (f"/v1/sessions/{session.id}/ws", {"Origin": "https://evil.example"}, 403),
    ]:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(url + path, additional_headers=headers)
        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.body)["error"]["message"]
    assert session.subscribers == []


@pytest.mark.client("layerscale 0.8.0 (PyPI)", "sessions.ws")
async def test_client_08_is_told_that_it_needs_a_key(serve, memory, session):
    key = new_key()
    settings = BridgeSettings(keys=Keys({"": [key_hash(key.encode())]}))
    url = f"http://127.0.0.1:{(await serve(settings)).port}"
    async with v08.AsyncLayerScale(base_url=url) as stranger:
        with pytest.raises(v08.AuthenticationError):
            await stranger.sessions.get(session.id)
        with pytest.raises(v08.AuthenticationError) as refused:
            async with stranger.sessions.ws(session.id):
                pass
        assert refused.value.code == "invalid_api_key"
    async with v08.AsyncLayerScale(base_url=url, api_key=key) as known:
        assert (await known.sessions.get(session.id)).id == session.id
        async with known.sessions.ws(session.id) as socket:
            assert (await anext(aiter(socket))).type == "connected"
