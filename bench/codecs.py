"""What does a record cost, from its bytes to a checked record, on one core?

Every preset reads its own samples: codec, mapping and validation, in us of this thread's
processor time. Three formats read the same candle beside the bare library that they are
built on, which stops at the library's own value:

    json_over_bare_orjson   cryptofeed's JSON beside orjson.loads                     <= 4
    avro_over_fastavro      Confluent's frame beside fastavro.schemaless_reader       <= 2
    protobuf_over_upb       a descriptor file beside upb's parse and eight reads: what a
                            candle holds; the key needs two fields more               <= 3
    protobuf_framed_over_upb   the same with Confluent's frame; reported

Sides take turns and the medians of the rounds count. Exit 1 where a ratio is over its
bound. The last line printed is one JSON object.
"""

from __future__ import annotations

import base64
import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
import orjson
from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import (
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.protobuf.descriptor_pool import DescriptorPool

from flashfeed.agents.births import BirthBook
from flashfeed.agents.metrics import Metrics
from flashfeed.cli.sample_data import candles, cryptofeed_json
from flashfeed.codecs.codec import Codec, Outside, RegistryKind, SchemaRef, SchemaText
from flashfeed.codecs.mapping import Mapping, Source
from flashfeed.codecs.presets import mapping_spec, preset, preset_names
from flashfeed.codecs.registry import codec

BOUNDS = {"json_over_bare_orjson": 4.0, "avro_over_fastavro": 2.0, "protobuf_over_upb": 3.0}
ROUNDS = 21
ROUND_S = 0.01
READS = ("symbol", "start", "open", "high", "low", "close", "volume", "closed")


class Known:
    """One schema, at hand."""

    kind: RegistryKind = "confluent"

    def __init__(self, schema: SchemaText) -> None:
        self._schema = schema

    def find(self, reference: SchemaRef) -> SchemaText:
        """The schema, whatever id asks for it."""
        return self._schema


class Sides(NamedTuple):
    """The same message through flashfeed and through the bare library."""

    ours: Callable[[], Any]
    bare: Callable[[], Any]


def read_file(path: str) -> bytes:
    return Path(path).read_bytes()


def whole(read: Codec, mapping: Mapping, payload: bytes, source: Source) -> Callable[[], Any]:
    """A message's way from bytes to records, as a feed goes it; it returns the last value's."""
    key, topic, stamp, headers = source.key, source.topic, source.timestamp_ms, source.headers

    def run() -> Any:
        beside = Source(key, topic, stamp, headers)
        records: Any = ()
        for value in read(payload, beside):
            records = mapping.parts(value, beside)
        return records

    return run


def candle_sides(
    name: str,
    schema: SchemaText | None,
    payload: bytes,
    bare: Any,
    options: dict[str, str] | None = None,
    files: Callable[[str], bytes] = read_file,
) -> Sides:
    mapping = Mapping(mapping_spec("cryptofeed", {}))
    outside = Outside(files, Known(schema) if schema else None, fields=mapping.fields)
    read = codec(name, options or {}, outside)
    ours = whole(read, mapping, payload, Source(b"candles", "candles-X", 1))
    assert [type(one) for one in ours()] == [tuple]
    return Sides(ours, bare)


def json_sides(candle: dict[str, Any]) -> Sides:
    payload = orjson.dumps(candle)
    return candle_sides("json", None, payload, lambda: orjson.loads(payload))


def avro_sides(candle: dict[str, Any]) -> Sides:
    kinds = {str: "string", float: "double", int: "long", bool: "boolean", type(None): "null"}
    fields = [{"name": key, "type": kinds[type(value)]} for key, value in candle.items()]
    schema = {"type": "record", "name": "Candle", "fields": fields}
    parsed = fastavro.parse_schema(schema)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parsed, candle)
    body = out.getvalue()
    text = SchemaText("AVRO", orjson.dumps(schema).decode())
    return candle_sides(
        "avro",
        text,
        b"\0\0\0\0\1" + body,
        lambda: fastavro.schemaless_reader(io.BytesIO(body), parsed, None),
    )


def protobuf_sides(candle: dict[str, Any], framed: bool) -> Sides:
    kinds = {
        str: FieldDescriptorProto.TYPE_STRING,
        float: FieldDescriptorProto.TYPE_DOUBLE,
        int: FieldDescriptorProto.TYPE_INT64,
        bool: FieldDescriptorProto.TYPE_BOOL,
    }
    file = FileDescriptorProto(name="candle.proto", package="md", syntax="proto3")
    message = file.message_type.add(name="Candle")
    values = {key: value for key, value in candle.items() if value is not None}
    for number, (key, value) in enumerate(values.items(), start=1):
        message.field.add(name=key, number=number, type=kinds[type(value)], label=1)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("md.Candle"))
    body = made(**values).SerializeToString()
    parse = made.FromString

    def bare() -> Any:
        found = parse(body)
        return (
            found.symbol,
            found.start,
            found.open,
            found.high,
            found.low,
            found.close,
            found.volume,
            found.closed,
        )

    assert bare() == tuple(candle[name] for name in READS)
    if framed:
        text = SchemaText("PROTOBUF", base64.b64encode(file.SerializeToString()).decode())
        return candle_sides("protobuf", text, b"\0\0\0\0\1\0" + body, bare)
    descriptors = FileDescriptorSet(file=[file]).SerializeToString()
    options = {"descriptor_file": "candle.desc"}
    return candle_sides("protobuf", None, body, bare, options, lambda _: descriptors)


def measure(*runs: Callable[[], Any]) -> list[float]:
    """us of processor time a call, of each: medians of rounds that take turns."""
    counts = [max(1, int(ROUND_S / _seconds(run, 20) * 20)) for run in runs]
    rounds = [
        [_seconds(run, count) / count * 1e6 for run, count in zip(runs, counts, strict=True)]
        for _ in range(ROUNDS)
    ]
    return [statistics.median(one) for one in zip(*rounds, strict=True)]


def _seconds(run: Callable[[], Any], count: int) -> float:
    began = time.thread_time()
    for _ in range(count):
        run()
    return max(time.thread_time() - began, 1e-9)


def preset_costs() -> list[tuple[str, str, int, float]]:
    """Each preset: its codec, the records of its samples, us a record. Raises ValueError for a
    preset whose samples give none."""
    found = []
    for name in preset_names():
        one = preset(name)
        mapping = Mapping(mapping_spec(name, {}))
        outside = Outside(read_file, births=BirthBook(Metrics()), fields=mapping.fields)
        read = codec(one.codec, one.codec_options, outside)
        fruitful = []
        for sample in one.samples:
            key = None if sample.key is None else sample.key.encode()
            source = Source(key, sample.topic, sample.timestamp_ms, sample.header_list)
            payload = sample.payload
            count = sum(len(mapping(value, source).records) for value in read(payload, source))
            if count:
                fruitful.append((whole(read, mapping, payload, source), count))
        records = sum(count for _, count in fruitful)
        if not records:
            raise ValueError(f"preset {name}: expected samples that give records, got none")
        cost = sum(measure(*(run for run, _ in fruitful))) / records
        found.append((name, one.codec, records, cost))
    return found


def main() -> None:
    """Measure, print, and fail where a ratio is over its bound."""
    candle = orjson.loads(cryptofeed_json("AAPL", next(candles("AAPL"))))
    ratios: dict[str, float] = {}
    print(f"{'one candle, us':28} {'bytes to record':>16} {'bare library':>14} {'ratio':>7}")
    for name, sides in (
        ("json_over_bare_orjson", json_sides(candle)),
        ("avro_over_fastavro", avro_sides(candle)),
        ("protobuf_over_upb", protobuf_sides(candle, framed=False)),
        ("protobuf_framed_over_upb", protobuf_sides(candle, framed=True)),
    ):
        ours, bare = measure(sides.ours, sides.bare)
        ratios[name] = ours / bare
        print(f"{name:28} {ours:16.2f} {bare:14.2f} {ours / bare:7.2f}")
    print(f"\n{'preset':28} {'codec':>12} {'records':>8} {'us a record':>12}")
    costs = preset_costs()
    for name, form, records, cost in costs:
        print(f"{name:28} {form:>12} {records:8} {cost:12.2f}")
    figures = {**ratios, "us_a_record": {name: round(cost, 2) for name, _, _, cost in costs}}
    print(json.dumps({"bench": "codecs", **figures}))
    over = [name for name, bound in BOUNDS.items() if ratios[name] > bound]
    if over:
        sys.exit(f"over the bound: {', '.join(over)}")


if __name__ == "__main__":
    main()
