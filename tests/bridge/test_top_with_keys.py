"""What `flashfeed top` reads where keys are set: with one, without, and with open metrics."""

from __future__ import annotations

from typing import Any

import httpx

from flashfeed.bridge.keys import Keys, key_hash
from flashfeed.bridge.settings import BridgeSettings
from flashfeed.cli.top import WorkerReader, read_all

KEYS = Keys({"a": [key_hash(b"first")], "b": [key_hash(b"second")]})


async def read(port: int, key: str) -> Any:
    async with httpx.AsyncClient() as http:
        return await read_all([WorkerReader(http, f"http://127.0.0.1:{port}", key)], rows=5)


async def test_a_key_shows_its_tenants_sessions(serve: Any, memory: Any) -> None:
    server = await serve(BridgeSettings(keys=KEYS))
    async with httpx.AsyncClient(headers={"x-api-key": "first"}) as http:
        url = f"http://127.0.0.1:{server.port}/v1/sessions/init"
        body = {"type": "iot", "prompt": "p", "flash": [{"query": "Up?"}]}
        made = (await http.post(url, json=body)).json()["session_id"]
    mine, others, nobodys = [await read(server.port, key) for key in ("first", "second", "")]
    assert [one.session_id for one in mine.sessions] == [made]
    assert mine.workers[0].now.sessions == 1
    assert not others.sessions
    assert others.workers[0].now.sessions == 0
    assert nobodys.workers[0].now is None
    assert "key" in nobodys.workers[0].problem


async def test_open_metrics_are_the_workers_whatever_the_key(serve: Any, memory: Any) -> None:
    server = await serve(BridgeSettings(keys=KEYS, metrics_open=True))
    view = await read(server.port, "first")
    assert view.workers[0].now is not None
    assert view.workers[0].now.sessions is None  # a tenant's own page has 0
