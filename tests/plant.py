"""A plant's sensors over several workers: their feed, and whether each reading is in exactly one
version, each version there once, in order, and answered."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from cluster import CLUSTER, Group

SENSORS = 6
MORE = f"""
{CLUSTER}
[feeds.plant]
topics = ["{{topic}}"]
model = "iot"
key = "sid"
map = {{{{ sid = "sid", val = "val" }}}}
template = "sensor"
session = "{{{{key}}}}"
[templates.sensor]
type = "iot"
window = {{{{ mode = "exact", items = 4 }}}}
[[templates.sensor.flash]]
query = "Is it hot?"
name = "hot"
choices = ["yes", "no"]
"""

Sent = dict[str, set[tuple[int, int]]]


async def create(brokers: str, topic: str, partitions: int = 1) -> None:
    """Make a topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, partitions, 1)])
    await admin.close()


async def committed(brokers: str, topic: str) -> list[Any]:
    """All that who reads what is committed gets."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=brokers,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    found: list[Any] = []
    async with consumer:
        while fetched := await consumer.getmany(timeout_ms=1500):
            found += [record for records in fetched.values() for record in records]
    return found


class Feed:
    """Readings of all sensors in turn, at a steady rate (a second, all together), until it is
    stopped or each has had `each`."""

    def __init__(self, brokers: str, topic: str, rate: float, each: int = 10_000) -> None:
        self._brokers, self._topic, self._rate, self._each = brokers, topic, rate, each
        self._ends = False
        self.sent: Sent = defaultdict(set)
        self.last = -1

    def stop(self) -> None:
        """Send no further round."""
        self._ends = True

    async def run(self) -> None:
        """Send, and note each reading's partition and offset."""
        async with AIOKafkaProducer(bootstrap_servers=self._brokers) as producer:
            for number in range(self._each):
                if self._ends:
                    return
                for sensor in range(SENSORS):
                    key = f"s{sensor}"
                    value = json.dumps({"sid": key, "val": number}).encode()
                    at = await producer.send_and_wait(self._topic, value, key=key.encode())
                    self.sent[key].add((at.partition, at.offset))
                    await asyncio.sleep(1 / self._rate)
                self.last = number


async def held(group: Group, session: str) -> list[str]:
    """The lines of a session's context, from whichever worker has it."""
    async with httpx.AsyncClient(timeout=30) as http:
        for _ in range(100):
            for member in group.members:
                if member.process.poll() is not None:
                    continue
                got = await http.get(f"{member.url}/v1/sessions/{session}/state")
                if got.status_code == 200:
                    return list(got.json()["context_text"].splitlines())
            await asyncio.sleep(0.3)
    raise AssertionError(f"{session} is nowhere")


async def until_all_have(group: Group, last: int, within_s: float = 90) -> None:
    """Wait until each sensor's last line is that reading."""
    deadline = time.monotonic() + within_s
    while True:
        ends = {f"s{n}": (await held(group, f"s{n}"))[-1] for n in range(SENSORS)}
        if all(str(last) in line.split() for line in ends.values()):
            return
        assert time.monotonic() < deadline, ends
        await asyncio.sleep(0.5)


async def expect_each_once(group: Group, sent: Sent) -> None:
    """Each reading is in one version, versions come in order, none twice, each is answered
    once, and nothing is a dead letter."""
    updated = await committed(group.brokers, f"{group.name}.data_updated")
    ready = await committed(group.brokers, f"{group.name}.flash_ready")
    covered: dict[str, Counter[tuple[int, int]]] = defaultdict(Counter)
    versions: dict[str, list[int]] = defaultdict(list)
    for record in updated:
        event = json.loads(record.value)
        for origin in event["origins"]:
            offsets = range(origin["first"], origin["last"] + 1)
            covered[event["session_id"]].update((origin["partition"], one) for one in offsets)
        versions[event["session_id"]].append(event["data_version"])
    assert set(versions) == set(sent)
    for name, places in sent.items():
        assert {place: covered[name][place] for place in places} == dict.fromkeys(places, 1), name
    for name, seen in versions.items():
        assert seen == list(range(1, len(seen) + 1)), name
    answers = Counter(
        (json.loads(one.value)["session_id"], json.loads(one.value)["data_version"])
        for one in ready
    )
    assert answers == Counter((name, number) for name, seen in versions.items() for number in seen)
    assert not await committed(group.brokers, f"{group.name}.dead_letters")
