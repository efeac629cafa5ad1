"""cryptofeed's own values through its own Kafka backend, in a process that has cryptofeed.

`python cryptofeed_producer.py BROKER NUMERIC KIND...`: reads JSON lines from standard input,
each the fields of a value of the kind with its place (candles, trades, ticker), and sends
them as the backend does, with `numeric_type` NUMERIC (float or str).
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from cryptofeed.backends.kafka import CandlesKafka, TickerKafka, TradeKafka
from cryptofeed.types import Candle, Ticker, Trade

KINDS: dict[str, tuple[Any, Any]] = {
    "candles": (CandlesKafka, Candle),
    "trades": (TradeKafka, Trade),
    "ticker": (TickerKafka, Ticker),
}


async def send(broker: str, numeric: str, kind: str, values: list[dict[str, Any]]) -> None:
    callback, type_ = KINDS[kind]
    backend = callback(bootstrap_servers=broker, numeric_type={"float": float, "str": str}[numeric])
    backend.start(asyncio.get_running_loop())
    for fields in values:
        await backend(type_.from_dict(fields), 1672515790.25)
    await backend.queue.join()
    await backend.stop()
    await backend.worker


async def main(broker: str, numeric: str, *kinds: str) -> None:
    for kind, line in zip(kinds, sys.stdin, strict=True):
        await send(broker, numeric, kind, json.loads(line))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
