"""What the codecs' tests share: sources, schemas and births at hand, and real messages of
every format, made by the libraries that others write them with."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
import msgspec
import orjson
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError
from google.protobuf import message_factory, timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from flashfeed.agents.births import BirthBook
from flashfeed.agents.metrics import Metrics
from flashfeed.codecs.codec import Outside, RegistryKind, SchemaRef, SchemaText
from flashfeed.codecs.parts import Source
from flashfeed.codecs.sparkplug_payload import Payload
from flashfeed.models.errors import UnknownSchema

CANDLE = {
    "exchange": "BINANCE",
    "symbol": "BTC-USDT",
    "start": 1_700_000_000.0,
    "stop": 1_700_000_060.0,
    "interval": "1m",
    "trades": 12,
    "open": 43_000.5,
    "close": 43_010.25,
    "high": 43_020.0,
    "low": 42_990.75,
    "volume": 12.5,
    "closed": True,
    "timestamp": 1_700_000_061.25,
}
AVRO_CANDLE: dict[str, Any] = {
    "type": "record",
    "name": "Candle",
    "namespace": "md",
    "fields": [
        {"name": "exchange", "type": "string"},
        {"name": "symbol", "type": "string"},
        {"name": "start", "type": "double"},
        {"name": "stop", "type": "double"},
        {"name": "interval", "type": "string"},
        {"name": "trades", "type": ["null", "long"], "default": None},
        *({"name": name, "type": "double"} for name in ("open", "close", "high", "low", "volume")),
        {"name": "closed", "type": "boolean"},
        {"name": "timestamp", "type": "double"},
    ],
}


def source(
    key: bytes | None = b"candles",
    topic: str = "candles-X",
    timestamp_ms: int | None = 1_700_000_000_000,
    headers: Sequence[tuple[str, bytes]] = (),
) -> Source:
    """What a message has beside its value."""
    return Source(key, topic, timestamp_ms, headers)


class KnownSchemas:
    """The schemas of Confluent's in-memory registry, all at hand."""

    def __init__(self, client: Any = None, kind: RegistryKind = "confluent") -> None:
        self.client = client or SchemaRegistryClient.new_client({"url": "mock://"})
        self.kind = kind
        self.texts: dict[SchemaRef, SchemaText] = {}

    def find(self, reference: SchemaRef) -> SchemaText:
        """The schema; UnknownSchema where it was never registered."""
        if reference in self.texts:
            return self.texts[reference]
        try:
            if reference.kind == "guid":
                schema = self.client.get_schema_by_guid(reference.value)
            elif reference.kind == "id":
                schema = self.client.get_schema(reference.value)
            else:
                raise UnknownSchema(f"no schema of {reference}")
        except SchemaRegistryError:
            raise UnknownSchema(f"no schema of {reference}") from None
        references = [
            (one.name, self.client.get_version(one.subject, one.version).schema.schema_str)
            for one in schema.references or []
        ]
        return SchemaText(schema.schema_type, schema.schema_str, tuple(references))


def outside(schemas: KnownSchemas | None = None, births: BirthBook | None = None) -> Outside:
    """The world as a codec sees it: this machine's files, and what is given."""
    return Outside(lambda path: Path(path).read_bytes(), schemas, births)


def avro_bytes(schema: Any, value: Any) -> bytes:
    """A value as fastavro writes it."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


# -- Protobuf ---------------------------------------------------------------------------

_KINDS = {
    name: getattr(FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in ("double", "string", "int64", "bool", "bytes", "int32", "uint64")
}


def candle_file() -> FileDescriptorProto:
    """A .proto file with a candle, what it may carry, and a message inside another."""
    file = FileDescriptorProto(name="candle.proto", package="md", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    side = file.enum_type.add(name="Side")
    side.value.add(name="NONE", number=0)
    side.value.add(name="BUY", number=1)
    other = file.message_type.add(name="Other")
    other.field.add(name="note", number=1, type=_KINDS["string"], label=1)
    candle = file.message_type.add(name="Candle")
    kinds = {str: "string", float: "double", int: "int64", bool: "bool"}
    for number, (name, value) in enumerate(CANDLE.items(), start=1):
        candle.field.add(name=name, number=number, type=_KINDS[kinds[type(value)]], label=1)
    level = candle.nested_type.add(name="Level")
    level.field.add(name="price", number=1, type=_KINDS["double"], label=1)
    level.field.add(name="from", number=2, type=_KINDS["string"], label=1)
    candle.field.add(
        name="levels", number=20, type=FieldDescriptorProto.TYPE_MESSAGE, label=3,
        type_name=".md.Candle.Level",
    )  # fmt: skip
    candle.field.add(
        name="side", number=21, type=FieldDescriptorProto.TYPE_ENUM, label=1, type_name=".md.Side"
    )
    candle.field.add(
        name="at", number=22, type=FieldDescriptorProto.TYPE_MESSAGE, label=1,
        type_name=".google.protobuf.Timestamp",
    )  # fmt: skip
    candle.field.add(name="ids", number=23, type=_KINDS["int32"], label=3)
    entry = candle.nested_type.add(name="TagsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_KINDS["string"], label=1)
    entry.field.add(name="value", number=2, type=_KINDS["string"], label=1)
    candle.field.add(
        name="tags", number=24, type=FieldDescriptorProto.TYPE_MESSAGE, label=3,
        type_name=".md.Candle.TagsEntry",
    )  # fmt: skip
    candle.oneof_decl.add(name="_bid")
    candle.field.add(
        name="bid", number=25, type=_KINDS["double"], label=1, oneof_index=0, proto3_optional=True
    )
    return file


def candle_pool() -> DescriptorPool:
    """A pool with the candle's file."""
    pool = DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(candle_file().SerializeToString())
    return pool


def message_class(name: str) -> Any:
    """A message class of the candle's file, as protoc would give it."""
    return message_factory.GetMessageClass(candle_pool().FindMessageTypeByName(name))


def candle_message() -> Any:
    """The candle as a Protobuf message with everything set."""
    message = message_class("md.Candle")(**CANDLE, side=1, ids=[1, 2, 3], tags={"a": "b"})
    message.levels.add(price=1.5, **{"from": "x"})
    message.at.seconds, message.at.nanos = 1_700_000_000, 250_000_000
    return message


# -- HL7, Sparkplug -----------------------------------------------------------------------

ORU = (
    "MSH|^~\\&|MONITOR|ICU^3|EHR|HOSP|20240102030405-0500||ORU^R01^ORU_R01|MSG1|P|2.5.1"
    "||||||UNICODE UTF-8\r"
    "PID|1||12345^^^HOSP^MR~99^^^NAT^NI||Müller^Jörg\\T\\Co||19700101|M\r"
    "OBR|1|||VITALS^Vital signs|||20240102030400\r"
    "OBX|1|NM|8867-4^Heart rate^LN||82|/min^per minute^UCUM|60-100|N|||F|||20240102030401\r"
    'OBX|2|NM|8310-5^Temperature^LN||37.2|Cel||""|||F\r'
    "OBX|3|ST|NOTE^a&b^L||pain\\.br\\5\\F\\10 \\X41\\||||||F\r"
)


def sparkplug(seq: int | None, *metrics: dict[str, Any], timestamp: int = 1000) -> bytes:
    """A Sparkplug payload; a metric is its fields."""
    payload = Payload(timestamp=timestamp)
    if seq is not None:
        payload.seq = seq
    for metric in metrics:
        payload.metrics.add(**metric)
    data: bytes = payload.SerializeToString()
    return data


def born() -> BirthBook:
    """Births with one in it: alias 1 of g/n is temp, a double, alias 2 a signed byte."""
    from flashfeed.codecs.codec import Birth

    book = BirthBook(Metrics())
    book.learn("g/n", Birth({1: ("temp", 10), 2: ("level", 1)}))
    return book


# -- one of each ----------------------------------------------------------------------------


class Sample(NamedTuple):
    """A codec as configured, and messages that it reads."""

    codec: str
    options: dict[str, Any]
    messages: tuple[tuple[bytes, Source], ...]


def write_files(folder: Path) -> tuple[str, str]:
    """A schema file and a descriptor set in a folder."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    avro, proto = folder / "candle.avsc", folder / "candle.desc"
    avro.write_bytes(orjson.dumps(AVRO_CANDLE))
    proto.write_bytes(FileDescriptorSet(file=[candle_file()]).SerializeToString())
    return str(avro), str(proto)


def event(**more: Any) -> dict[str, Any]:
    """A CloudEvent's attributes, and more."""
    return {"specversion": "1.0", "id": "1", "source": "/s", "type": "candle", **more}


def samples(folder: Path) -> list[Sample]:
    """Every codec in every framing that needs no registry, with messages it reads."""
    avro, proto = write_files(folder)
    row = b"BINANCE;1.5;2\n"
    candle = orjson.dumps(CANDLE)
    ce = [(f"ce_{name}", value.encode()) for name, value in event().items()]
    fingerprint = fastavro.schema.fingerprint(
        fastavro.schema.to_parsing_canonical_form(fastavro.parse_schema(AVRO_CANDLE)),
        "CRC-64-AVRO",
    )
    plain = avro_bytes(AVRO_CANDLE, CANDLE)
    metrics = (
        {"name": "a", "alias": 1, "datatype": 10, "double_value": 1.5},
        {"alias": 2, "int_value": 255},
        {"name": "arr", "datatype": 24, "bytes_value": b"\x01\0\0\0\x02\0\0\0"},
    )
    kinds: list[tuple[str, dict[str, Any], list[tuple[bytes, Source]]]] = [
        ("json", {}, [(candle, source())]),
        ("json", {"framing": "confluent"}, [(b"\0\0\0\0\x07" + candle, source())]),
        ("json_lines", {}, [(candle + b"\n" + candle, source())]),
        ("avro", {"schema_file": avro}, [(plain, source())]),
        (
            "avro",
            {"schema_file": avro, "framing": "single_object"},
            [(b"\xc3\x01" + bytes.fromhex(fingerprint) + plain, source())],
        ),
        (
            "protobuf",
            {"descriptor_file": proto, "message": "md.Candle"},
            [(candle_message().SerializeToString(), source())],
        ),
        ("msgpack", {}, [(msgspec.msgpack.encode(CANDLE), source())]),
        ("csv", {"columns": ["a", "b", "c"], "delimiter": ";"}, [(row * 2, source())]),
        ("csv", {}, [(b'a,b\n1,"x, ""y""\n"\n2,3\n', source())]),
        (
            "influx",
            {},
            [
                (
                    b'cpu,host=a\\ b,r=x usage=1.5,n=3i,ok=t,s="q\\" , x" 1700000000000000000\n'
                    b"mem v=2",
                    source(),
                )
            ],
        ),
        ("hl7", {}, [(ORU.encode(), source()), (b"\x0b" + ORU.encode() + b"\x1c\r", source())]),
        (
            "senml",
            {},
            [
                (
                    b'[{"bn":"d/","bt":1.7e9,"bu":"Cel","n":"t","v":1},{"n":"h","t":-1,"vb":true}]',
                    source(),
                )
            ],
        ),
        (
            "sparkplug_b",
            {"birth_wait_s": 0},
            [
                (sparkplug(0, *metrics), source(key=b"spBv1.0/g/NBIRTH/n")),
                (sparkplug(1, *metrics), source(key=b"spBv1.0/g/NDATA/n")),
            ],
        ),
        (
            "cloudevents",
            {},
            [
                (candle, source(headers=ce)),
                (
                    orjson.dumps(event(data=CANDLE)),
                    source(headers=[("content-type", b"application/cloudevents+json")]),
                ),
                (
                    orjson.dumps([event(data_base64="MQ=="), event(data=2)]),
                    source(headers=[("content-type", b"application/cloudevents-batch+json")]),
                ),
            ],
        ),
        (
            "cloudevents",
            {"data": "avro", "data_options": {"schema_file": avro}},
            [(plain, source(headers=ce))],
        ),
    ]
    return [Sample(name, options, tuple(messages)) for name, options, messages in kinds]
