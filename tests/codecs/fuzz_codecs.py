"""Mutated messages into every codec and every preset: records, counted skips and dead letters
with a reason, and nothing else; and in time.

`python tests/codecs/fuzz_codecs.py [COUNT [SEED]]` runs COUNT (100,000) of them; the tests
run fewer. They go the way that a feed's go, up to the bytes that are written. A message is a
sample with bytes changed, cut, doubled or crossed with another format's; now and then what is
changed is its key, its topic or a header.
"""

from __future__ import annotations

import base64
import gc
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from flashfeed.agents.feeds import Feed, read_batch
from flashfeed.agents.transport import Batch
from flashfeed.codecs.codec import Codec, SchemaRef, SchemaText, Wanted
from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.parts import Source
from flashfeed.codecs.presets import mapping_spec, preset, preset_names
from flashfeed.codecs.registry import codec
from flashfeed.models.feed import MappingSpec
from flashfeed.models.messages import decode_message, encode_message

sys.path.insert(0, str(Path(__file__).parents[1]))

from codec_samples import (
    AVRO_CANDLE,
    CANDLE,
    KnownSchemas,
    avro_bytes,
    born,
    candle_file,
    candle_message,
    outside,
    samples,
    source,
)

SLOW_S = 0.05
BYTES_MAX = 4096
BESIDE_SHARE = 0.2
TREE: dict[str, Any] = {
    "type": "record",
    "name": "Tree",
    "fields": [
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9}},
        {"name": "next", "type": ["null", "Tree"]},
        {"name": "more", "type": {"type": "array", "items": "Tree"}},
        {"name": "by", "type": {"type": "map", "values": ["null", "string", "Tree"]}},
    ],
}
# Bytes that mean something to one format or another.
SPICE = (
    b"\x00", b"\xff", b"\x80", b"\x7f", b"\xff" * 9 + b"\x01", b"\xfe\xff\xff\xff\x0f", b"\n",
    b"\r", b"|", b"^", b"\\", b'"', b",", b"=", b" ", b"{", b"[", b"[" * 300, b"\x91" * 300,
    b"e309", b"1e999", b"-", b"9" * 400, b"\xdd\xff\xff\xff\xff", b"\x0b", b"~", b"&", b"null",
)  # fmt: skip
# What a codec's own samples are mapped by; the presets have theirs.
PLAIN = MappingSpec(
    model="iot", key="@key|@topic", map={"sid": "=s", "val": "v|close|b|a|data.close"}
)
MAPPINGS = {
    "influx": MappingSpec(
        model="iot",
        key="^name",
        each="fields{}",
        time="^timestamp:ns",
        map={"sid": "{@k}", "val": "@v"},
    ),
    "hl7": MappingSpec(
        model="iot", key="=k", each="OBX[]", time="14.1:hl7", map={"sid": "3.1", "val": "5.1"}
    ),
    "sparkplug_b": MappingSpec(
        model="iot", key="^edge", each="metrics[]", map={"sid": "name", "val": "value"}
    ),
}


class Target(NamedTuple):
    """A feed, what it is called, and messages it reads."""

    name: str
    feed: Feed
    messages: tuple[tuple[bytes, Source], ...]


class Raw(NamedTuple):
    """A record as it is fetched."""

    value: bytes
    key: bytes | None
    topic: str
    timestamp: int | None
    headers: Sequence[tuple[str, bytes]]
    offset: int = 7
    partition: int = 0


class Result(NamedTuple):
    """What became of the messages, and the slowest of them."""

    outcomes: Counter[str]
    slowest_s: float
    slowest: str


def targets(folder: Path) -> list[Target]:
    """Every codec with its samples, those with a registry too, and every preset with its own."""
    found = []
    for sample in samples(folder):
        mapping = Mapping(MAPPINGS.get(sample.codec, PLAIN))
        beside = replace(outside(births=born()), fields=mapping.fields)
        read = codec(sample.codec, sample.options, beside)
        found.append(_target(sample.codec, read, mapping, sample.messages))
    schemas = KnownSchemas()
    descriptor = base64.b64encode(candle_file().SerializeToString()).decode()
    schemas.texts = {
        SchemaRef("id", 1): SchemaText("AVRO", _json(AVRO_CANDLE)),
        SchemaRef("id", 2): SchemaText("AVRO", _json(TREE)),
        SchemaRef("id", 3): SchemaText("PROTOBUF", descriptor),
    }
    leaf = {"price": b"\x01", "next": None, "more": [], "by": {}}
    tree = {**leaf, "next": leaf, "more": [leaf], "by": {"a": "x", "b": leaf}}
    raw = {**TREE, "fields": [{"name": "price", "type": "bytes"}, *TREE["fields"][1:]]}
    avro = (
        (b"\0\0\0\0\1" + avro_bytes(AVRO_CANDLE, CANDLE), source()),
        (b"\0\0\0\0\2" + avro_bytes(raw, tree), source()),
    )
    proto = ((b"\0\0\0\0\3\2\2" + candle_message().SerializeToString(), source()),)
    for name, messages in (("avro", avro), ("protobuf", proto)):
        read = codec(name, {}, outside(schemas))
        found.append(_target(name, read, Mapping(PLAIN), messages))
    return found + [_preset_target(name) for name in preset_names()]


def _target(
    name: str, read: Codec, mapping: Mapping, messages: tuple[tuple[bytes, Source], ...]
) -> Target:
    spec = mapping.spec
    return Target(name, Feed(name, "x", spec.model, read, mapping, lambda key: key), messages)


def _preset_target(name: str) -> Target:
    one = preset(name)
    mapping = Mapping(mapping_spec(name, {}))
    beside = replace(outside(births=born()), fields=mapping.fields)
    messages = tuple(
        (
            sample.payload,
            Source(
                None if sample.key is None else sample.key.encode(),
                sample.topic,
                sample.timestamp_ms,
                sample.header_list,
            ),
        )
        for sample in one.samples
    )
    read = codec(one.codec, one.codec_options, beside)
    return _target(f"preset {name}", read, mapping, messages)


def _json(schema: Any) -> str:
    import orjson

    return orjson.dumps(schema).decode()


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """The data with one to six changes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(7)
        if kind == 0 and changed:
            changed[min(at, len(changed) - 1)] = rng.randrange(256)
        elif kind == 1 and changed:
            changed[min(at, len(changed) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            changed[at:at] = rng.choice(SPICE)
        elif kind == 3:
            del changed[at : at + rng.randint(1, 16)]
        elif kind == 4:
            piece = changed[at : at + rng.randint(1, 64)]
            changed[at:at] = piece * rng.randint(1, 8)
        elif kind == 5:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            changed[at:at] = other[start : start + rng.randint(1, 64)]
        else:
            del changed[at:]
    return bytes(changed[:BYTES_MAX])


def mutate_beside(rng: random.Random, beside: Source, others: list[bytes]) -> Source:
    """The key, the topic, a header or the time changed."""
    kind = rng.randrange(4)
    if kind == 0:
        key = rng.choice((None, mutate(rng, beside.key or b"", others)))
        return Source(key, beside.topic, beside.timestamp_ms, beside.headers)
    if kind == 1 and beside.headers:
        at = rng.randrange(len(beside.headers))
        name, value = beside.headers[at]
        changed = [*beside.headers]
        changed[at : at + 1] = rng.choice(([], [(name, mutate(rng, value or b"", others))]))
        return Source(beside.key, beside.topic, beside.timestamp_ms, changed)
    if kind == 2:
        topic = mutate(rng, beside.topic.encode(), others).decode("latin-1")
        return Source(beside.key, topic, beside.timestamp_ms, beside.headers)
    time_ms = rng.choice((None, 0, -1, 2**62))
    return Source(beside.key, beside.topic, time_ms, beside.headers)


def fuzz(count: int, seed: int) -> Result:
    """Run that many messages. Raises AssertionError, with the message, where one does what
    no message may."""
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    slowest, slowest_what = 0.0, ""
    with tempfile.TemporaryDirectory() as folder:
        ready = targets(Path(folder))
    everything = [payload for target in ready for payload, _ in target.messages]
    # What was imported is not a message's to look through.
    gc.collect()
    gc.freeze()
    for number in range(count):
        target = ready[number % len(ready)]
        payload, beside = rng.choice(target.messages)
        if rng.random() < BESIDE_SHARE:
            beside = mutate_beside(rng, beside, everything)
        if rng.random() >= BESIDE_SHARE:
            payload = mutate(rng, payload, everything)
        took, found = _one(target, payload, beside)
        if took > SLOW_S:  # once more: another process may have had the core
            took = min(took, _one(target, payload, beside)[0])
        assert took <= SLOW_S, f"{target.name} took {took * 1e3:.0f} ms for {payload!r}"
        outcomes.update(f"{target.name}: {outcome}" for outcome in found)
        if took > slowest:
            slowest, slowest_what = took, f"{target.name} {payload[:80]!r}"
    return Result(outcomes, slowest, slowest_what)


def _one(target: Target, payload: bytes, beside: Source) -> tuple[float, set[str]]:
    """How long the message took, and what became of its parts."""
    raw: Any = Raw(payload, beside.key, beside.topic, beside.timestamp_ms, beside.headers)
    began = time.thread_time()
    try:
        read = read_batch(Batch(beside.topic, 0, 0, [raw]), target.feed)
        for _, message in read.messages:
            assert decode_message(encode_message(message)) == message
        written = [letter.write("dead") for letter in read.dead_letters]
    except Wanted:
        return time.thread_time() - began, {"wanted"}
    except BaseException as error:
        raise AssertionError(f"{target.name} raised {error!r} for {payload!r}, {beside}") from error
    took = time.thread_time() - began
    assert read.records == sum(len(message.records) for _, message in read.messages)
    for letter in read.dead_letters:
        assert letter.reason and letter.path and letter.detail, (target.name, payload)
    assert len(written) == len(read.dead_letters)
    found = {letter.reason for letter in read.dead_letters}
    found |= {"skipped"} if read.skipped else set()
    found |= {"record"} if read.records else set()
    assert found, f"{target.name}: nothing became of {payload!r}, {beside}"
    return took, found


def main() -> None:
    """Fuzz, and say what came out."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)
    print(f"{count} messages, seed {seed}")
    result = fuzz(count, seed)
    for outcome, times in sorted(result.outcomes.items()):
        print(f"{outcome:40} {times:8}")
    print(f"slowest {result.slowest_s * 1e3:.1f} ms: {result.slowest}")


if __name__ == "__main__":
    main()
