"""Somebody's topics in, answers out: a worker started by its configuration alone.

What is sent is held against the published schemas, the CloudEvents SDK, the dead
letters' promise and the metrics.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker

from flashfeed.cli.demo import write_config
from flashfeed.cli.demo_feed import SourceRecord, create_source_topics, source_records
from flashfeed.cli.embedded_broker import embedded_broker
from flashfeed.cli.settings import load
from flashfeed.cli.worker_process import scrape, wait_until_ready, worker_process
from flashfeed.models.event_schemas import EVENT_TYPES, event_schema

EACH = 3
BAD = (
    (b"{not json", "decode", "$"),
    (b'{"exchange":"X","symbol":"Y","interval":"1d","start":1,"closed":true}', "map", "$.open"),
    (b"[1, 2]", "map", "$.closed"),
)
OUT = ("flash_ready", "data_updated", "answers", "dead_letters")


class Ran(NamedTuple):
    """What a worker made of the records: every output record, and its address."""

    brokers: str
    config: Path
    port: int
    records: list[SourceRecord]
    out: dict[str, list[Any]]


async def _send(brokers: str, records: list[SourceRecord]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await producer.start()
    topic = records[0].topic
    for value, *_ in BAD:
        await producer.send_and_wait(topic, value, key=b"candles", headers=[("trace", b"7")])
    for record in records:
        await producer.send_and_wait(record.topic, record.value, key=record.key)
    await producer.stop()


async def _collect(brokers: str, done: Any) -> dict[str, list[Any]]:
    consumer = AIOKafkaConsumer(
        *(f"flashfeed.{name}" for name in OUT),
        bootstrap_servers=brokers,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    out: dict[str, list[Any]] = {name: [] for name in OUT}
    deadline = time.monotonic() + 60
    while not done(out) and time.monotonic() < deadline:
        for batch in (await consumer.getmany(timeout_ms=200)).values():
            for record in batch:
                out[record.topic.removeprefix("flashfeed.")].append(record)
    await consumer.stop()
    return out


async def create_topic(brokers: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1)])
    await admin.close()


def _all_in(out: dict[str, list[Any]]) -> bool:
    counts: dict[str, int] = {}
    for record in out["data_updated"]:
        event = orjson.loads(record.value)
        counts[event["session_id"]] = event["data_count"]
    return (
        len(counts) == 5
        and min(counts.values()) == EACH
        and len(out["dead_letters"]) == len(BAD)
        and len(out["answers"]) == len(out["flash_ready"])
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    home = tmp_path_factory.mktemp("end-to-end")
    records = list(source_records(EACH))
    with embedded_broker() as brokers:
        asyncio.run(create_source_topics(brokers))
        config, port = write_config(home, brokers)
        log = home / "worker.log"
        with worker_process(config, log) as process:
            wait_until_ready(port, process, log)
            asyncio.run(_send(brokers, records))
            out = asyncio.run(_collect(brokers, _all_in))
            assert _all_in(out), log.read_text()[-3000:]
            yield Ran(brokers, config, port, records, out)


pytestmark = [pytest.mark.broker, pytest.mark.model]


@pytest.mark.parametrize("name", sorted(EVENT_TYPES))
def test_the_schema_files_are_the_event_types(name: str) -> None:
    text = files("flashfeed.models").joinpath(f"schemas/{name}.json").read_text()
    assert orjson.loads(text) == event_schema(name)


@pytest.mark.parametrize("name", sorted(EVENT_TYPES))
def test_every_event_fits_its_schema_and_the_cloudevents_sdk(ran: Ran, name: str) -> None:
    validator = Draft202012Validator(event_schema(name), format_checker=FormatChecker())
    ids = set()
    for record in ran.out[name]:
        data = orjson.loads(record.value)
        validator.validate(data)
        headers = dict(record.headers)
        assert headers["content-type"] == b"application/json"
        message = KafkaMessage(headers=headers, key=record.key, value=record.value)
        event = from_binary(message, JSONFormat(), CloudEvent)
        assert event.get_type() == f"flashfeed.{name}"
        assert event.get_subject() == data["session_id"] == record.key.decode()
        assert event.get_data() == data
        ids.add(event.get_id())
    assert len(ids) == len(ran.out[name])
    assert ids


def test_a_schema_refuses_what_is_not_an_event(ran: Ran) -> None:
    data = orjson.loads(ran.out["flash_ready"][0].value)
    validator = Draft202012Validator(event_schema("flash_ready"))
    assert not validator.is_valid({**data, "confidence": 1.5})
    assert not validator.is_valid({k: v for k, v in data.items() if k != "origins"})


@pytest.fixture(scope="module")
def document(ran: Ran) -> dict[str, Any]:
    """What `flashfeed asyncapi` says of the worker that ran."""
    command = [sys.executable, "-m", "flashfeed.cli.main", "asyncapi", "-c", str(ran.config)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    found: dict[str, Any] = orjson.loads(done.stdout)
    return found


def described(document: dict[str, Any], channel: str) -> list[tuple[Any, Any]]:
    """Validators of headers and value, for each message that the document lets a channel have."""
    components = {"components": document["components"]}
    return [
        (
            Draft7Validator(message.get("headers", {})),
            Draft7Validator({**message.get("payload", {}), **components}),
        )
        for message in document["channels"][channel]["messages"].values()
    ]


@pytest.mark.parametrize("name", OUT)
def test_what_is_sent_is_what_the_asyncapi_document_says(
    ran: Ran, document: dict[str, Any], name: str
) -> None:
    assert ran.out[name]
    kinds = described(document, name)
    for record in ran.out[name]:
        headers = {key: value.decode() for key, value in record.headers}
        value = None if name == "dead_letters" else orjson.loads(record.value)
        fits = [one for one in kinds if one[0].is_valid(headers) and one[1].is_valid(value)]
        assert len(fits) == 1
        if name != "dead_letters":  # a letter has the original's headers too
            assert set(headers) == set(fits[0][0].schema["properties"])
        else:
            known = set(fits[0][0].schema["properties"])
            assert {one for one in headers if one.startswith("flashfeed_")} <= known


def test_the_topics_are_those_of_the_asyncapi_document(ran: Ran, document: dict[str, Any]) -> None:
    async def partitions() -> dict[str, int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=ran.brokers)
        await admin.start()
        topics = await admin.describe_topics()
        await admin.close()
        return {topic["topic"]: len(topic["partitions"]) for topic in topics}

    have = asyncio.run(partitions())
    inner = {f"flashfeed.{name}" for name in ("records", "changelog", "owners", "documents")}
    matched = {inside for inside in have if inside in inner or inside.startswith("__")}
    for operation in document["operations"].values():
        name = operation["channel"]["$ref"].rpartition("/")[2]
        channel = document["channels"][name]
        address = re.escape(channel["address"]).replace(r"\{any1\}", ".*")
        named = {topic for topic in have if re.fullmatch(address, topic)}
        assert named, channel["address"]
        matched |= named
        if operation["action"] == "send":
            assert have[channel["address"]] == channel["bindings"]["kafka"]["partitions"]
        else:
            group = operation["bindings"]["kafka"]["groupId"]
            assert group["enum"] == [load(ran.config).kafka.group]
    assert matched == set(have)


def test_every_version_has_every_answer_with_a_probability(ran: Ran) -> None:
    versions: dict[tuple[str, int], set[str]] = {}
    for record in ran.out["flash_ready"]:
        event = orjson.loads(record.value)
        place = (event["session_id"], event["data_version"])
        versions.setdefault(place, set()).add(event["name"])
        if event["probabilities"]:
            assert sum(event["probabilities"].values()) == pytest.approx(1, abs=1e-6)
            assert event["value"] == max(event["probabilities"], key=event["probabilities"].get)
            assert event["confidence"] == event["probabilities"][event["value"]]
    updated = {
        (event["session_id"], event["data_version"])
        for event in (orjson.loads(record.value) for record in ran.out["data_updated"])
    }
    assert set(versions) == updated
    assert {len(names) for names in versions.values()} == {3}


def test_the_answers_topic_holds_the_latest_by_session_and_query(ran: Ran) -> None:
    latest = {record.key: orjson.loads(record.value) for record in ran.out["answers"]}
    assert len(latest) == 15
    for key, event in latest.items():
        assert key.decode() == f"{event['session_id']}/{event['id']}"


def test_bad_records_are_dead_letters_with_their_bytes_and_the_reason(ran: Ran) -> None:
    letters = {record.value: dict(record.headers) for record in ran.out["dead_letters"]}
    for value, reason, path in BAD:
        headers = letters[value]
        assert headers["flashfeed_reason"].decode() == reason
        assert headers["flashfeed_path"].decode() == path
        assert headers["flashfeed_topic"].decode() == ran.records[0].topic
        assert headers["trace"] == b"7"


def test_the_metrics_count_what_happened(ran: Ran) -> None:
    records = len(ran.records)
    assert scrape(ran.port, 'flashfeed_applied_records_total{result="applied"}') == records
    assert scrape(ran.port, 'flashfeed_records_total{feed="candles",result="read"}') == 12 + len(
        BAD
    )
    assert scrape(ran.port, "flashfeed_dead_letters_total") == len(BAD)
    assert scrape(ran.port, "flashfeed_updates_total") == len(ran.out["data_updated"])
    assert scrape(ran.port, "flashfeed_answers_total") == len(ran.out["flash_ready"])
    assert scrape(ran.port, "flashfeed_update_latency_seconds_count") == records
    assert scrape(ran.port, "flashfeed_engine_decode_seconds_total") > 0
    assert scrape(ran.port, 'flashfeed_engine_tokens_total{kind="ingest"}') > 5 * records
    assert scrape(ran.port, "flashfeed_sessions ") == 5


def test_the_lag_falls_to_nothing(ran: Ran) -> None:
    for _ in range(100):
        if scrape(ran.port, "flashfeed_consumer_lag_records") == 0:
            return
        time.sleep(0.1)
    raise AssertionError("records were left behind")


def _tail(ran: Ran, *options: str) -> list[str]:
    command = [sys.executable, "-m", "flashfeed.cli.main", "tail", "-c", str(ran.config)]
    command += ["--from-beginning", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_tail_prints_for_a_program(ran: Ran) -> None:
    lines = _tail(ran, "--json", "--session", "cgm-01", "--query", "range", "-n", "1")
    [event] = [orjson.loads(line) for line in lines]
    assert (event["session_id"], event["name"]) == ("cgm-01", "range")


def test_tail_prints_for_a_person(ran: Ran) -> None:
    [line] = _tail(ran, "--changed", "--query", "trend", "-n", "1")
    assert "trend: bullish" in line or "trend: bearish" in line


def test_a_topic_that_comes_later_is_read_too(ran: Ran) -> None:
    record = ran.records[0]
    value = record.value.replace(b"AAPL-USD", b"LATE-USD")

    async def produce() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=ran.brokers)
        await producer.start()
        await producer.send_and_wait("candles-NASDAQ-LATE-USD", value, key=b"candles")
        await producer.stop()

    asyncio.run(create_topic(ran.brokers, "candles-NASDAQ-LATE-USD"))
    asyncio.run(produce())
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if scrape(ran.port, "flashfeed_sessions ") == 6:
            return
        time.sleep(0.2)
    raise AssertionError("the topic that came later was not read")
