"""Somebody's existing feed, for the demo: real candles and readings, as others write them.

First the history (as much as fits the time), then records one by one at a steady rate.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from aiokafka import AIOKafkaProducer

from .demo_board import Sent
from .sample_data import candles, cryptofeed_json, glucose, telegraf_json

SYMBOLS = ("AAPL", "IBM", "MSFT", "GOOG")


class SourceRecord(NamedTuple):
    """A record as its producer writes it, and which session it will come to."""

    topic: str
    key: bytes
    value: bytes
    session: str
    shown: str


def source_records(each: int) -> Iterator[SourceRecord]:
    """`each` records of every symbol and of the sensor, in turn."""
    streams = [_candle_stream(symbol) for symbol in SYMBOLS] + [_reading_stream()]
    for records in itertools.islice(zip(*streams, strict=False), each):
        yield from records


def _candle_stream(symbol: str) -> Iterator[SourceRecord]:
    for row in candles(symbol):
        value = cryptofeed_json(symbol, row)
        day = time.strftime("%Y-%m-%d", time.gmtime(row["start"]))
        shown = f"{day} close {row['close']:.2f}"
        session = f"NASDAQ:{symbol}-USD:1d"
        yield SourceRecord(f"candles-NASDAQ-{symbol}-USD", b"candles", value, session, shown)


def _reading_stream() -> Iterator[SourceRecord]:
    for row in glucose():
        when = time.strftime("%m-%d %H:%M", time.gmtime(row["timestamp"]))
        shown = f"{when} {row['glucose']:.0f} mg/dL"
        yield SourceRecord("telegraf", b"cgm-01", telegraf_json(row), "cgm-01", shown)


async def create_source_topics(brokers: str) -> None:
    """The topics that the feed's owner has already."""
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    names = [f"candles-NASDAQ-{symbol}-USD" for symbol in SYMBOLS] + ["telegraf"]
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1) for name in names])
    finally:
        await admin.close()


async def replay(
    brokers: str,
    records: list[SourceRecord],
    rate: float,
    note: Callable[[tuple[str, int, int], Sent], None],
    history: int = 0,
) -> None:
    """Write the records: the first `history` at once, as a feed that has run for a while
    holds them, the others `rate` a second (0: at once too). Each is noted when Kafka has
    it; the time that latency runs from is taken before the send."""
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await producer.start()
    try:
        for record in records[:history]:
            await _send(producer, record, note, live=False)
        began = time.monotonic()
        for place, record in enumerate(records[history:]):
            if rate:
                await asyncio.sleep(max(0.0, began + place / rate - time.monotonic()))
            await _send(producer, record, note, live=True)
    finally:
        await producer.stop()


async def _send(
    producer: AIOKafkaProducer,
    record: SourceRecord,
    note: Callable[[tuple[str, int, int], Sent], None],
    *,
    live: bool,
) -> None:
    at = time.time()
    meta = await producer.send_and_wait(record.topic, record.value, key=record.key)
    sent = Sent(record.session, record.shown, at, live)
    note((meta.topic, meta.partition, meta.offset), sent)
