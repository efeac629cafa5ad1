"""Invariant 7 with the real thing: feeds that are far faster than the engine, each with an
`overflow` of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import orjson
import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import Producer
from layerscale import LayerScale, RateLimitError

from flashfeed.agents.feeds import PACK_RECORDS_MAX
from flashfeed.agents.key_partition import partition_of
from flashfeed.agents.transport import IN_FLIGHT_MAX
from flashfeed.cli.embedded_broker import embedded_broker, free_port
from flashfeed.cli.worker_process import wait_until_ready, worker_process

pytestmark = [pytest.mark.broker, pytest.mark.model]

FEED = """
[feeds.{overflow}]
topics = ["{overflow}"]
model = "iot"
each = "rows[]"
key = "^name"
map = {{ sid = "sid", val = "val" }}
template = "{overflow}"

[templates.{overflow}]
type = "iot"
overflow = "{overflow}"
queue_records = 100
window = {{ mode = "exact", items = 8 }}
flash = [{{ query = "High?", choices = ["yes", "no"] }}]
"""
CONFIG = """
[kafka]
brokers = "{brokers}"
batch_records_max = {batch}
[bridge]
port = {port}
queue_records_max = 200
[engine]
context_tokens = 1024
"""
POLICIES = ("block", "coalesce", "drop_oldest")
BATCH_MESSAGES = 5
QUEUE_MAX = IN_FLIGHT_MAX * BATCH_MESSAGES * PACK_RECORDS_MAX
"""Records that wait in the worker at most, whatever the feed."""
MESSAGE_ROWS = 200


class Running(NamedTuple):
    brokers: str
    url: str


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("overflow")
    with embedded_broker() as brokers:
        for overflow in POLICIES:
            send(brokers, overflow, "none", 1)  # the topic is there when the worker starts
        port = free_port()
        config, log = home / "worker.toml", home / "worker.log"
        text = CONFIG.format(brokers=brokers, port=port, batch=BATCH_MESSAGES)
        config.write_text(text + "".join(FEED.format(overflow=one) for one in POLICIES))
        with worker_process(config, log) as process:
            wait_until_ready(port, process, log)
            yield Running(brokers, f"http://127.0.0.1:{port}")
            assert process.poll() is None, log.read_text()[-3000:]


def session_in(partition: int) -> str:
    """A session's name in that partition: sessions of one wait for one another."""
    names = (f"p{partition}-{number}" for number in range(1000))
    return next(name for name in names if partition_of(name, 4) == partition)


def send(
    brokers: str, topic: str, session: str, count: int, message_rows: int = MESSAGE_ROWS
) -> list[int]:
    """Readings 0, 1, 2 ... of one sensor, in their order; the offsets of their messages."""
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 20})
    offsets: list[int] = []
    for first in range(0, count, message_rows):
        values = range(first, min(first + message_rows, count))
        rows = [{"sid": "a", "val": float(value)} for value in values]
        value = orjson.dumps({"name": session, "rows": rows})
        producer.produce(
            topic, value, partition=0, on_delivery=lambda _, sent: offsets.append(sent.offset())
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    return sorted(offsets)


def status(running: Running, session: str) -> dict[str, Any]:
    """The session's queue and counters, {} where it is not there yet."""
    answer = httpx.get(f"{running.url}/v1/sessions/{session}/stream/status", timeout=60)
    if answer.status_code == 404:
        return {}
    found: dict[str, Any] = answer.json()
    assert found["streaming"]["queue_size"] <= QUEUE_MAX
    return {**found["statistics"], **found["streaming"]}


def context(running: Running, session: str) -> str:
    answer = httpx.get(f"{running.url}/v1/sessions/{session}/state", timeout=60)
    return str(answer.json()["context_text"])


def last_values(text: str, count: int) -> list[float]:
    """The values of the context's last lines: a reading, or the last of those merged."""
    lines = [line.split() for line in text.splitlines()]
    values = [words[1] if words[0] == "a" else words[0] for words in lines if words]
    return [float(one) for one in values if one[0].isdigit()][-count:]


def metric(running: Running, name: str) -> float:
    lines = httpx.get(f"{running.url}/metrics", timeout=60).text.splitlines()
    name, _, label = name.partition(" ")
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and label in line
    )


def applied(running: Running, result: str) -> float:
    return metric(running, f'flashfeed_applied_records_total result="{result}"')


def counted(running: Running, feed: str) -> dict[str, float]:
    """What became of a feed's records, by its sessions' metrics."""
    results = ("applied", "coalesced", "dropped", "duplicate", "late")
    name = 'flashfeed_applied_records_total{feed="%s",result="%s"'
    return {one: metric(running, name % (feed, one)) for one in results}


async def updated_offsets(brokers: str, session: str) -> list[int]:
    """The source offsets that the session's data_updated events name, in their order."""
    consumer = AIOKafkaConsumer(
        "flashfeed.data_updated", bootstrap_servers=brokers, auto_offset_reset="earliest"
    )
    found: list[int] = []
    async with consumer:
        while fetched := await consumer.getmany(timeout_ms=1000):
            for record in (one for records in fetched.values() for one in records):
                if record.key == session.encode():
                    for origin in orjson.loads(record.value)["origins"]:
                        found += range(origin["first"], origin["last"] + 1)
    return found


def wait_for(running: Running, session: str, processed: int, within_s: float) -> dict[str, Any]:
    """The session's status once so many records are processed."""
    until = time.monotonic() + within_s
    found: dict[str, Any] = {}
    while time.monotonic() < until:
        found = status(running, session)
        if found.get("items_processed", 0) >= processed:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{session}: {found}")


def test_coalesce_keeps_up_and_says_what_it_merged(running: Running) -> None:
    session, count = session_in(1), 8_000
    send(running.brokers, "coalesce", session, count)
    done = wait_for(running, session, count, 240)
    assert (done["items_processed"], done["total_dropped"], done["queue_size"]) == (count, 0, 0)
    # 64 at a time, as they are, these are 125.
    assert done["batches_processed"] < 80
    assert applied(running, "coalesced") > count / 2
    text = context(running, session)
    assert "stands for N records" in text
    assert " merged " in text and last_values(text, 1) == [count - 1.0]


def test_drop_oldest_keeps_up_with_what_is_newest(running: Running) -> None:
    session, count = session_in(2), 20_000
    send(running.brokers, "drop_oldest", session, count)
    done = wait_for(running, session, count, 240)
    assert (done["items_processed"], done["queue_size"]) == (count, 0)
    assert count / 2 < done["total_dropped"] < count
    assert applied(running, "dropped") == done["total_dropped"]
    assert last_values(context(running, session), 8) == [*map(float, range(count - 8, count))]


def test_a_session_made_over_http_drops_and_says_how_many(running: Running) -> None:
    with LayerScale(running.url) as client:
        made = client.sessions.create(type="iot", window_size=8, flash=[{"query": "High?"}])
        rows = [{"sid": "a", "val": float(value)} for value in range(1000)]
        ack = client.sessions.push(made.session_id, rows)
        assert (ack.pushed, ack.queue_capacity, ack.dropped) == (1000, 200, 800)
    done = wait_for(running, made.session_id, 1000, 60)
    assert (done["total_enqueued"], done["total_dropped"]) == (1000, 800)
    text = context(running, made.session_id)
    assert last_values(text, 8) == [*map(float, range(992, 1000))]


def test_a_session_that_blocks_refuses_what_its_queue_has_no_place_for(running: Running) -> None:
    with LayerScale(running.url, max_retries=0) as client:
        made = client.sessions.create(type="iot", window_size=8, flash=[], overflow="block")
        rows = [{"sid": "a", "val": float(value)} for value in range(201)]
        with pytest.raises(RateLimitError, match="200 records"):
            client.sessions.push(made.session_id, rows)
        client.sessions.push(made.session_id, rows[:200], wait=True)
    done = wait_for(running, made.session_id, 200, 60)
    assert (done["items_processed"], done["total_dropped"]) == (200, 0)


def test_block_loses_nothing(running: Running) -> None:
    session, count = session_in(3), 300
    send(running.brokers, "block", session, count)
    done = wait_for(running, session, count, 240)
    assert (done["items_processed"], done["total_dropped"]) == (count, 0)
    text = context(running, session)
    assert last_values(text, 8) == [*map(float, range(count - 8, count))]
    assert " merged " not in text and "stands for" not in text


@pytest.mark.parametrize("overflow", POLICIES)
def test_every_record_is_counted_once_by_all_who_count(running: Running, overflow: str) -> None:
    """Sent = applied + dropped, and what was merged is among the applied: by the metrics, by the
    events and by the session's state."""
    session, count = f"{overflow}-{session_in(3)}", 400
    before = counted(running, overflow)
    sent = send(running.brokers, overflow, session, count, message_rows=1)
    done = wait_for(running, session, count, 240)
    now = counted(running, overflow)
    became = {name: int(now[name] - before[name]) for name in now}
    assert became["applied"] + became["dropped"] == count
    assert became["duplicate"] == became["late"] == 0
    assert (became["dropped"] > 0) == (overflow == "drop_oldest")
    assert (became["coalesced"] > 0) == (overflow == "coalesce")
    assert became["coalesced"] <= became["applied"]
    assert (done["items_processed"], done["total_enqueued"]) == (count, count)
    assert (done["total_dropped"], done["queue_size"]) == (became["dropped"], 0)
    updated = asyncio.run(updated_offsets(running.brokers, session))
    assert len(updated) == len(set(updated)) == became["applied"]
    if overflow == "drop_oldest":  # the newest are there, and whatever was read in time
        assert set(updated) <= set(sent) and updated[-1] == sent[-1]
    else:
        assert updated == sent


def test_what_block_has_no_place_for_stays_on_kafka(running: Running) -> None:
    session, count = session_in(0), 20_000
    send(running.brokers, "block", session, count)
    until = time.monotonic() + 60
    mapped = 'flashfeed_records_total{feed="block",result="mapped"}'
    while time.monotonic() < until and metric(running, mapped) < count:
        time.sleep(0.2)
    lag = 'flashfeed_consumer_lag_records{partition="0",topic="flashfeed.records"}'
    # The worker knows the partition's end as of its last fetch.
    while time.monotonic() < until and metric(running, lag) * PACK_RECORDS_MAX <= count / 2:
        time.sleep(0.2)
    found = wait_for(running, session, 1, 60)
    assert found["total_dropped"] == 0
    # All that is not processed waits: in the worker, which is bounded, and on Kafka.
    assert found["queue_size"] > PACK_RECORDS_MAX
    assert metric(running, lag) * PACK_RECORDS_MAX > count / 4
    # It goes on, in order.
    later = wait_for(running, session, found["items_processed"] + 200, 60)
    values = last_values(context(running, session), 8)
    assert values == [*map(float, range(int(values[0]), int(values[0]) + 8))]
    assert values[-1] >= later["items_processed"] - 1
