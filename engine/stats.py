"""What an engine counts of itself, and what it says when it is asked: plain numbers.

kind       what tokens were decoded for. ingest: new data; flash: questions and their
           answers; generate: what somebody reads; background: prefixes, a window's next
           generation, sessions that come back; embed: texts for their vectors, counted beside
           the Meters (embedding_queue.py)
Meters     counted in the engine's thread alone; any thread may read them
EngineStats   everything at one moment, for a scrape
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from .turns import Ask, Part, Priority

Kind: TypeAlias = Literal["ingest", "flash", "generate", "background", "embed"]
KINDS: Final[tuple[Kind, ...]] = ("ingest", "flash", "generate", "background", "embed")
STEP_BOUNDS_S: Final = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
WAIT_BOUNDS_S: Final = (0.0001, *STEP_BOUNDS_S, 30.0, 60.0)
OF_PRIORITY: Final[dict[Priority, Kind]] = {
    Priority.FOREGROUND: "generate",
    Priority.FLASH: "flash",
    Priority.INGEST: "ingest",
    Priority.BACKGROUND: "background",
}


class Buckets:
    """A histogram: how many values were at most each bound, and their sum. One writer."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_all(self, values: Iterable[float]) -> None:
        """Many values at once: one pass in C, where they come almost sorted."""
        ordered = sorted(values)
        below = 0
        for index, bound in enumerate(self.bounds):
            if below == len(ordered):
                break
            upto = bisect_right(ordered, bound, below)
            self.counts[index] += upto - below
            below = upto
        self.counts[-1] += len(ordered) - below
        self.total += sum(ordered)

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """Each bound as Prometheus writes it, +Inf last, and the values up to it."""
        so_far, pairs = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), list(self.counts), strict=True):
            so_far += count
            pairs.append((bound, float(so_far)))
        return pairs


@dataclass(slots=True)
class Spent:
    """Tokens decoded, and the seconds inside llama_decode that are their share."""

    tokens: int = 0
    seconds: float = 0.0


class Meters:
    """What the scheduler counts: tokens by tenant and kind, its steps, and who waits."""

    def __init__(self) -> None:
        self.spent: dict[tuple[str, Kind], Spent] = {}
        self.steps: Final = {one: Buckets(STEP_BOUNDS_S) for one in Priority}
        self.waits: Final = {one: Buckets(WAIT_BOUNDS_S) for one in Priority}
        self.jobs: Final = dict.fromkeys(Priority, 0)

    def step(self, parts: Sequence[Part], seconds: float) -> None:
        """A pass was decoded in so many seconds; its parts share them by their tokens."""
        n_tokens = sum(part.n_tokens for part in parts)
        self.steps[parts[0].job.asked.priority].add(seconds)
        for part in parts:
            ask = part.job.asked
            share = seconds / n_tokens
            data = min(part.n_tokens, ask.data_tokens)
            self._add(part.job.tenant, "ingest", data, share)
            self._add(part.job.tenant, _kind(ask), part.n_tokens - data, share)

    def waited(self, priority: Priority, since_s: float) -> None:
        """A job that came at `since_s` (time.perf_counter()) has its first turn."""
        self.waits[priority].add(time.perf_counter() - since_s)

    def _add(self, tenant: str, kind: Kind, tokens: int, share: float) -> None:
        if tokens:
            spent = self.spent.setdefault((tenant, kind), Spent())
            spent.tokens += tokens
            spent.seconds += tokens * share


def _kind(ask: Ask) -> Kind:
    return "background" if ask.again else OF_PRIORITY[ask.priority]


@dataclass(frozen=True)
class LoadedModel:
    """A model that is loaded: bytes of its weights and KV caches."""

    name: str
    hash: str
    weights_bytes: int
    kv_bytes: int


@dataclass(frozen=True, kw_only=True)
class EngineStats:
    """An engine at one moment. What counts since the start only grows.

    `spent` is by tenant and kind; `jobs` wait or run, `steps` are passes by what led them,
    `waits` the time from a job's coming to its first turn, all by kind; `sessions` by state
    (resident, evicted, rebuilding); `restores` by source (snapshot, decode); `snapshots` by
    what became of them (saved, refused, skipped).
    """

    spent: Mapping[tuple[str, Kind], Spent] = field(default_factory=dict)
    jobs: Mapping[str, int] = field(default_factory=dict)
    steps: Mapping[str, Buckets] = field(default_factory=dict)
    waits: Mapping[str, Buckets] = field(default_factory=dict)
    sessions: Mapping[str, int] = field(default_factory=dict)
    restores: Mapping[str, int] = field(default_factory=dict)
    snapshots: Mapping[str, int] = field(default_factory=dict)
    evictions: int = 0
    kv_cells: int = 0
    kv_cells_used: int = 0
    kv_bytes: int = 0
    kv_bytes_max: int = 0
    seats: int = 0
    seats_max: int = 0
    models: tuple[LoadedModel, ...] = ()
    devices: tuple[str, ...] = ()
    llama_cpp: str = ""
