"""Topics in other formats, and as Kafka compresses them, through a real worker."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from flashfeed.cli.embedded_broker import embedded_broker, free_port
from flashfeed.cli.sample_data import candles, cryptofeed_json
from flashfeed.cli.worker_process import wait_until_ready, worker_process

from codec_samples import AVRO_CANDLE, ORU, sparkplug
from registry_server import RegistryServer

pytestmark = [pytest.mark.broker, pytest.mark.model]

CONFIG = """
[kafka]
brokers = "{brokers}"
[bridge]
port = {port}
[engine]
context_tokens = 1024
[schema_registry]
url = "{registry}"
retry_max_s = 0.5
[feeds.avro]
topics = ["avro"]
preset = "cryptofeed"
codec = "avro"
template = "market"
session = "avro-{{key}}"
[feeds.packed]
topics = ["packed-*"]
preset = "cryptofeed"
template = "market"
session = "packed-{{key}}"
[feeds.wards]
topics = ["hl7"]
codec = "hl7"
model = "iot"
key = "^PID[0].3.1"
each = "OBX[]"
when = {{ "2.1" = "NM" }}
time = "14.1|OBR.7.1:hl7"
map = {{ sid = "3.1", val = "5.1" }}
template = "sensor"
session = "hl7-{{key}}"
[feeds.plant]
topics = ["sparkplug"]
codec = "sparkplug_b"
model = "iot"
key = "^node"
each = "metrics[]"
time = "timestamp:ms"
map = {{ sid = "name", val = "value" }}
template = "sensor"
session = "plant-{{key}}"
[templates.market]
type = "ohlcv"
[templates.sensor]
type = "iot"
"""
COMPRESSIONS = ("none", "gzip", "snappy", "lz4", "zstd")


def state(url: str, session: str, lines: int) -> dict[str, Any]:
    """A session's state, once so many lines are in it."""
    deadline = time.monotonic() + 60
    path = f"{url}/v1/sessions/{urllib.parse.quote(session, safe='')}/state"
    while time.monotonic() < deadline:
        answer = httpx.get(path)
        if answer.status_code == 200:
            found: dict[str, Any] = answer.json()
            if found["data_count"] >= lines:
                return found
        time.sleep(0.1)
    raise AssertionError(f"{session} has not {lines} lines: {answer.text}")


@pytest.fixture(scope="module")
def registry() -> Iterator[RegistryServer]:
    server = RegistryServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def running(
    registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    home: Path = tmp_path_factory.mktemp("formats")
    with embedded_broker() as brokers:
        for name in COMPRESSIONS:  # real client, every codec, before the worker reads
            send(brokers, f"packed-{name}", [(b"candles", candle(name, 3), ())], name)
        port = free_port()
        config, log = home / "worker.toml", home / "worker.log"
        config.write_text(CONFIG.format(brokers=brokers, port=port, registry=registry.url))
        with worker_process(config, log) as process:
            wait_until_ready(port, process, log)
            yield brokers, f"http://127.0.0.1:{port}"


def candle(symbol: str, count: int) -> bytes:
    rows = candles("AAPL")
    row = [next(rows) for _ in range(count)][-1]
    value = orjson.loads(cryptofeed_json("AAPL", row))
    return orjson.dumps({**value, "symbol": symbol})


def send(brokers: str, topic: str, messages: Any, compression: str = "none") -> None:
    producer = Producer(
        {"bootstrap.servers": brokers, "compression.type": compression, "linger.ms": 5}
    )
    for key, value, headers in messages:
        producer.produce(topic, value, key, headers=list(headers))
    assert producer.flush(30) == 0


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_compression_of_kafka(running: tuple[str, str], compression: str) -> None:
    _, url = running
    plain = state(url, "packed-NASDAQ:none:1d", 1)
    packed = state(url, f"packed-NASDAQ:{compression}:1d", 1)
    assert packed["context_text"].replace(compression, "none") == plain["context_text"]


def test_avro_by_a_registry_that_is_away_at_first(
    running: tuple[str, str], registry: RegistryServer
) -> None:
    brokers, url = running
    client = SchemaRegistryClient({"url": registry.url})
    serializer = AvroSerializer(client, orjson.dumps(AVRO_CANDLE).decode())
    values = [orjson.loads(candle("X", count)) for count in (1, 2)]
    fields = [field["name"] for field in AVRO_CANDLE["fields"]]
    context = SerializationContext("avro", MessageField.VALUE)
    messages = [
        (b"k", serializer({name: value.get(name) for name in fields}, context), ())
        for value in values
    ]
    registry.broken = 503
    send(brokers, "avro", messages)
    # Other feeds' partitions go on meanwhile.
    send(brokers, "packed-none", [(b"candles", candle("meanwhile", 1), ())])
    state(url, "packed-NASDAQ:meanwhile:1d", 1)
    assert httpx.get(f"{url}/v1/sessions/avro-NASDAQ%3AX%3A1d/state").status_code == 404
    registry.broken = 0
    avro = state(url, "avro-NASDAQ:X:1d", 2)
    send(brokers, "packed-none", [(b"candles", candle("X", count), ()) for count in (1, 2)])
    assert avro["context_text"] == state(url, "packed-NASDAQ:X:1d", 2)["context_text"]


def test_hl7_and_sparkplug(running: tuple[str, str]) -> None:
    brokers, url = running
    send(brokers, "hl7", [(None, b"\x0b" + ORU.encode() + b"\x1c\r", ())])
    ward = state(url, "hl7-12345", 2)["context_text"]
    assert "82" in ward and "37.2" in ward
    birth = sparkplug(0, {"name": "temp", "alias": 1, "datatype": 10, "double_value": 21.5})
    data = sparkplug(1, {"alias": 1, "double_value": 22.75})
    send(
        brokers,
        "sparkplug",
        [(b"spBv1.0/g/NDATA/press", data, ()), (b"spBv1.0/g/NBIRTH/press", birth, ())],
    )
    plant = state(url, "plant-press", 2)["context_text"]
    assert "temp" in plant and "22.75" in plant and "21.5" in plant
