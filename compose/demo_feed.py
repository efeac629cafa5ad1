"""Somebody's existing topics, for `docker compose --profile demo`: real candles and glucose
readings, written as cryptofeed and Telegraf write them, at a steady rate."""

from __future__ import annotations

import argparse
import asyncio

from flashfeed.cli.demo_feed import create_source_topics, replay, source_records


async def feed(brokers: str, records: int, rate: float) -> int:
    """Make the topics where they are missing, write `records` of each stream, `rate` a second
    in all; how many were written."""
    written: list[object] = []
    await create_source_topics(brokers)
    await replay(brokers, list(source_records(records)), rate, lambda *one: written.append(one))
    return len(written)


def main() -> None:
    """Write the feed once."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--brokers", required=True, help="host:port[,host:port...]")
    options.add_argument("--records", type=int, default=1000, help="of each of five streams (1000)")
    options.add_argument("--rate", type=float, default=1.0, help="records a second (1); 0: at once")
    given = options.parse_args()
    count = asyncio.run(feed(given.brokers, given.records, given.rate))
    print(f"{count} records written", flush=True)


if __name__ == "__main__":
    main()
