"""When which fault comes, from a seed. Pure.

The time is cut into slots, one for each kill. A slot has one kill of a worker and one other
fault; either may come first, and they may overlap. Each kind of fault is dealt once before any
comes again. A fault that takes a broker away ends in its slot, so that no two are away at a time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What goes wrong. Of a worker, unless it says otherwise."""

    KILL = "kill -9 of a worker"
    STALL = "SIGSTOP of a worker past the session timeout"
    CUT = "one worker and one broker cannot reach one another: nothing comes, nothing is refused"
    RESET = "connections between one worker and one broker are reset and refused"
    ISLAND = "a worker reaches no broker, past the session timeout"
    BROKER_KILL = "kill -9 of a broker"
    BROKER_RESTART = "a broker is stopped in order and started again: its leaders move"
    BROKER_STALL = "SIGSTOP of a broker: the others take its partitions"
    DISK_FULL = "no room for a worker's snapshots"


OTHERS = tuple(kind for kind in Kind if kind is not Kind.KILL)
LAST_S = 4.0
"""Nothing goes wrong in the last seconds of a slot."""


class Fault(NamedTuple):
    """One fault: from `at_s` on, for `lasts_s`. `worker` and `broker` count from 0; those that
    a kind does not need mean nothing."""

    at_s: float
    kind: Kind
    lasts_s: float
    worker: int
    broker: int

    @property
    def heals_s(self) -> float:
        """When it is over."""
        return self.at_s + self.lasts_s


def schedule(
    seed: int,
    seconds: float,
    kills: int,
    workers: int,
    brokers: int,
    session_timeout_s: float,
    kinds: Sequence[Kind] = OTHERS,
) -> list[Fault]:
    """The faults of a run, by time. The same arguments give the same faults."""
    chance = random.Random(seed)
    deal = _dealt(chance, kinds)
    slot_s = seconds / kills
    faults: list[Fault] = []
    for number in range(kills):
        begins, room = number * slot_s, max(1.0, slot_s - LAST_S)

        def fault(kind: Kind, lasts_s: float, begins: float = begins, room: float = room) -> Fault:
            lasts_s = min(lasts_s, room)
            at_s = begins + chance.uniform(0, room - lasts_s)
            who = chance.randrange(workers), chance.randrange(brokers)
            return Fault(round(at_s, 2), kind, round(lasts_s, 2), *who)

        # A worker comes back at once, within its session, or after it.
        faults.append(fault(Kind.KILL, chance.uniform(0, 1.5 * session_timeout_s)))
        kind = next(deal)
        faults.append(fault(kind, _length_s(chance, kind, session_timeout_s)))
    return sorted(faults, key=lambda fault: fault.at_s)


def _dealt(chance: random.Random, kinds: Sequence[Kind]) -> Iterator[Kind]:
    while True:
        yield from chance.sample(list(kinds), len(kinds))


def _length_s(chance: random.Random, kind: Kind, session_timeout_s: float) -> float:
    if kind in (Kind.STALL, Kind.ISLAND):
        return chance.uniform(1.5, 2.5) * session_timeout_s
    if kind is Kind.BROKER_STALL:
        return chance.uniform(11.0, 16.0)  # the controller gives a broker up after 9 s
    if kind in (Kind.BROKER_KILL, Kind.BROKER_RESTART):
        return chance.uniform(1.0, 6.0)
    if kind is Kind.DISK_FULL:
        return chance.uniform(10.0, 25.0)
    return chance.uniform(3.0, 2.0 * session_timeout_s)
