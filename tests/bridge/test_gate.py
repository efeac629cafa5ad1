"""Who comes in and how much they may bring: keys, origins, limits, sizes, depth, TLS."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from hmac import compare_digest as hmac_compare
from pathlib import Path

import httpx
import orjson
import pytest
import websockets
from fastapi import FastAPI
from hypothesis import find, given
from hypothesis import strategies as st
from starlette.websockets import WebSocket

from flashfeed.bridge.app import create_app
from flashfeed.bridge.caller import admit, allowance_of, is_known, service_of, tenant_of
from flashfeed.bridge.gate import STRANGERS_MAX
from flashfeed.bridge.keys import OPERATOR, Keys, key_hash
from flashfeed.bridge.nesting import JSON_DEPTH_MAX, is_deeper
from flashfeed.bridge.origins import is_loopback
from flashfeed.bridge.server import BridgeServer
from flashfeed.bridge.settings import BridgeSettings
from flashfeed.models.config import LimitsConfig
from flashfeed.models.errors import ConfigError
from flashfeed.models.session import SessionSpec
from flashfeed.models.tenant import session_key

KEYS = Keys({"a": [key_hash(b"first")], "b": [key_hash("sécond".encode())]})
METRICS_KEY = Keys({OPERATOR: [key_hash(b"of-metrics")]})
OPEN = ("/health", "/healthz", "/livez", "/readyz", "/openapi.json", "/docs")


def envelope(response: httpx.Response) -> dict[str, str]:
    error: dict[str, str] = response.json()["error"]
    return error


def client(server: BridgeServer, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", headers=headers)


# -- keys ---------------------------------------------------------------------------


async def test_every_route_but_the_open_ones_wants_a_key(serve, memory):
    server = await serve(BridgeSettings(keys=KEYS))
    async with client(server) as http:
        for path in OPEN:
            assert (await http.get(path)).status_code == 200
        for headers in (
            {},
            {"x-api-key": ""},
            {"x-api-key": "firs"},
            {"authorization": "Bearer"},
            {"authorization": "Bearer wrong"},
            {"authorization": "Basic first"},
            {"authorization": "first"},
            # Keys of two tenants: whose request it is nobody can say.
            {"x-api-key": "first", "authorization": "Bearer sécond".encode()},
        ):
            for path in ("/v1/sessions", "/v1/health", "/metrics", "/v1/none", "/none", "//docs"):
                response = await http.get(path, headers=headers)
                assert response.status_code == 401
                assert response.headers["www-authenticate"] == "Bearer"
                assert envelope(response)["type"] == "authentication_error"


async def test_whoever_needs_no_key_is_told_no_reasons(serve, memory):
    memory.ready = False
    for keys in (KEYS, Keys({})):
        server = await serve(BridgeSettings(keys=keys))
        async with client(server) as http:
            response = await http.get("/readyz")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        check = {"name": "sessions", "ok": False}
        told = check if keys else check | {"reason": "not served yet"}
        assert response.json() == {"status": "unavailable", "checks": [told]}


async def test_a_key_comes_as_clients_send_it_and_tells_the_tenant(serve, memory):
    await memory.create(SessionSpec(type="iot"), session_key("a", "x"))
    await memory.create(SessionSpec(type="iot"), session_key("b", "y"))
    await memory.create(SessionSpec(type="iot"), session_key("b", "z"))
    server = await serve(BridgeSettings(keys=KEYS))
    async with client(server) as http:
        for headers, sessions in (
            ({"x-api-key": "first"}, 1),
            ({"api-key": "first"}, 1),
            ({"authorization": "Bearer first"}, 1),
            ({"authorization": "bearer  first"}, 1),
            ({"x-api-key": "first", "authorization": "Bearer of-something-else"}, 1),
            ({"x-api-key": "first", "authorization": "Bearer first"}, 1),
            ({"x-api-key": "sécond".encode()}, 2),
        ):
            metrics = await http.get("/metrics", headers=headers)
            assert f"flashfeed_sessions {sessions}.0" in metrics.text


async def test_the_metrics_key_opens_the_workers_metrics_and_nothing_else(serve, memory):
    server = await serve(BridgeSettings(keys=KEYS, metrics_key=METRICS_KEY))
    async with client(server) as http:
        for headers in ({"authorization": "Bearer of-metrics"}, {"x-api-key": "of-metrics"}):
            mine = await http.get("/metrics", headers=headers)
            assert mine.text.startswith("flashfeed_up 1\n") and "flashfeed_bridge" in mine.text
            served = (await http.get("/openapi.json")).json()["paths"]
            for path, methods in served.items():
                if path in (*OPEN, "/metrics"):
                    continue
                for method in methods:
                    response = await http.request(method, path, headers=headers)
                    assert response.status_code == 401, (method, path)
            for path in ("/metrics/", "//metrics", "/v1/metrics", "/none"):
                assert (await http.get(path, headers=headers)).status_code == 401, path
        for key in ("", "of-metric", "of-metrics2", "x" * 2000):
            assert (await http.get("/metrics", headers={"x-api-key": key})).status_code == 401
        # A tenant's key beside it: it is the tenant who asks.
        both = {"x-api-key": "first", "authorization": "Bearer of-metrics"}
        for headers in ({"x-api-key": "first"}, both):
            own = await http.get("/metrics", headers=headers)
            assert "flashfeed_sessions 0.0" in own.text
            assert "flashfeed_up" not in own.text and "flashfeed_bridge" not in own.text
    for path in ("/v1/none", "/metrics"):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(
                f"ws://127.0.0.1:{server.port}{path}",
                additional_headers={"x-api-key": "of-metrics"},
            )
        assert refused.value.response.status_code == 401


async def test_the_metrics_key_is_compared_in_constant_time(serve, memory, monkeypatch):
    compared = []

    def compare(one, other):
        compared.append((one, other))
        return hmac_compare(one, other)

    monkeypatch.setattr("flashfeed.bridge.keys.hmac.compare_digest", compare)
    server = await serve(BridgeSettings(keys=KEYS, metrics_key=METRICS_KEY))
    async with client(server) as http:
        await http.get("/metrics", headers={"x-api-key": "guess"})
    # With each that there is, and by the hashes, which are of one length.
    assert len(compared) == 3
    assert {one for one, _ in compared} == {key_hash(b"guess")}
    assert key_hash(b"of-metrics") in {other for _, other in compared}


async def test_where_no_key_is_for_the_metrics_none_opens_them(serve, memory):
    server = await serve(BridgeSettings(keys=KEYS))
    async with client(server) as http:
        assert (await http.get("/metrics", headers={"x-api-key": "of-metrics"})).status_code == 401


async def test_a_websocket_wants_a_key(serve, memory):
    server = await serve(BridgeSettings(keys=KEYS))
    url = f"ws://127.0.0.1:{server.port}/v1/none"
    for headers, status in ({}, 401), ({"x-api-key": "no"}, 401), ({"x-api-key": "first"}, 404):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(url, additional_headers=headers)
        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.body)["error"]["code"] in (
            "invalid_api_key",
            "route_not_found",
        )


async def test_no_key_is_ever_logged(serve, memory, caplog):
    caplog.set_level(logging.DEBUG)
    keys, metrics_key = (Keys({"a": [key_hash(b"s3cret-of-" + one)]}) for one in (b"a", b"metrics"))
    server = await serve(BridgeSettings(keys=keys, metrics_key=metrics_key))
    async with client(server) as http:
        for key in ("s3cret-of-a", "s3cret-of-metrics", "s3cret-of-nobody"):
            for path in ("/v1/sessions", "/metrics", "/none"):
                await http.get(path, headers={"x-api-key": key})
                await http.post(path, headers={"authorization": f"Bearer {key}"}, content=b"{")
        uri = f"ws://127.0.0.1:{server.port}/v1/x"
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(uri, additional_headers={"x-api-key": "s3cret-of-a"})
    # httpx and websockets log what they send themselves; everything else is ours.
    ours = [one for one in caplog.records if not one.name.startswith(("websockets.client", "http"))]
    assert any(one.name == "uvicorn.error" for one in ours)
    assert all("s3cret" not in one.getMessage() + str(one.exc_text) for one in ours)


# -- a protocol that brings the key itself ----------------------------------------


@pytest.fixture
async def login(memory) -> AsyncIterator[BridgeServer]:
    """A bridge whose WebSocket at / logs in by its first message."""
    limits = LimitsConfig(connections=2, requests_per_s=1)
    app = create_app(memory, BridgeSettings(keys=KEYS, limits=limits))
    _add_login(app)
    server = BridgeServer(app, "127.0.0.1", 0)
    await server.start()
    yield server
    await server.stop()


def _add_login(app: FastAPI) -> None:
    async def speak(websocket: WebSocket) -> None:
        await websocket.accept()
        while not is_known(websocket):
            assert allowance_of(websocket) is None
            try:
                service_of(websocket)
            except KeyError:
                await websocket.send_text("who?")
            admit(websocket, await websocket.receive_text())
        await websocket.send_text(f"{tenant_of(websocket)} {len(service_of(websocket).sessions())}")
        async for _ in websocket.iter_text():
            await websocket.send_text("heard")

    app.add_api_websocket_route("/", speak)
    app.router.routes.insert(0, app.router.routes.pop())


async def test_a_socket_at_the_root_may_say_later_who_it_is(login, memory):
    await memory.create(SessionSpec(type="iot"), session_key("b", "y"))
    url = f"ws://127.0.0.1:{login.port}/"
    async with websockets.connect(url) as socket:
        assert await socket.recv() == "who?"
        await socket.send("nobody's key")
        assert await socket.recv() == "who?"
        await socket.send("sécond")
        assert await socket.recv() == "b 1"
        for _ in range(5):  # its own messages are its own to count
            await socket.send("x")
            assert await asyncio.wait_for(socket.recv(), 0.5) == "heard"
    async with websockets.connect(url, additional_headers={"x-api-key": "first"}) as socket:
        assert await socket.recv() == "a 0"


async def test_who_logs_in_by_message_counts_as_a_connection_of_the_tenant(login):
    url = f"ws://127.0.0.1:{login.port}/"
    async with AsyncExitStack() as open_:
        for _ in range(2):
            socket = await open_.enter_async_context(websockets.connect(url))
            await socket.recv()
            await socket.send("first")
            assert (await socket.recv()).startswith("a ")
        async with client(login, **{"x-api-key": "first"}) as http:
            refused = await http.get("/v1/sessions")
            assert refused.status_code == 429
            assert "2 requests and streams at a time (connections)" in envelope(refused)["message"]


async def test_sockets_that_never_log_in_are_bounded(login):
    url = f"ws://127.0.0.1:{login.port}/"
    async with AsyncExitStack() as open_:
        for _ in range(STRANGERS_MAX):
            await open_.enter_async_context(websockets.connect(url))
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(url)
        assert refused.value.response.status_code == 429
        headers = {"x-api-key": "first"}
        async with websockets.connect(url, additional_headers=headers) as socket:
            assert await socket.recv() == "a 0"  # who is known does not wait for them
    await asyncio.sleep(0.1)
    async with websockets.connect(url) as socket:
        assert await socket.recv() == "who?"


# -- limits -------------------------------------------------------------------------


async def test_requests_beyond_the_rate_are_429_and_other_tenants_notice_nothing(serve, memory):
    own = {"a": LimitsConfig(requests_per_s=2)}
    server = await serve(BridgeSettings(keys=KEYS, tenant_limits=own))
    async with client(server) as http:
        as_a, as_b = {"x-api-key": "first"}, {"x-api-key": "sécond".encode()}
        codes = [(await http.get("/v1/models", headers=as_a)).status_code for _ in range(8)]
        assert codes.count(200) in (4, 5) and codes[:4] == [200] * 4 and codes[-1] == 429
        refused = await http.get("/v1/models", headers=as_a)
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert envelope(refused)["code"] == "rate_limit_exceeded"
        message = envelope(refused)["message"]
        assert message == "tenant a may have at most 2 requests a second (requests_per_s)"
        codes = [(await http.get("/v1/models", headers=as_b)).status_code for _ in range(20)]
        assert codes == [200] * 20
        # Nor does a stranger's 401 cost a tenant anything.
        assert (await http.get("/v1/models", headers={"x-api-key": "x"})).status_code == 401
        await asyncio.sleep(float(refused.headers["retry-after"]))
        assert (await http.get("/v1/models", headers=as_a)).status_code == 200


# -- origins ------------------------------------------------------------------------


async def test_cors_is_off_unless_origins_are_named(serve, memory):
    preflight = {
        "origin": "https://app.example.com",
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-api-key,content-type",
    }
    async with client(await serve(BridgeSettings(keys=KEYS))) as http:
        answer = await http.options("/v1/sessions", headers=preflight)
        assert answer.status_code >= 400
        assert not [name for name in answer.headers if name.startswith("access-control")]
    named = BridgeSettings(keys=KEYS, cors_origins=("https://app.example.com",))
    async with client(await serve(named)) as http:
        answer = await http.options("/v1/sessions", headers=preflight)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
        assert "x-api-key" in answer.headers["access-control-allow-headers"]
        refused = await http.get("/v1/sessions", headers={"origin": "https://app.example.com"})
        assert refused.status_code == 401  # and the page can read it
        assert refused.headers["access-control-allow-origin"] == "https://app.example.com"
        other = await http.options("/v1/x", headers={**preflight, "origin": "https://evil.com"})
        assert other.status_code == 400
        assert "access-control-allow-origin" not in other.headers


async def test_without_keys_a_page_of_another_origin_changes_nothing(serve, memory):
    server = await serve(BridgeSettings(cors_origins=("https://app.example.com",)))
    own = f"http://127.0.0.1:{server.port}"
    body = {"type": "iot"}
    async with client(server) as http:
        for origin, status in (
            ("https://evil.example", 403),
            ("null", 403),
            ("http://127.0.0.1:1", 403),
            (own, 200),
            ("https://app.example.com", 200),
        ):
            made = await http.post("/v1/sessions/init", json=body, headers={"origin": origin})
            assert made.status_code == status, origin
    assert len(memory.held) == 2


async def test_without_keys_a_page_that_moved_its_name_here_is_refused(serve, memory):
    """DNS rebinding: the page's own name points at 127.0.0.1, its origin is "the same"."""
    server = await serve()
    async with client(server) as http:
        for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1.evil.example", "["):
            headers = {"host": host, "origin": f"http://{host}"}
            answer = await http.get("/v1/sessions", headers=headers)
            assert (answer.status_code, envelope(answer)["code"]) == (403, "host_refused"), host
        for host in ("localhost", f"localhost:{server.port}", "[::1]:80", "127.0.0.1"):
            assert (await http.get("/v1/sessions", headers={"host": host})).status_code == 200
    async with client(await serve(BridgeSettings(keys=KEYS))) as http:
        headers = {"host": "bridge.example.com", "x-api-key": "first"}
        assert (await http.get("/v1/sessions", headers=headers)).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "example.com", "", "10.0.0.1"])
async def test_without_keys_the_bridge_listens_on_loopback_alone(memory, host):
    with pytest.raises(ConfigError, match=r"bridge.keys_file.*flashfeed keys new"):
        await BridgeServer(create_app(memory), host, 0).start()
    assert not is_loopback(host)


async def test_with_keys_it_listens_anywhere(memory):
    server = BridgeServer(create_app(memory, BridgeSettings(keys=KEYS)), "0.0.0.0", 0)
    await server.start()
    async with client(server) as http:
        assert (await http.get("/v1/sessions")).status_code == 401
    await server.stop()
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")


# -- sizes --------------------------------------------------------------------------


async def test_headers_have_a_bound_that_the_error_names(serve, memory):
    server = await serve(BridgeSettings(header_bytes_max=2000))
    async with client(server) as http:
        for answer in (
            await http.get("/v1/sessions", headers={"x-long": "x" * 2000}),
            await http.get("/v1/sessions", params={"q": "x" * 2000}),
            await http.get("/v1/sessions/" + "x" * 2000 + "/state"),
        ):
            assert (answer.status_code, envelope(answer)["code"]) == (431, "headers_too_large")
            assert "at most 2000 bytes of headers, path and query" in envelope(answer)["message"]
    # A head that does not end is not read on for ever.
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n")
    with pytest.raises(ConnectionError):
        for _ in range(1000):
            writer.write(b"x-more: " + b"x" * 1000 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.002)
        raise AssertionError("a megabyte of headers was read")
    writer.close()


async def test_a_head_that_is_too_large_to_read_is_told_the_bound(serve, memory):
    server = await serve(BridgeSettings(header_bytes_max=2000))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\nx-long: " + b"x" * 5000)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 4") and b"at most 4000 bytes" in answer


async def test_a_head_has_to_come_to_its_end(serve, memory, monkeypatch):
    monkeypatch.setattr("flashfeed.bridge.request_heads.HEAD_TIMEOUT_S", 0.5)
    await memory.create(SessionSpec(type="ohlcv"))
    server = await serve()
    whole = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    for parts in ((b"",), (whole[:20],), (whole[:9], whole[9:20]), (whole, whole[:20])):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.2)
        read = await asyncio.wait_for(reader.read(), 2)
        assert read.count(b"200 OK") == parts.count(whole)
        writer.close()
    # What has begun may take its time: an answer, a stream, a socket, a body.
    memory.piece_gate = asyncio.Event()
    base = f"http://127.0.0.1:{server.port}/v1/sessions/s1"
    async with (
        httpx.AsyncClient() as http,
        http.stream("GET", f"{base}/events") as events,
        websockets.connect(f"ws{base[4:]}/ws") as socket,
    ):
        slow = asyncio.create_task(http.post(f"{base}/generate", json={"prompt": "x"}))
        body = asyncio.create_task(http.post(f"{base}/append", content=dripping(), headers=JSON))
        await asyncio.sleep(1)
        memory.piece_gate.set()
        assert (await slow).status_code == (await body).status_code == 200
        await memory.push("s1", [{"o": 1, "h": 2, "l": 0.5, "c": 1.5, "v": 10}])
        assert json.loads(await socket.recv())["type"] == "connected"
        assert json.loads(await socket.recv())["type"] == "data_updated"
        lines = events.aiter_lines()
        assert await anext(lines) == "event: connected"


JSON = {"content-type": "application/json"}


async def dripping() -> AsyncIterator[bytes]:
    for part in (b'{"text"', b': "', b"x", b'"}'):
        yield part
        await asyncio.sleep(0.25)


async def test_a_frame_has_a_bound(serve, memory):
    await memory.create(SessionSpec(type="ohlcv"))
    server = await serve(BridgeSettings(body_bytes_max=1000))
    url = f"ws://127.0.0.1:{server.port}/v1/sessions/s1/ws"
    async with websockets.connect(url) as socket:
        await socket.recv()
        await socket.send("x" * 1001)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009


@pytest.mark.parametrize("depth", [JSON_DEPTH_MAX + 1, 500, 990, 5000, 200_000])
async def test_a_body_nested_too_deep_is_a_400_that_names_the_bound(serve, memory, depth):
    await memory.create(SessionSpec(type="ohlcv"))
    server = await serve()
    nested = b'{"data":' * (depth // 2) + b"[" * (depth - depth // 2)
    nested += b"]" * (depth - depth // 2) + b"}" * (depth // 2)
    async with client(server, **{"content-type": "application/json"}) as http:
        for path in ("/v1/sessions/init", "/v1/sessions/s1/stream/push", "/v1/sessions/s1/flash"):
            answer = await http.post(path, content=nested)
            assert answer.status_code == 400
            assert f"nested at most {JSON_DEPTH_MAX} deep" in envelope(answer)["message"]


def depth_of(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth_of, inner), default=0)  # type: ignore[arg-type]


texts = st.text(st.sampled_from('[]{}"\\ax\u2028é'), max_size=8)


def nested(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=3))


values = st.recursive(st.one_of(texts, st.integers(-9, 9), st.none()), nested, max_leaves=20)


@given(value=values, indent=st.booleans())
def test_the_depth_is_the_parsed_values(value: object, indent: bool) -> None:
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0)
    depth = depth_of(value)
    assert not is_deeper(text, depth)
    assert depth == 0 or is_deeper(json.dumps(value).encode(), depth - 1)


def test_values_of_many_depths_are_tried() -> None:
    assert find(values, lambda value: depth_of(value) > 4)


@given(st.binary(max_size=200))
def test_what_is_no_json_has_some_depth(junk: bytes) -> None:
    assert is_deeper(junk, 3) in (True, False)


# -- TLS ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("tls")
    cert, key = home / "cert.pem", home / "key.pem"
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=flashfeed"
    files = ["-keyout", str(key), "-out", str(cert), "-addext", names]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return cert, key


async def test_tls(serve, memory, certificate):
    server = await serve(BridgeSettings(keys=KEYS, tls=certificate))
    context = ssl.create_default_context(cafile=str(certificate[0]))
    url = f"https://127.0.0.1:{server.port}"
    async with httpx.AsyncClient(base_url=url, verify=context) as http:
        assert (await http.get("/v1/models", headers={"x-api-key": "first"})).status_code == 200
        assert (await http.get("/v1/models")).status_code == 401
    async with client(server) as plain:
        with pytest.raises(httpx.HTTPError):
            await plain.get("/v1/models")
    old = ssl.create_default_context(cafile=str(certificate[0]))
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((httpx.HTTPError, ssl.SSLError)):
        async with httpx.AsyncClient(base_url=url, verify=old) as http:
            await http.get("/health")


async def test_a_certificate_that_cannot_be_used_is_a_config_error(memory, certificate, tmp_path):
    junk = tmp_path / "junk.pem"
    junk.write_text("nothing")
    cert, key = certificate
    for pair in ((tmp_path / "none.pem", key), (cert, tmp_path / "none"), (junk, key), (key, cert)):
        server = BridgeServer(create_app(memory, BridgeSettings(tls=pair)), "127.0.0.1", 0)
        with pytest.raises(ConfigError, match=r"bridge.tls_cert, bridge.tls_key: cannot use"):
            await server.start()
