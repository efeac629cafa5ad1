"""cryptofeed itself: its values, its Kafka backend and its JSON, read by our presets.

cryptofeed 2.4.1 is the newest that PyPI has for Python 3.11. There are no wheels of it: its
Cython is compiled when it is first fetched, which takes a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer

from flashfeed.codecs.codec import Codec
from flashfeed.codecs.mapping import Mapping, Source
from flashfeed.codecs.presets import codec_of, mapping_spec
from flashfeed.codecs.registry import codec
from flashfeed.models.feed import MappedRecord
from flashfeed.models.records import Iot, Ohlcv, Trade

from client_packages import python_package
from codec_samples import outside

PACKAGES = ("cryptofeed==2.4.1", "yapic.json==1.9.5", "order_book==0.6.1")
PRODUCER = Path(__file__).with_name("cryptofeed_producer.py")
START = 1672515780.0
RECEIVED = 1672515790.25


def candle(symbol: str, closed: bool, timestamp: float | None) -> dict[str, Any]:
    return {
        "exchange": "BINANCE",
        "symbol": symbol,
        "start": START,
        "stop": START + 59.999,
        "interval": "1m",
        "trades": 12,
        "open": "0.00001234",
        "close": "16502.5",
        "high": "16510.125",
        "low": "0.00001",
        "volume": "12345678.5",
        "closed": closed,
        "timestamp": timestamp,
    }


def trade(symbol: str, side: str, id_: str | None) -> dict[str, Any]:
    return {
        "exchange": "COINBASE",
        "symbol": symbol,
        "side": side,
        "amount": "0.25",
        "price": "16500.5",
        "timestamp": START + 0.5,
        "id": id_,
        "type": None,
    }


def ticker(symbol: str, timestamp: float | None) -> dict[str, Any]:
    return {
        "exchange": "KRAKEN",
        "symbol": symbol,
        "bid": "16500",
        "ask": "1.65005E+4",
        "timestamp": timestamp,
    }


def send(broker: str, numeric: str, values: dict[str, list[dict[str, Any]]]) -> None:
    """Have cryptofeed send them."""
    folders = os.pathsep.join(str(python_package(one)) for one in PACKAGES)
    done = subprocess.run(
        [sys.executable, str(PRODUCER), broker, numeric, *values],
        input="\n".join(json.dumps(one) for one in values.values()),
        env={**os.environ, "PYTHONPATH": folders},
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert not done.returncode, done.stderr


def received(broker: str, topic: str, count: int) -> list[tuple[bytes, Source]]:
    """The topic's first messages."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,  # the embedded broker's joins take half of it
        }
    )
    consumer.subscribe([topic])
    try:
        found = consumer.consume(count, timeout=30)
    finally:
        consumer.close()
    assert len(found) == count and not any(one.error() for one in found)
    return [(one.value(), Source(one.key(), topic, one.timestamp()[1])) for one in found]


def mapped(preset: str, messages: list[tuple[bytes, Source]]) -> tuple[list[MappedRecord], int]:
    """What the preset makes of the messages, and how much it skips."""
    mapping = Mapping(mapping_spec(preset, {}))
    read: Codec = codec(*codec_of(preset, "", {}), outside())
    parts = [mapping(value, source) for raw, source in messages for value in read(raw, source)]
    assert not [fault for part in parts for fault in part.faults]
    return [one for part in parts for one in part.records], sum(part.skipped for part in parts)


@pytest.mark.parametrize("numeric", ["float", "str"])
def test_what_cryptofeed_writes_is_read(broker: str, numeric: str) -> None:
    symbol = f"BTC-{numeric.upper()}"
    send(
        broker,
        numeric,
        {
            "candles": [candle(symbol, True, START + 60), candle(symbol, False, None)],
            "trades": [trade(symbol, "buy", "4711"), trade(symbol, "sell", None)],
            "ticker": [ticker(symbol, START + 0.5), ticker(symbol, None)],
        },
    )
    candles = received(broker, f"candles-BINANCE-{symbol}", 2)
    assert [source.key for _, source in candles] == [b"candles", b"candles"]
    prices = {"o": 0.00001234, "h": 16510.125, "l": 0.00001, "c": 16502.5, "v": 12345678.5}
    expected = Ohlcv(**prices, sym=symbol, timestamp=START)
    # The candle that is not closed is skipped.
    closed = [MappedRecord(f"BINANCE:{symbol}:1m", 0, expected)]
    assert mapped("cryptofeed", candles) == (closed, 1)
    trades, skipped = mapped("cryptofeed_trades", received(broker, f"trades-COINBASE-{symbol}", 2))
    assert [one.record for one in trades] == [
        Trade(p=16500.5, q=0.25, side=side, sym=symbol, timestamp=START + 0.5)
        for side in ("buy", "sell")
    ]
    assert {one.key for one in trades} == {f"COINBASE:{symbol}"} and not skipped
    quotes, _ = mapped("cryptofeed_ticker", received(broker, f"ticker-KRAKEN-{symbol}", 2))
    assert [one.record for one in quotes] == [
        Iot(sid=side, val=price, timestamp=time)
        for time in (START + 0.5, RECEIVED)  # where it has no time, cryptofeed gives receipt's
        for side, price in (("bid", 16500.0), ("ask", 16500.5))
    ]
