"""What holds for every route: errors in one envelope, keys, sizes, health, metrics."""

import asyncio
import json
import time

import httpx
import pytest
import websockets

from flashfeed.bridge.app import create_app
from flashfeed.bridge.server import BridgeServer
from flashfeed.bridge.settings import BridgeSettings
from flashfeed.models.errors import ConfigError, EngineError, Overloaded, SessionFailed, Unavailable
from flashfeed.models.session import SessionSpec

CANDLE = {"o": 1, "h": 2, "l": 0.5, "c": 1.5, "v": 10}
PUSH = {"data": [CANDLE]}
PUSH_PATH = "/v1/sessions/s1/stream/push"


@pytest.fixture
async def http(bridge, memory):
    await memory.create(SessionSpec(type="ohlcv"))
    async with httpx.AsyncClient(base_url=bridge, timeout=10) as client:
        yield client


def envelope(response):
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["code"], str)
    return error


async def wait_for(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_health_and_metrics(http, memory):
    for path, status in (("/health", "ok"), ("/healthz", "ok"), ("/v1/health", "OK")):
        response = await http.get(path)
        assert (response.status_code, response.json()["status"]) == (200, status)
    memory.ready = False
    for path in ("/health", "/healthz", "/v1/health"):
        response = await http.get(path)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.json()["status"] == ("Error" if path == "/v1/health" else "unavailable")
    metrics = await http.get("/metrics")
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert metrics.text.startswith("flashfeed_up 1\n")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "route_not_found"),
        ("POST", "/v1/messages/", 404, "route_not_found"),
        ("GET", "/v1/messages", 405, "method_not_allowed"),
        ("GET", "/v1/sessions/", 404, "route_not_found"),
        ("PUT", "/v1/sessions", 405, "method_not_allowed"),
        ("GET", "/v1/sessions/none/state", 404, "session_not_found"),
        ("GET", "/v1/sessions/none/events", 404, "session_not_found"),
        ("GET", "/v1/sessions/none/stats", 404, "session_not_found"),
        ("DELETE", "/v1/sessions/none", 404, "session_not_found"),
        ("DELETE", "/v1/sessions/s1/flash/9", 404, "flash_query_not_found"),
        ("DELETE", "/v1/sessions/s1/flash/x", 400, "invalid_request_error"),
    ],
)
async def test_refusals_are_in_the_envelope(http, method, path, status, code):
    response = await http.request(method, path)
    assert (response.status_code, envelope(response)["code"]) == (status, code)


@pytest.mark.parametrize(
    ("path", "body", "param", "says"),
    [
        ("/v1/sessions/init", {}, "type", "required"),
        ("/v1/sessions/init", {"type": "tea"}, "type", "ohlcv"),
        ("/v1/sessions/init", {"type": "iot", "window_size": -1}, "window_size", "greater"),
        ("/v1/sessions/init", {"type": "iot", "pre_decode": True}, "pre_decode", "not supported"),
        ("/v1/sessions/init", {"type": "iot", "flash": [{}]}, "flash.0.query", "required"),
        (
            "/v1/sessions/init",
            {"type": "iot", "flash": [{"query": "q", "choices": ["one"]}]},
            "flash.0.choices",
            "2 to 16",
        ),
        ("/v1/sessions/init", {"type": "iot", "prompt": "\ud800"}, "prompt", ""),
        ("/v1/sessions/s1/generate", {"max_tokens": 0}, "max_tokens", "greater"),
        ("/v1/sessions/s1/generate", {"messages": [{}]}, "messages.0.role", "str"),
        ("/v1/sessions/s1/generate", {"messages": []}, "messages", "length >= 1"),
        ("/v1/sessions/s1/generate", {"messages": [{}], "prompt": "p"}, "prompt", "both"),
        ("/v1/sessions/s1/generate", {"tools": [{}]}, "tools.0.name", "str"),
        ("/v1/sessions/s1/generate", {"top_k": 4}, "top_k", "not known here"),
        (
            "/v1/sessions/s1/generate",
            {"messages": [{"role": "user"}], "fast_answer": True},
            "fast_answer",
            "messages",
        ),
        ("/v1/sessions/s1/generate", {"gap_threshold": -1}, "gap_threshold", "greater"),
        (
            "/v1/sessions/s1/generate",
            {"reasoning_effort": "high"},
            "reasoning_effort",
            "without thinking",
        ),
        (
            "/v1/sessions/s1/warm",
            {"messages": [], "chat_template_kwargs": {"enable_thinking": True}},
            "chat_template_kwargs.enable_thinking",
            "only false",
        ),
        (
            "/v1/sessions/s1/warm",
            {"messages": [], "chat_template_kwargs": {"date_string": "today"}},
            "chat_template_kwargs.date_string",
            "no such value",
        ),
        ("/v1/sessions/s1/warm", {"messages": []}, "messages", "one at least"),
        ("/v1/sessions", {"id": "no spaces"}, "id", "pattern"),
        ("/v1/sessions", {"window": 0}, "window", "greater"),
        ("/v1/sessions/s1/push", {"data": []}, "data", "one text at least"),
        ("/v1/sessions/s1/append", {}, "text", "required"),
        ("/v1/sessions/s1/flash", {"query": "q", "max_tokens": "4"}, "max_tokens", "integer"),
        (
            "/v1/sessions/init",
            {"type": "iot", "flash": [{"query": "q", "max_tokens": 513}]},
            "flash.0.max_tokens",
            "512",
        ),
        (PUSH_PATH, {"data": [CANDLE, {"o": 1}]}, "data[1]", "`h`"),
        (PUSH_PATH, {"data": [CANDLE | {"c": "x"}]}, "data[0].c", "float"),
        (PUSH_PATH, {"data": [1]}, "data[0]", "object"),
        (PUSH_PATH, {"dat": []}, "$", "data"),
        (PUSH_PATH, [], "$", "data"),
    ],
)
async def test_a_wrong_request_is_a_400_that_names_the_field(http, path, body, param, says):
    response = await http.post(
        path, content=json.dumps(body), headers={"content-type": "application/json"}
    )
    error = envelope(response)
    assert response.status_code == 400
    assert error["param"] == param
    assert says in error["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"data":[{"c":NaN}]}', b"[" * 100_000, b'{"data":["\xff"]}']
)
@pytest.mark.parametrize("path", [PUSH_PATH, "/v1/sessions/init"])
async def test_what_is_no_json_is_a_400(http, path, body):
    response = await http.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    envelope(response)


@pytest.mark.parametrize("path", [PUSH_PATH, "/v1/sessions/init"])
async def test_a_page_cannot_post_plain_text(http, path):
    body = json.dumps(PUSH if path == PUSH_PATH else {"type": "iot"})
    response = await http.post(path, content=body, headers={"content-type": "text/plain"})
    assert response.status_code == 400
    envelope(response)


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (Overloaded("the queue is full"), 429, "1"),
        (Unavailable("rebuilding"), 503, "1"),
        (SessionFailed("failed"), 409, None),
        # What may have been written must not look like something to send again.
        (EngineError("broken"), 424, None),
        (RuntimeError("anything"), 424, None),
    ],
)
async def test_a_failed_push_is_repeated_only_when_nothing_was_written(
    http, memory, error, status, retry_after
):
    memory.push_error = error
    response = await http.post(PUSH_PATH, json=PUSH)
    assert response.status_code == status
    assert response.headers.get("retry-after") == retry_after
    assert "anything" not in envelope(response)["message"]


async def test_a_failed_push_with_a_key_may_be_repeated(http, memory):
    memory.push_error = EngineError("broken")
    response = await http.post(PUSH_PATH, json=PUSH, headers={"Idempotency-Key": "k"})
    assert response.status_code == 500


async def test_an_idempotency_key_is_passed_on(http, memory):
    for _ in range(2):
        response = await http.post(PUSH_PATH, json=PUSH, headers={"Idempotency-Key": "k1"})
        assert response.json()["pushed"] == 1
    assert len(memory.held["s1"].records) == 1
    too_long = await http.post(PUSH_PATH, json=PUSH, headers={"Idempotency-Key": "k" * 201})
    assert too_long.status_code == 400


async def test_a_session_whose_prefix_cannot_be_marked_goes_again(http, memory):
    memory.mark_error = Unavailable("not now")
    response = await http.post("/v1/sessions/init", json={"type": "iot", "mark_prefix": True})
    assert response.status_code == 503
    assert list(memory.held) == ["s1"]


async def test_a_body_too_large_is_a_413(serve, memory):
    await memory.create(SessionSpec(type="ohlcv"))
    server = await serve(BridgeSettings(body_bytes_max=1000))
    url = f"http://127.0.0.1:{server.port}{PUSH_PATH}"
    body = json.dumps({"data": [CANDLE] * 100}).encode()

    async def in_parts():
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    async with httpx.AsyncClient() as client:
        for content in (body, in_parts()):
            headers = {"content-type": "application/json"}
            response = await client.post(url, content=content, headers=headers)
            assert (response.status_code, envelope(response)["code"]) == (413, "content_too_large")
    assert memory.held["s1"].records == []


async def test_openapi_describes_the_main_routes(http):
    document = (await http.get("/openapi.json")).json()
    push = document["paths"]["/v1/sessions/{session_id}/stream/push"]["post"]
    assert push["requestBody"]["content"]["application/json"]["example"]["data"][0]["sym"] == "AAPL"
    assert push["parameters"][-1]["name"] == "Idempotency-Key"
    assert document["components"]["schemas"]["CreateBody"]["examples"][0]["type"] == "ohlcv"
    assert "HTTPBearer" in document["components"]["securitySchemes"]


async def test_an_address_in_use_is_a_config_error(serve, memory):
    server = await serve()
    with pytest.raises(ConfigError, match=str(server.port)):
        await BridgeServer(create_app(memory), "127.0.0.1", server.port).start()


async def test_stop_does_not_wait_for_streams_or_generations(memory):
    await memory.create(SessionSpec(type="ohlcv"))
    memory.piece_gate = asyncio.Event()
    server = BridgeServer(create_app(memory), "127.0.0.1", 0)
    await server.start()
    url = f"127.0.0.1:{server.port}/v1/sessions/s1"
    async with (
        httpx.AsyncClient() as client,
        client.stream("GET", f"http://{url}/events") as events,
        websockets.connect(f"ws://{url}/ws") as socket,
    ):
        assert events.status_code == 200
        waiting = asyncio.create_task(client.post(f"http://{url}/generate", json={}))
        await asyncio.wait_for(socket.recv(), 5)
        await wait_for(lambda: memory.generating == 1)
        async with asyncio.timeout(2):
            await server.stop()
            assert (await waiting).status_code == 503
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
            assert "event: connected" in [line async for line in events.aiter_lines()]
    assert memory.held["s1"].subscribers == []
    assert memory.generating == 0


async def test_a_sockets_idempotency_key_is_bounded_as_the_header_is(memory):
    """A session remembers its last keys, and writes them with every step."""
    await memory.create(SessionSpec(type="ohlcv"))
    server = BridgeServer(create_app(memory), "127.0.0.1", 0)
    await server.start()
    push = {"type": "push", "data": [{"o": 1, "h": 2, "l": 0.5, "c": 1.5, "v": 9}]}
    async with websockets.connect(f"ws://127.0.0.1:{server.port}/v1/sessions/s1/ws") as socket:
        await socket.recv()
        for length, answer in ((201, "error"), (200, "push_ack")):
            await socket.send(json.dumps(push | {"idempotency_key": "k" * length}))
            assert json.loads(await socket.recv())["type"] == answer
    await server.stop()


async def test_answers_do_not_wait_for_delayed_acknowledgements(http):
    took = []
    for _ in range(20):
        began = time.perf_counter()
        await http.get("/v1/sessions")
        took.append(time.perf_counter() - began)
    # With Nagle's algorithm on, nearly all of them take 40 ms and more.
    assert sorted(took)[10] < 0.035
