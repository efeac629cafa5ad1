"""The registry's client, against a registry over HTTP that Confluent's own client fills."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    header_schema_id_serializer,
)
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from flashfeed.agents.schema_registry import UNKNOWN_S, SchemaRegistry
from flashfeed.codecs.codec import SchemaRef, SchemaWanted
from flashfeed.codecs.registry import codec
from flashfeed.models.config import SchemaRegistryConfig
from flashfeed.models.errors import ConfigError, Unavailable, UnknownSchema

from codec_samples import (
    AVRO_CANDLE,
    CANDLE,
    avro_bytes,
    candle_message,
    outside,
    source,
)
from registry_server import RegistryServer


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    running = RegistryServer()
    yield running
    running.stop()


class Watched(SchemaRegistry):
    """A registry's client with a clock that the test sets."""

    def __init__(self, url: str, **config: Any) -> None:
        self.seconds = 0.0
        self.notes: list[str] = []
        super().__init__(
            SchemaRegistryConfig(url=url, **config), self.notes.append, lambda: self.seconds
        )


async def read_with(registry: Any, name: str, payload: bytes, headers: Any = ()) -> Any:
    """Read a message, bringing the one schema that it wants."""
    read = codec(name, {}, outside(registry))
    with pytest.raises(SchemaWanted) as wanted:
        read(payload, source(headers=headers))
    await registry.bring(wanted.value.reference)
    return read(payload, source(headers=headers))


def context() -> tuple[SerializationContext, list[Any]]:
    headers: list[Any] = []
    return SerializationContext("candles", MessageField.VALUE, headers), headers


@pytest.mark.parametrize("conf", [{}, {"schema.id.serializer": header_schema_id_serializer}])
async def test_avro_by_id_and_by_guid(server: RegistryServer, conf: dict[str, Any]) -> None:
    client = SchemaRegistryClient({"url": server.url})
    where, headers = context()
    payload = AvroSerializer(client, orjson.dumps(AVRO_CANDLE).decode(), conf=conf)(CANDLE, where)
    assert bool(headers) is bool(conf)
    registry = Watched(server.url)
    assert payload is not None
    assert await read_with(registry, "avro", payload, headers) == (CANDLE,)
    assert registry.notes == ["fetched"]
    await registry.stop()


async def test_protobuf_is_asked_for_compiled(server: RegistryServer) -> None:
    client = SchemaRegistryClient({"url": server.url})
    where, _ = context()
    message = candle_message()
    serializer = ProtobufSerializer(type(message), client, conf={"use.deprecated.format": False})
    payload = serializer(message, where)
    assert payload is not None
    registry = Watched(server.url)
    (value,) = await read_with(registry, "protobuf", payload)
    assert value["symbol"] == "BTC-USDT" and value["side"] == "BUY"
    assert any("format=serialized" in path for path in server.requests)
    await registry.stop()


async def test_references_are_fetched_each_before_who_needs_it(server: RegistryServer) -> None:
    client = SchemaRegistryClient({"url": server.url})

    def record(name: str, *fields: tuple[str, str]) -> str:
        members = [{"name": field, "type": kind} for field, kind in fields]
        return orjson.dumps({"type": "record", "name": name, "fields": members}).decode()

    client.register_schema("price", Schema(record("md.Price", ("p", "double")), "AVRO"))
    client.register_schema(
        "side",
        Schema(record("md.Side", ("best", "md.Price")), "AVRO",
               [SchemaReference("md.Price", "price", 1)]),
    )  # fmt: skip
    number = client.register_schema(
        "quote",
        Schema(record("md.Quote", ("bid", "md.Side"), ("ask", "md.Price")), "AVRO",
               [SchemaReference("md.Side", "side", 1), SchemaReference("md.Price", "price", 1)]),
    )  # fmt: skip
    registry = Watched(server.url)
    payload = (
        b"\0" + number.to_bytes(4, "big") + avro_bytes("double", 1.5) + avro_bytes("double", 2)
    )
    assert await read_with(registry, "avro", payload) == (
        {"bid": {"best": {"p": 1.5}}, "ask": {"p": 2.0}},
    )
    await registry.stop()


@pytest.mark.parametrize(("kind", "version"), [("apicurio", "v3"), ("apicurio_v2", "v2")])
async def test_apicurio(server: RegistryServer, kind: Any, version: str) -> None:
    price = {"type": "record", "name": "md.Price", "fields": [{"name": "p", "type": "double"}]}
    quote = {"type": "record", "name": "Q", "fields": [{"name": "bid", "type": "md.Price"}]}
    server.artifact("md.Price", 3, "AVRO", orjson.dumps(price).decode())
    server.artifact("quote", 9, "AVRO", orjson.dumps(quote).decode(), "md.Price")
    registry = Watched(f"{server.url}/apis/registry/{version}", kind=kind)
    frame = b"\0" + (9).to_bytes(4 if kind == "apicurio" else 8, "big")
    value = await read_with(registry, "avro", frame + avro_bytes("double", 1.5))
    assert value == ({"bid": {"p": 1.5}},)
    header = [("apicurio.value.globalId", (3).to_bytes(8, "big"))]
    assert await read_with(registry, "avro", avro_bytes("double", 2.5), header) == ({"p": 2.5},)
    read = codec("avro", {}, outside(registry))
    missing = frame[:-1] + b"\x63x"
    with pytest.raises(SchemaWanted) as wanted:
        read(missing, source())
    await registry.bring(wanted.value.reference)
    with pytest.raises(UnknownSchema):
        read(missing, source())
    await registry.stop()


async def test_an_unknown_id_is_believed_for_a_while(server: RegistryServer) -> None:
    registry = Watched(server.url)
    reference = SchemaRef("id", 1)
    await registry.bring(reference)
    assert registry.notes == ["unknown"]
    with pytest.raises(UnknownSchema, match="no schema of id 1"):
        registry.find(reference)
    registry.seconds = UNKNOWN_S + 1
    with pytest.raises(SchemaWanted):
        registry.find(reference)
    server.register("s", {"schema": '"int"'})
    await registry.bring(reference)
    assert registry.find(reference).text == '"int"'
    await registry.stop()


@pytest.mark.parametrize("status", [500, 503, 404, 403, 302, 200])
async def test_an_error_page_is_an_outage_and_no_unknown_id(
    server: RegistryServer, status: int
) -> None:
    server.register("s", {"schema": '"int"'})
    registry = Watched(server.url)
    server.broken = status
    with pytest.raises(Unavailable):
        await registry.bring(SchemaRef("id", 1))
    with pytest.raises(SchemaWanted):
        registry.find(SchemaRef("id", 1))
    server.broken = 0
    await registry.bring(SchemaRef("id", 1))
    assert registry.notes == ["failed", "fetched"]
    await registry.stop()


async def test_nobody_listens() -> None:
    server = RegistryServer()
    server.stop()
    registry = Watched(server.url)
    with pytest.raises(Unavailable, match="ConnectError"):
        await registry.bring(SchemaRef("id", 1))
    await registry.stop()


async def test_many_who_want_one_schema_ask_once(server: RegistryServer) -> None:
    server.register("s", {"schema": '"int"'})
    registry = Watched(server.url)
    await asyncio.gather(*(registry.bring(SchemaRef("id", 1)) for _ in range(20)))
    assert server.requests == ["/schemas/ids/1"]
    await registry.stop()


async def test_it_logs_in(server: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.register("s", {"schema": '"int"'})
    monkeypatch.setenv("REGISTRY_SECRET", "s3cret")
    basic = base64.b64encode(b"me:s3cret").decode()
    for auth, config in (
        (f"Basic {basic}", {"username": "me", "password_env": "REGISTRY_SECRET"}),
        ("Bearer s3cret", {"token_env": "REGISTRY_SECRET"}),
    ):
        server.auth = auth
        registry = Watched(server.url, **config)
        await registry.bring(SchemaRef("id", 1))
        assert registry.find(SchemaRef("id", 1)).text == '"int"'
        await registry.stop()
        without = Watched(server.url)
        with pytest.raises(Unavailable, match="answered 401"):
            await without.bring(SchemaRef("id", 1))
        await without.stop()
    monkeypatch.delenv("REGISTRY_SECRET")
    with pytest.raises(ConfigError, match="REGISTRY_SECRET is not set"):
        Watched(server.url, token_env="REGISTRY_SECRET").open()
