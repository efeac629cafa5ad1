"""What is fed while faults come: candles of many symbols, from a seed. Pure.

A candle's start is its number in minutes, so that each is known by (symbol, number). Some come
twice, some late (behind one or two that are newer), and among them lies what nobody can use.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

START_S = 1_700_000_000
MINUTE_S = 60
LATE_MAX = 2
"""A late one has at most so many newer ones before it: fewer than any window holds, so that
it has its place in the window whenever it comes."""
TWICE, LATE, POISON = 0.05, 0.08, 0.04
LARGE_BYTES = 10_000_000
LARGE_EACH = 25
"""One poison in so many is of LARGE_BYTES: three brokers keep each."""


class Candle(NamedTuple):
    """A symbol's candle: its number, and its close, which says all of the others."""

    number: int
    close: int

    def fields(self, symbol: str) -> dict[str, object]:
        """As the source has it."""
        start = START_S + MINUTE_S * self.number
        close = self.close
        return {"s": symbol, "t": start, "o": close, "h": close, "l": close, "c": close, "v": 1}


class Sent(NamedTuple):
    """A source record. `candle` None: poison, of which `poison` is the kind."""

    session: str
    value: bytes
    candle: Candle | None
    twice: bool = False
    poison: str = ""


def symbols(count: int) -> list[str]:
    """The sessions' names."""
    return [f"s{number:03d}" for number in range(count)]


def feed(seed: int, names: list[str]) -> Iterator[Sent]:
    """Records without end, each session in its turn by chance."""
    chance = random.Random(seed)
    each = {name: _session(random.Random(f"{seed}/{name}"), name) for name in names}
    poisons = 0
    while True:
        order = chance.sample(names, len(names))
        for name in order:
            yield next(each[name])
            if chance.random() < POISON:
                kinds = sorted(POISONS)
                kind = kinds[poisons % len(kinds)] if poisons % LARGE_EACH else "large"
                poisons += 1
                yield Sent(name, POISONS[kind](name), None, poison=kind)


def _session(chance: random.Random, name: str) -> Iterator[Sent]:
    """One symbol's candles, as they are sent."""
    close, number = chance.randrange(100, 900), 0
    newest: list[Candle] = []
    while True:
        batch: list[Candle] = []
        for _ in range(LATE_MAX + 1):
            close = min(999, max(100, close + chance.randrange(-20, 21)))
            batch.append(Candle(number, close))
            number += 1
        # The first of all is never late: what is older than the window is counted, not kept.
        if batch[0].number and chance.random() < LATE * len(batch):
            batch.insert(chance.randrange(1, LATE_MAX + 1), batch.pop(0))
        for candle in batch:
            yield _sent(name, candle)
            newest = [*newest, candle][-LATE_MAX:]
            if chance.random() < TWICE:
                yield _sent(name, chance.choice(newest), twice=True)


def _sent(name: str, candle: Candle, twice: bool = False) -> Sent:
    return Sent(name, json.dumps(candle.fields(name)).encode(), candle, twice)


def _broken(name: str) -> bytes:
    return b'{"s": "' + name.encode() + b'", "t": 17'


def _wrong_schema(name: str) -> bytes:
    return json.dumps({"symbol": name, "price": "high"}).encode()


def _not_a_number(name: str) -> bytes:
    fields = Candle(0, 1).fields(name) | {"c": float("nan")}
    return json.dumps(fields).encode()


def _endless(name: str) -> bytes:
    return json.dumps(Candle(0, 1).fields(name)).replace('"c": 1', '"c": 1e999').encode()


def _deep(_name: str) -> bytes:
    return b"[" * 100_000 + b"]" * 100_000


def _large(name: str) -> bytes:
    return json.dumps({"s": name, "t": "x" * LARGE_BYTES}).encode()


def _msgpack(name: str) -> bytes:
    return msgspec.msgpack.encode(Candle(0, 1).fields(name))


def _avro(name: str) -> bytes:
    return b"\x00\x00\x00\x00\x07" + bytes([len(name) * 2]) + name.encode() + b"\x02\x04\x06"


def _csv(name: str) -> bytes:
    return f"{name},1700000000,1,1,1,1,1\n".encode()


def _names_nobody(_name: str) -> bytes:
    return json.dumps(Candle(0, 1).fields("")).encode()


POISONS: dict[str, Callable[[str], bytes]] = {
    "broken": _broken,
    "wrong_schema": _wrong_schema,
    "nan": _not_a_number,
    "infinite": _endless,
    "deep": _deep,
    "large": _large,
    "msgpack": _msgpack,
    "avro": _avro,
    "csv": _csv,
    "no_session": _names_nobody,
}
