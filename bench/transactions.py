"""What transactions cost: records a second into sessions' changelogs on one Apache Kafka node.

A worker whose engine answers at once (transport_worker.py) applies the same records with
`kafka.transactions` and without. Rounds interleave; the median of the rounds' ratios counts.

    with_over_without   records a second with transactions over those without

Reported, and without a bound: a transaction takes all steps that wait, so that the more
sessions are busy the less it costs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import tempfile
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from transport import fill, side_in_process
from transport_worker import applied_run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from apache_kafka import kafka_node

RECORDS, SYMBOLS, ROUNDS = 60_000, 32, 3
TOPIC = "candles"
SIDES = ("with", "without")


async def filled(broker: str) -> None:
    """Make the topic, and write the records."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, 1, 1)])
    await admin.close()
    await fill(broker, TOPIC, SYMBOLS, RECORDS)


def main() -> None:
    if len(sys.argv) == 3:
        logging.disable(logging.CRITICAL)
        side, broker = sys.argv[1:]
        more = f"transactions = {'true' if side == 'with' else 'false'}"
        done = asyncio.run(applied_run(broker, TOPIC, RECORDS, partitions=4, kafka=more))
        sys.__stdout__.write(f"{done.rate}\n")
        sys.__stdout__.flush()
        return
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as home, kafka_node(Path(home)) as node:
        asyncio.run(filled(node.plain))
        for number in range(ROUNDS):
            order = SIDES if number % 2 else SIDES[::-1]
            rounds.append({side: side_in_process(__file__, side, node.plain) for side in order})
            print(*(f"{side} {rounds[-1][side]:,.0f}" for side in SIDES), file=sys.stderr)
    ratio = statistics.median(one["with"] / one["without"] for one in rounds)
    rates = {side: round(statistics.median(one[side] for one in rounds)) for side in SIDES}
    print(json.dumps({"bench": "transactions", "with_over_without": round(ratio, 3), **rates}))


if __name__ == "__main__":
    main()
