"""Live bars through a real worker: what the model holds after many rewinds is what it holds
where nothing was ever rewound (invariant 5)."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from confluent_kafka import Producer

from flashfeed.cli.embedded_broker import embedded_broker, free_port
from flashfeed.cli.worker_process import wait_until_ready, worker_process

pytestmark = [pytest.mark.broker, pytest.mark.model]

CONFIG = """
[kafka]
brokers = "{brokers}"
[bridge]
port = {port}
[engine]
context_tokens = 1024
[feeds.live]
topics = ["trades-*"]
preset = "cryptofeed_trades"
template = "live"
session = "live-{{key}}"
[feeds.waits]
topics = ["trades-*"]
preset = "cryptofeed_trades"
template = "waits"
session = "waits-{{key}}"
[feeds.klines]
topics = ["klines"]
preset = "binance_klines"
final = "next"
template = "candles"
session = "klines-{{key}}"
[templates.live]
text = "ohlcv_numbers"
type = "ohlcv"
live = true
bars = {{ size = "1m" }}
[[templates.live.flash]]
query = "Is the trend up or down?"
choices = ["up", "down"]
calibrate = false
[templates.candles]
text = "ohlcv_numbers"
type = "ohlcv"
live = true
[templates.waits]
text = "ohlcv_numbers"
type = "ohlcv"
bars = {{ size = "1m" }}
"""
START = 1672515780
PRICES = (100.0, 101.5, 99.25, 103.0, 104.5, 98.0, 97.5, 110.0)
SECONDS = (0, 20, 40, 61, 90, 125, 150, 185)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    home: Path = tmp_path_factory.mktemp("live-bars")
    with embedded_broker() as brokers:
        send(brokers, "trades-X", [])
        send(brokers, "klines", [])
        port = free_port()
        config, log = home / "worker.toml", home / "worker.log"
        config.write_text(CONFIG.format(brokers=brokers, port=port))
        with worker_process(config, log) as process:
            wait_until_ready(port, process, log)
            yield brokers, f"http://127.0.0.1:{port}"


def send(brokers: str, topic: str, values: list[dict[str, Any]]) -> None:
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 50})
    for value in values or [{"of no": "feed"}]:
        producer.produce(topic, orjson.dumps(value), b"k")
    assert producer.flush(30) == 0


def trade(exchange: str, number: int) -> dict[str, Any]:
    return {
        "exchange": exchange,
        "symbol": "BTC-USD",
        "side": "buy",
        "amount": 0.5,
        "price": PRICES[number],
        "id": None,
        "type": None,
        "timestamp": float(START + SECONDS[number]),
        "receipt_timestamp": float(START + SECONDS[number]),
    }


def kline(close: str, closed: bool, start: int) -> dict[str, Any]:
    k = {"t": start * 1000, "i": "1m", "o": "1", "h": "9", "l": "1", "c": close, "v": "5"}
    return {"e": "kline", "s": "BNBBTC", "k": {**k, "x": closed}}


def ask(url: str, session: str, what: str) -> dict[str, Any]:
    answer = httpx.get(f"{url}/v1/sessions/{urllib.parse.quote(session, safe='')}/{what}")
    found: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
    return found


def state(url: str, session: str, last: str, version: int = 1) -> dict[str, Any]:
    """A session's state, once its last line is that one and the step that wrote it is over:
    a second look finds the same tokens."""
    deadline = time.monotonic() + 60
    before = -1
    while time.monotonic() < deadline:
        found = ask(url, session, "state")
        if found and candle_lines(found)[-1:] == [last] and found["data_version"] >= version:
            if found["n_tokens"] == before:
                return found
            before = found["n_tokens"]
        time.sleep(0.2)
    raise AssertionError(f"{session}: expected {last!r} at the end, got {found}")


def candle_lines(found: dict[str, Any]) -> list[str]:
    """The lines of the context's data."""
    text: str = found["context_text"]
    return text.partition("<|im_start|>user\n")[2].splitlines()


LIVE_LINES = (
    "BTC-USD 100.00 0.5 open",
    "BTC-USD 101.50 1.0 open",
    "BTC-USD 99.25 1.5 open",
    "103.00 +3.8 0.5 open",
    "104.50 +5.3 1.0 open",
    "98.00 -6.2 0.5 open",
    "97.50 -6.7 1.0 open",
    "110.00 +12.8 0.5 open",
)


def test_line_by_line_or_at_once_the_model_holds_the_same(running: tuple[str, str]) -> None:
    brokers, url = running
    for number, line in enumerate(LIVE_LINES):
        send(brokers, "trades-X", [trade("STEPS", number)])
        stepped = state(url, "live-STEPS:BTC-USD", line, number + 1)
    send(brokers, "trades-X", [trade("ONCE", number) for number in range(len(PRICES))])
    at_once = state(url, "live-ONCE:BTC-USD", LIVE_LINES[-1])
    assert stepped["context_text"] == at_once["context_text"]
    assert stepped["n_tokens"] == at_once["n_tokens"]
    one, other = (
        ask(url, f"live-{name}:BTC-USD", "flash")["flash_queries"][0] for name in ("STEPS", "ONCE")
    )
    assert one["value"] == other["value"]
    assert one["confidence"] == pytest.approx(other["confidence"], abs=0.01)
    # What is final is what a session that waits has.
    waits = state(url, "waits-STEPS:BTC-USD", "97.50 -6.7 1.0")
    assert candle_lines(stepped)[:-1] == candle_lines(waits)
    metrics = httpx.get(f"{url}/metrics").text
    counted = {
        name: float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        for name in ("final", "live")
        if line.startswith(f'flashfeed_candles_total{{result="{name}"}}')
    }
    assert counted["final"] >= 12 and counted["live"] >= 16


def test_klines_with_a_flag_are_live_by_the_next_ones_start(running: tuple[str, str]) -> None:
    brokers, url = running
    minute = START // 60 * 60
    send(brokers, "klines", [kline("2", False, minute), kline("3", True, minute)])
    assert state(url, "klines-BNBBTC:1m", "BNBBTC 3.00 5.0 open")
    send(brokers, "klines", [kline("4", False, minute + 60)])
    found = state(url, "klines-BNBBTC:1m", "4.00 +33.3 5.0 open")
    assert candle_lines(found) == ["BNBBTC 3.00 5.0", "4.00 +33.3 5.0 open"]
