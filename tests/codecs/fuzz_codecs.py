"""Mutated messages into every codec: a value, a DecodeFault or a Wanted, and in time.

`python tests/codecs/fuzz_codecs.py [COUNT [SEED]]` runs COUNT (100,000) of them; the tests
run fewer. What a codec gives is mapped too, so that no value upsets what stands behind it.
A message is a sample with bytes changed, cut, doubled or crossed with another format's.
"""

from __future__ import annotations

import base64
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from flashfeed.codecs.codec import Codec, SchemaRef, SchemaText, Wanted
from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.parts import Source
from flashfeed.codecs.registry import codec
from flashfeed.models.errors import DecodeFault
from flashfeed.models.feed import MappingSpec

sys.path.insert(0, str(Path(__file__).parents[1]))

from codec_samples import (
    AVRO_CANDLE,
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
MAPPINGS = [
    Mapping(
        MappingSpec(model="iot", key="n|@key|=k", time="t:s", map={"sid": "n", "val": "v|close"})
    ),
    Mapping(
        MappingSpec(
            model="iot",
            key="^name|=k",
            each="fields{}",
            time="^timestamp:iso",
            map={"sid": "{@k}", "val": "@v"},
        )
    ),
    Mapping(
        MappingSpec(
            model="iot", key="=k", each="OBX[]", time="14.1:hl7", map={"sid": "3.1", "val": "5.1"}
        )
    ),
]


class Target(NamedTuple):
    """A codec, what it is called, and messages it reads."""

    name: str
    read: Codec
    messages: tuple[tuple[bytes, Source], ...]


class Result(NamedTuple):
    """What became of the messages, and the slowest of them."""

    outcomes: Counter[str]
    slowest_s: float
    slowest: str


def targets(folder: Path) -> list[Target]:
    """Every codec with its samples, those with a registry too."""
    found = [
        Target(sample.codec, codec(sample.codec, sample.options, outside(births=born())), messages)
        for sample in samples(folder)
        for messages in (sample.messages,)
    ]
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
        (b"\0\0\0\0\1" + avro_bytes(AVRO_CANDLE, _candle()), source()),
        (b"\0\0\0\0\2" + avro_bytes(raw, tree), source()),
    )
    proto = ((b"\0\0\0\0\3\2\2" + candle_message().SerializeToString(), source()),)
    found.append(Target("avro", codec("avro", {}, outside(schemas)), avro))
    found.append(Target("protobuf", codec("protobuf", {}, outside(schemas)), proto))
    return found


def _json(schema: Any) -> str:
    import orjson

    return orjson.dumps(schema).decode()


def _candle() -> dict[str, Any]:
    from codec_samples import CANDLE

    return CANDLE


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


def fuzz(count: int, seed: int) -> Result:
    """Run that many messages. Raises AssertionError, with the message, where one does what
    no message may."""
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    slowest, slowest_what = 0.0, ""
    with tempfile.TemporaryDirectory() as folder:
        ready = targets(Path(folder))
    everything = [payload for target in ready for payload, _ in target.messages]
    for number in range(count):
        target = ready[number % len(ready)]
        payload, beside = rng.choice(target.messages)
        payload = mutate(rng, payload, everything)
        took, outcome = _one(target, payload, beside)
        if took > SLOW_S:  # once more: another process may have had the core
            took = min(took, _one(target, payload, beside)[0])
        assert took <= SLOW_S, f"{target.name} took {took * 1e3:.0f} ms for {payload!r}"
        outcomes[f"{target.name}: {outcome}"] += 1
        if took > slowest:
            slowest, slowest_what = took, f"{target.name} {payload[:80]!r}"
    return Result(outcomes, slowest, slowest_what)


def _one(target: Target, payload: bytes, beside: Source) -> tuple[float, str]:
    began = time.thread_time()
    try:
        values = target.read(payload, beside)
    except DecodeFault as fault:
        assert fault.reason and fault.path and str(fault), payload
        return time.thread_time() - began, fault.reason
    except Wanted:
        return time.thread_time() - began, "wanted"
    except BaseException as error:
        raise AssertionError(f"{target.name} raised {error!r} for {payload!r}") from error
    took = time.thread_time() - began
    for value in values:
        if not isinstance(value, DecodeFault):
            for mapping in MAPPINGS:
                mapping(value, beside)
    return took, "read" if values else "nothing"


def main() -> None:
    """Fuzz, and say what came out."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)
    print(f"{count} messages, seed {seed}")
    result = fuzz(count, seed)
    for outcome, times in sorted(result.outcomes.items()):
        print(f"{outcome:32} {times:8}")
    print(f"slowest {result.slowest_s * 1e3:.1f} ms: {result.slowest}")


if __name__ == "__main__":
    main()
