"""Questions that learn, in a real worker: outcomes by rule, over Kafka and over HTTP, become
examples, heads and answers; a worker that is killed while it learns ends with the same heads
(invariants 1, 2 and 8)."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from brokers import APACHE, KINDS, broker_of

from flashfeed.agents.head_learning import HeadLearning
from flashfeed.cli.embedded_broker import free_port
from flashfeed.cli.worker_process import scrape, start_worker, stop_worker, wait_until_ready
from flashfeed.client import OutcomeReport, Refused, SentOutcome, report_outcome, send_outcomes
from flashfeed.models.errors import DecodeFault
from flashfeed.models.learning import ExampleRecord, decode_head
from flashfeed.models.outcomes import decode_outcome

from plant import create

pytestmark = [pytest.mark.broker, pytest.mark.model]

CONFIG = """
[kafka]
brokers = "{brokers}"
partitions = 2
[bridge]
port = {port}
[engine]
context_tokens = 1024
[feeds.plant]
topics = ["plant"]
model = "iot"
key = "key"
time = "at:s"
map = {{ sid = "sid", val = "val" }}
template = "sensor"
[templates.sensor]
type = "iot"
window = {{ items = 16 }}
[[templates.sensor.flash]]
query = "Is it hot?"
name = "hot"
choices = ["yes", "no"]
learn = true
[[templates.sensor.flash]]
query = "Is it wet?"
name = "wet"
choices = ["yes", "no"]
learn = true
[templates.sensor.outcomes.hot]
after = "1 records"
label = "yes if value@0 > 50 else no"
"""
READINGS, KILLED_AT = 27, 19


class Plant:
    """A plant with one sensor, a worker that watches it, and what it says on Kafka."""

    def __init__(self, brokers: str, home: Path) -> None:
        self.brokers = brokers
        self.port = free_port()
        self.config, self.log = home / "worker.toml", home / "worker.log"
        self.config.write_text(CONFIG.format(brokers=brokers, port=self.port))
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)
        self.sent = 0
        self.values: list[int] = []
        self.start()

    def start(self) -> None:
        self.process = start_worker(self.config, self.log)
        wait_until_ready(self.port, self.process, self.log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def send(self, topic: str, *bodies: Any) -> None:
        async def produce() -> None:
            async with AIOKafkaProducer(bootstrap_servers=self.brokers) as producer:
                for body in bodies:
                    await producer.send(topic, json.dumps(body).encode(), key=b"t")

        asyncio.run(produce())

    def read(self, topic: str) -> list[Any]:
        """All that is on a topic."""

        async def consume() -> list[Any]:
            found: list[Any] = []
            consumer = AIOKafkaConsumer(
                topic,
                bootstrap_servers=self.brokers,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
            )
            async with consumer:
                while fetched := await consumer.getmany(timeout_ms=1000):
                    found += [one for records in fetched.values() for one in records]
            return found

        return asyncio.run(consume())

    def reading(self, numbers: random.Random) -> None:
        value = numbers.choice((10, 20, 80, 90))
        self.sent += 1
        self.values.append(value)
        self.send("plant", {"key": "t", "sid": "t", "val": value, "at": 1000.0 + self.sent})

    def version(self) -> int:
        try:
            body = self.http.get("/v1/sessions/t/flash")
        except httpx.TransportError:
            return -1
        return int(body.json()["data_version"]) if body.status_code == 200 else -1

    def until(self, condition: Any, within_s: float = 60) -> None:
        ends = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < ends, self.log.read_text()[-3000:]
            time.sleep(0.03)

    def answered(self) -> list[dict[str, Any]]:
        return [json.loads(one.value) for one in self.read("flashfeed.flash_ready")]


@pytest.fixture(scope="module", params=KINDS)
def plant(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    home = tmp_path_factory.mktemp("learning")
    with broker_of(request.param, home) as brokers:
        if request.param == APACHE:
            asyncio.run(create(brokers, "plant", 2))
        plant = Plant(brokers, home)
        try:
            numbers = random.Random(7)
            for number in range(1, READINGS + 1):
                plant.reading(numbers)
                if number == KILLED_AT:  # while it applies, labels and learns
                    plant.until(lambda: plant.version() >= KILLED_AT - 2)
                    plant.kill()
                    plant.start()
                # A version of its own each, but where the worker came back to several.
                plant.until(lambda number=number: plant.version() >= number - 1)
            yield plant
        finally:
            stop_worker(plant.process)


def test_outcomes_by_a_rule_become_examples_each_once(plant: Plant) -> None:
    plant.until(lambda: len(plant.read("flashfeed.examples")) >= plant.version() - 1)
    events = {one["data_version"]: one for one in plant.answered() if one["name"] == "hot"}
    records = [
        msgspec.json.decode(one.value, type=ExampleRecord)
        for one in plant.read("flashfeed.examples")
    ]
    hot = {one.id: one for one in records if one.head.label == "hot"}
    # Every answer but the last, which waits, has its example.
    assert sorted(one.data_version for one in hot.values()) == sorted(events)[:-1]
    assert len(events) > 20
    for one in hot.values():
        answered = plant.values[plant_place(events[one.data_version])]
        assert one.label == ("yes" if answered > 50 else "no")
        assert one.by == "rule"
        assert len(one.example.features.hidden) == 2 * 2 * 576  # and how it moved


def plant_place(event: dict[str, Any]) -> int:
    """Which reading an answer was given over, from 0."""
    return round(datetime.fromisoformat(event["event_time"]).timestamp() - 1001)


def test_answers_are_the_heads(plant: Plant) -> None:
    last = [one for one in plant.answered() if one["name"] == "hot"][-1]
    assert last["answered_by"]["head"] == "mixed"
    assert last["answered_by"]["head_version"] >= 16
    parts = {one["forecaster"]: one["probabilities"] for one in last["learned"]["forecasts"]}
    assert {"base_rate", "persistence", "prior", "logits", "hidden", "mixed"} == parts.keys()
    assert last["probabilities"] == parts["mixed"]
    assert last["confidence"] == max(parts["mixed"].values())
    assert last["raw"]["probabilities"] != last["probabilities"]


def test_the_same_examples_give_the_same_heads_whoever_was_killed(plant: Plant) -> None:
    examples = plant.read("flashfeed.examples")
    learnt = "flashfeed_score_labels{"
    plant.until(lambda: scrape(plant.port, learnt) == len({id_of(one) for one in examples}))
    again: dict[str, HeadLearning] = {}
    for one in examples:
        record = msgspec.json.decode(one.value, type=ExampleRecord)
        learning = again.setdefault(record.head.key, HeadLearning.new(record.head))
        if not learning.knows(record.id):
            learning.learn(record)
            learning.offset = one.offset
    heads = {
        one.key.decode(): one.value
        for one in plant.read("flashfeed.heads")
        if not one.key.startswith(b"\x00")
    }
    assert heads.keys() == again.keys()
    for key, learning in again.items():
        assert heads[key] == learning.message(decode_head(heads[key]).partition)


def id_of(message: Any) -> str:
    return msgspec.json.decode(message.value, type=ExampleRecord).id


def test_outcomes_that_are_sent_are_applied_once(plant: Plant) -> None:
    event = [one for one in plant.answered() if one["name"] == "wet"][-1]
    version = event["data_version"]
    right = {"session_id": "t", "query": "wet", "data_version": version, "label": "yes"}
    plant.send(
        "flashfeed.outcomes",
        right,
        right,
        {**right, "label": "no"},
        {**right, "data_version": 9999},
        {**right, "label": "maybe"},
        {**right, "session_id": "nobody"},
        {"what": "is this"},
    )

    def counted(result: str) -> float:
        return scrape(plant.port, f'flashfeed_outcomes_total{{by="user",result="{result}"')

    plant.until(lambda: counted("late") == 1)
    assert [counted(one) for one in ("applied", "repeated", "contradicting")] == [1, 1, 1]

    def reasons() -> list[str]:
        letters = plant.read("flashfeed.dead_letters")
        return sorted(dict(one.headers)["flashfeed_reason"].decode() for one in letters)

    wanted = ["decode", "invalid", "outcome_contradicts", "outcome_late", "session_unknown"]
    plant.until(lambda: reasons() == wanted, 20)
    examples = [
        msgspec.json.decode(one.value, type=ExampleRecord)
        for one in plant.read("flashfeed.examples")
    ]
    [wet] = [one for one in examples if one.head.label == "wet"]
    assert (wet.by, wet.label, wet.data_version) == ("user", "yes", version)


def test_outcomes_may_come_over_http_and_are_answered(plant: Plant) -> None:
    events = [one for one in plant.answered() if one["name"] == "wet"]
    url = str(plant.http.base_url)
    first = OutcomeReport("wet", "no", data_version=events[0]["data_version"], time=1001.0)
    wet = 'flashfeed_outcomes_total{by="user",result="applied"'
    before = scrape(plant.port, wet)
    asyncio.run(report_outcome(url, "t", first))
    asyncio.run(report_outcome(url, "t", first))
    assert scrape(plant.port, wet) == before + 1

    def refused(outcome: OutcomeReport, session: str = "t") -> int:
        with pytest.raises(Refused) as error:
            asyncio.run(report_outcome(url, session, outcome))
        return error.value.status

    assert refused(msgspec.structs.replace(first, label="yes")) == 409
    assert refused(msgspec.structs.replace(first, data_version=999)) == 404
    assert refused(msgspec.structs.replace(first, query="cold")) == 400
    assert refused(first, "nobody") == 404
    one = {"query": "wet", "label": "no"}
    place = "/flashfeed/v1/sessions/t/outcomes"
    assert plant.http.post(place, json=one).status_code == 400  # of which answer?
    sent = SentOutcome("wet", "no", events[1]["data_version"], session_id="t")
    asyncio.run(send_outcomes(plant.brokers, [sent]))
    plant.until(lambda: scrape(plant.port, wet) == before + 2)


def test_every_outcome_is_on_the_outcomes_topic_however_it_came(plant: Plant) -> None:
    found = [one for one in map(decoded, plant.read("flashfeed.outcomes")) if one is not None]
    examples = [
        msgspec.json.decode(one.value, type=ExampleRecord)
        for one in plant.read("flashfeed.examples")
    ]
    learnt = {(one.head.label, one.data_version, one.label, one.time) for one in examples}
    by = {"rule": {"hot"}, "http": {"wet"}, "": {"wet"}}
    assert {one.by for one in found} == by.keys()
    for one in found:
        assert one.query in by[one.by]
        if one.by:  # what was sent may have been refused
            assert (one.query, one.data_version, one.label, one.time) in learnt
    told = {(one.query, one.data_version, one.label, one.time) for one in found}
    assert learnt <= told


def decoded(message: Any) -> SentOutcome | None:
    try:
        return decode_outcome(message.value)
    except DecodeFault:  # of the tests before: it is a dead letter
        return None


def test_scores_are_on_their_topic(plant: Plant) -> None:
    newest = {one.key: json.loads(one.value) for one in plant.read("flashfeed.scores")}
    by_name = {one["name"]: one for one in newest.values()}
    assert by_name.keys() == {"hot", "wet"}
    scores = by_name["hot"]["scores"]
    assert scores["labels"] == by_name["hot"]["head_version"] > 20
    assert 0 <= scores["brier"] <= 1
    assert scrape(plant.port, 'flashfeed_score_brier{query="hot"') == scores["brier"]


LEFT_OPEN = """
import asyncio, os, sys
from aiokafka import AIOKafkaProducer

async def main():
    producer = AIOKafkaProducer(bootstrap_servers=sys.argv[1], transactional_id=sys.argv[2])
    await producer.start()
    await producer.begin_transaction()
    await producer.send_and_wait("flashfeed.heads", None, key=b"left open", partition=0)
    os._exit(0)

asyncio.run(main())
"""


def test_a_transaction_that_a_killed_learner_left_open_keeps_no_worker_away(plant: Plant) -> None:
    if "one transaction a step" not in plant.log.read_text():
        pytest.skip("no transactions on this broker")
    version = plant.version()
    plant.kill()
    # Of the last partition: the others' heads wait for it too.
    command = [sys.executable, "-c", LEFT_OPEN, plant.brokers, "flashfeed-learner-1"]
    subprocess.run(command, check=True, timeout=30)
    plant.start()
    numbers = random.Random(8)
    for _ in range(3):
        plant.reading(numbers)
    plant.until(lambda: plant.version() > version)
    last = [one for one in plant.answered() if one["name"] == "hot"][-1]
    assert last["answered_by"]["head"] == "mixed"
    assert "the newest heads are not read yet" in plant.log.read_text()
    assert plant.process.poll() is None
