"""A topic whose offsets have holes, replayed: transactions that were committed, that were
aborted, and their markers, one of which is the last there is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from brokers import NEEDS_KAFKA

from flashfeed.cli.main import main

from apache_kafka import kafka_node
from plant import create

pytestmark = [pytest.mark.broker, pytest.mark.model, NEEDS_KAFKA]

CONFIG = """
[kafka]
brokers = "{brokers}"
group = "g"
[engine]
context_tokens = 1024
threads = 1
[feeds.room]
topics = ["room"]
template = "sensor"
model = "iot"
key = "n"
map = {{ sid = "n", val = "v" }}
[templates.sensor]
type = "iot"
window = {{ items = 4 }}
[[templates.sensor.flash]]
query = "Is it warm?"
choices = ["yes", "no"]
"""
EACH = 3


class Room(NamedTuple):
    config: Path
    offsets: list[int]
    """Of the records that were committed."""


async def write(brokers: str) -> list[int]:
    """Three readings a transaction; the second and the last are aborted."""
    await create(brokers, "room", 1)
    offsets: list[int] = []
    producer = AIOKafkaProducer(bootstrap_servers=brokers, transactional_id="source")
    await producer.start()
    for transaction, kept in enumerate((True, False, True, True, False)):
        await producer.begin_transaction()
        for number in range(EACH):
            value = orjson.dumps({"n": "a", "v": 10 * transaction + number})
            sent = await producer.send_and_wait("room", value, partition=0)
            offsets += [sent.offset] * kept
        await (producer.commit_transaction() if kept else producer.abort_transaction())
    await producer.stop()
    return offsets


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    home = tmp_path_factory.mktemp("room")
    config = home / "flashfeed.toml"
    with kafka_node(home) as node:
        config.write_text(CONFIG.format(brokers=node.plain))
        yield Room(config, asyncio.run(write(node.plain)))


def replayed(room: Room, out: Path, *args: str) -> list[int]:
    """The offsets that versions answered, in their order."""
    with pytest.raises(SystemExit) as ended:
        main(["replay", "-c", str(room.config), "--out", str(out), *args])
    assert not ended.value.code
    events: list[dict[str, Any]] = [orjson.loads(one) for one in out.read_bytes().splitlines()]
    updates = [one["data"] for one in events if one["event"].endswith("data_updated")]
    return [origin["last"] for one in updates for origin in one["origins"]]


def test_what_was_committed_is_replayed_to_the_end_and_nothing_else(
    room: Room, tmp_path: Path
) -> None:
    assert max(room.offsets) > len(room.offsets) + EACH  # there are holes, and more behind them
    assert replayed(room, tmp_path / "all", "--from", "1h") == room.offsets


def test_a_range_may_begin_and_end_in_a_hole(room: Room, tmp_path: Path) -> None:
    hole = room.offsets[EACH - 1] + 1  # the marker behind the first transaction
    assert hole not in room.offsets
    last = room.offsets[-1] + 2
    begin, end = f"room:0:{hole}", f"room:0:{hole + 1}"
    rest = replayed(
        room, tmp_path / "rest", "--from-offset", begin, "--to-offset", f"room:0:{last}"
    )
    assert rest == room.offsets[EACH:]
    assert (
        replayed(room, tmp_path / "one", "--from", "1h", "--to-offset", end)
        == (room.offsets[:EACH])
    )
