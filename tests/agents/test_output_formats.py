"""A worker that writes Avro or Protobuf: registered, read by others, the same after a crash."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import orjson
import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from flashfeed.agents.schema_registration import register_events
from flashfeed.cli.embedded_broker import embedded_broker, free_port
from flashfeed.cli.settings import load
from flashfeed.cli.worker_process import wait_until_ready, worker_process
from flashfeed.client import ANSWERS, DATA_UPDATED, FLASH_READY, FlashReady, TopicEvents
from flashfeed.models.config import Config, OutputConfig, SchemaRegistryConfig
from flashfeed.models.errors import ConfigError, Unavailable
from flashfeed.models.event_format import CONTENT_TYPES, registered_schema
from flashfeed.models.events import event_identity

from registry_server import RegistryServer

CONFIG = """
[kafka]
brokers = "{brokers}"
partitions = 1
[bridge]
port = {port}
[engine]
context_tokens = 1024
[schema_registry]
url = "{registry}"
[output]
format = "{format}"
"""
TOPICS = (FLASH_READY, DATA_UPDATED, ANSWERS)


class Ran(NamedTuple):
    """What a worker wrote before it was killed, all that there was when it was back, and
    what its session said."""

    format: Any
    brokers: str
    registry: RegistryServer
    answer: dict[str, Any]
    before: list[Any]
    after: list[Any]


async def read(brokers: str, number: int) -> list[Any]:
    """So many records of the output topics, from their beginning."""
    consumer = AIOKafkaConsumer(*TOPICS, bootstrap_servers=brokers, auto_offset_reset="earliest")
    found: list[Any] = []
    async with consumer, asyncio.timeout(60):
        while len(found) < number:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += records
    return found


def push(url: str) -> dict[str, Any]:
    """Make a session and push a reading; the answer that then stands."""
    with httpx.Client(base_url=url, timeout=60) as http:
        flash = [{"query": "Is it hot?", "choices": ["yes", "no"], "name": "hot"}]
        body = {"type": "iot", "flash": flash}
        session = http.post("/v1/sessions/init", json=body).json()["session_id"]
        data = {"data": [{"sid": "t", "val": 21.5}]}
        http.post(f"/v1/sessions/{session}/stream/push", json=data).raise_for_status()
        ends = time.monotonic() + 30
        while True:
            [found] = http.get(f"/v1/sessions/{session}/flash").json()["flash_queries"]
            if found.get("value"):
                return {**found, "session_id": session}
            assert time.monotonic() < ends
            time.sleep(0.1)


@pytest.fixture(scope="module", params=["avro", "protobuf"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    home: Path = tmp_path_factory.mktemp(request.param)
    registry = RegistryServer()
    with embedded_broker() as brokers:
        port = free_port()
        config, log = home / "worker.toml", home / "worker.log"
        settings = {"brokers": brokers, "port": port, "registry": registry.url}
        config.write_text(CONFIG.format(format=request.param, **settings))
        with worker_process(config, log) as process:
            wait_until_ready(port, process, log)
            answer = push(f"http://127.0.0.1:{port}")
            before = asyncio.run(read(brokers, 3))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        with worker_process(config, log) as process:
            wait_until_ready(port, process, log)
            after = asyncio.run(read(brokers, 6))
        yield Ran(request.param, brokers, registry, answer, before, after)
    registry.stop()


@pytest.mark.broker
@pytest.mark.model
def test_after_a_crash_the_same_bytes_under_the_same_ids(ran: Ran) -> None:
    for topic in TOPICS:
        first, second = (one for one in ran.after if one.topic == topic)
        assert (first.key, first.value, first.headers) == (second.key, second.value, second.headers)
    content = {dict(one.headers)["content-type"].decode() for one in ran.before}
    assert content == {CONTENT_TYPES[ran.format]}


@pytest.mark.broker
@pytest.mark.model
def test_each_output_topic_has_its_subject(ran: Ran) -> None:
    subjects = ran.registry.subjects
    assert set(subjects) == {f"{topic}-value" for topic in TOPICS}
    for record in ran.before:
        number = int.from_bytes(record.value[1:5], "big")
        name = dict(record.headers)["ce_type"].decode().removeprefix("flashfeed.")
        kind, text = registered_schema(name, ran.format)
        assert subjects[f"{record.topic}-value"] == [number]
        kept = ran.registry.schemas[number - 1]
        assert (kept.get("schemaType", "AVRO"), kept["schema"]) == (kind, text)


@pytest.mark.broker
@pytest.mark.model
def test_the_client_reads_what_the_session_says(ran: Ran) -> None:
    with TopicEvents(ran.brokers, (FLASH_READY, DATA_UPDATED), start="earliest") as events:
        got = {type(one.data): one for one in (next(events), next(events))}
        assert not events.malformed
    event = got[FlashReady]
    assert isinstance(event.data, FlashReady)
    assert event.id == event_identity(event.data)
    assert event.data.session_id == ran.answer["session_id"]
    assert (event.data.value, event.data.confidence) == (
        ran.answer["value"],
        ran.answer["confidence"],
    )


@pytest.mark.broker
@pytest.mark.model
def test_confluents_own_deserializer_reads_avro(ran: Ran) -> None:
    if ran.format != "avro":
        return
    deserializer = AvroDeserializer(SchemaRegistryClient({"url": ran.registry.url}))
    for record in ran.before:
        context = SerializationContext(record.topic, MessageField.VALUE)
        fields = deserializer(record.value, context)
        assert fields["session_id"] == ran.answer["session_id"]
        if record.topic != DATA_UPDATED:
            assert msgspec.convert(fields, FlashReady).value == ran.answer["value"]


# -- the registry alone ---------------------------------------------------------------


def config_of(registry: RegistryServer, attempts: int = 2) -> Config:
    table = SchemaRegistryConfig(url=registry.url, attempts=attempts, retry_max_s=0.1)
    return Config(schema_registry=table, output=OutputConfig(format="avro"))


async def test_a_registry_that_comes_late_is_waited_for() -> None:
    registry = RegistryServer()
    registry.broken = 503
    async with httpx.AsyncClient() as client:
        with pytest.raises(Unavailable, match="503"):
            await register_events(config_of(registry), client)
        waiting = asyncio.create_task(register_events(config_of(registry, 20), client))
        await asyncio.sleep(0.3)
        registry.broken = 0
        ids = await waiting
        assert await register_events(config_of(registry), client) == ids
    registry.stop()
    assert set(ids) == {"flash_ready", "data_updated"}


async def test_a_registry_that_refuses_is_said_at_once() -> None:
    registry = RegistryServer()
    registry.auth = "Bearer nobody"
    async with httpx.AsyncClient() as client:
        with pytest.raises(ConfigError, match="401"):
            await register_events(config_of(registry), client)
    assert len(registry.requests) == 1
    registry.stop()


@pytest.mark.parametrize("registry", ["", '[schema_registry]\nurl="http://r"\nkind="apicurio"\n'])
def test_a_format_without_a_registry_to_write_to_is_refused(tmp_path: Path, registry: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f'{registry}[output]\nformat = "avro"\n')
    with pytest.raises(ConfigError, match=r"output\.format"):
        load(path)
    assert orjson.dumps(registered_schema("flash_ready", "avro"))
