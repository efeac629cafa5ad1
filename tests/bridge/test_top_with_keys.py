"""What `flashfeed top` reads where keys are set: with one, without, and with the metrics' key."""

from __future__ import annotations

from typing import Any

import httpx

from flashfeed.bridge.keys import OPERATOR, Keys, key_hash
from flashfeed.bridge.settings import BridgeSettings
from flashfeed.cli.top import WorkerReader, read_all

KEYS = Keys({"a": [key_hash(b"first")], "b": [key_hash(b"second")]})


async def read(port: int, key: str, metrics_key: str = "") -> Any:
    async with httpx.AsyncClient() as http:
        worker = WorkerReader(http, f"http://127.0.0.1:{port}", key, metrics_key)
        return await read_all([worker], rows=5)


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


async def test_with_the_metrics_key_the_figures_are_the_workers(serve: Any, memory: Any) -> None:
    server = await serve(BridgeSettings(keys=KEYS, metrics_key=Keys({OPERATOR: [key_hash(b"m")]})))
    view = await read(server.port, "first", "m")
    assert view.workers[0].now is not None
    assert view.workers[0].now.sessions is None  # a tenant's own page has 0
    wrong = await read(server.port, "first", "n")
    assert wrong.workers[0].now is None
    assert "key" in wrong.workers[0].problem
