"""What it costs that a step keeps its time: a session behind by hundreds of records, real model.

The same records wait at one session's owner (agents/session_owner.py) with nothing but memory
behind it; sides interleave, and the median of the rounds' ratios counts.

    large       steps of as many records as wait: the best throughput there is
    timed       steps that keep half of the answer deadline (agents/step_size.py)
    idle        a record that comes alone, from its owner; bare: engine.update of one line

    timed_over_large    records a second                          >= 0.5, what is promised
    idle_over_bare      milliseconds to the answers               <= 1.25
    longest_step_s      of the timed steps, in the engine; the deadline is twice `step_s`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flashfeed.agents.metrics import Metrics
from flashfeed.agents.session_outputs import OutputTopics
from flashfeed.agents.session_owner import OwnerParts, SessionOwner
from flashfeed.agents.session_step import Waiting, any_feed
from flashfeed.agents.step_size import step_seconds
from flashfeed.engine import Engine, EngineSettings, Update, fastest_form, find_packaged_model
from flashfeed.models.messages import PackedRecord, Records
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec, with_query_ids

OVER_LARGE_MIN, IDLE_OVER_BARE_MAX = 0.5, 1.25
QUESTIONS = (
    FlashQuery("Is the last value high or low?", choices=("high", "low")),
    FlashQuery("Is it rising or falling?", choices=("rising", "falling")),
)
SPEC = with_query_ids(
    SessionSpec(type="iot", window=WindowSpec("grow", 64), flash=QUESTIONS, overflow="block")
)


class Nowhere:
    """A StepWriter that keeps nothing."""

    atomic = True

    async def publish(self, *_: Any) -> None:
        """Nothing."""


@dataclass
class Measured:
    """An engine that notes what its updates did."""

    engine: Engine
    updates: list[Update] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    async def update(
        self, session_id: str, lines: Sequence[str], queries: Sequence[FlashQuery], rewind: int = 0
    ) -> Update:
        """An update of the engine."""
        done = await self.engine.update(session_id, lines, queries, rewind=rewind)
        self.updates.append(done)
        return done


class Session:
    """A session's owner, and when all that was put is settled."""

    def __init__(self, name: str, engine: Measured, step_s: float) -> None:
        self._engine = engine
        self._put = 0
        self._settled = asyncio.Queue[int]()
        may_step = asyncio.Event()
        may_step.set()
        nowhere: Any = Nowhere()
        measured: Any = engine
        parts = OwnerParts(
            engine=measured,
            steps=nowhere,
            metrics=Metrics(),
            templates=lambda _: SPEC,
            admit=any_feed,
            queue_records_max=10_000,
            topics=OutputTopics("/bench", "", "", "", "", ""),
            publish=lambda _: None,
            ended=lambda _: None,
            settled=lambda _, offset, __: self._settled.put_nowait(offset),
            fatal=lambda error: print(error, file=sys.stderr),
            may_step=may_step,
            step_s=step_s,
        )
        self.owner = SessionOwner(name, 0, parts)
        self.owner.start()

    async def take(self, records: int) -> tuple[float, list[Update]]:
        """Seconds until so many records, put at once, are answered; and their updates."""
        self._engine.updates.clear()
        began = time.perf_counter()
        for number in range(self._put, self._put + records):
            record = PackedRecord(number, 0, 0, {"sid": "a", "val": float(number % 97)})
            message = Records(type="iot", records=(record,), topic="t", template="x")
            self.owner.put(Waiting(number, message))
        self._put += records
        while await self._settled.get() < self._put - 1:
            pass
        return time.perf_counter() - began, list(self._engine.updates)

    async def stop(self) -> None:
        """Give its place in the engine back."""
        await self.owner.stop()


async def behind(
    engine: Measured, step_s: float, records: int, name: str
) -> tuple[float, list[Update]]:
    """Records a second of a session that has answered before; and its updates."""
    session = Session(name, engine, step_s)
    await session.take(1)
    seconds, updates = await session.take(records)
    await session.stop()
    return records / seconds, updates


async def idle(engine: Measured, step_s: float, times: int) -> tuple[float, float]:
    """Milliseconds to a lone record's answers, from its owner and from the engine."""
    session = Session("idle", engine, step_s)
    await session.take(8)
    ours: list[float] = []
    bare: list[float] = []
    for number in range(times):
        ours.append((await session.take(1))[0])
        began = time.perf_counter()
        await engine.update("idle", [f"a {number}"], SPEC.flash)
        bare.append(time.perf_counter() - began)
    await session.stop()
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    return ratio, 1000 * statistics.median(ours)


async def measure(deadline_ms: int, records: int, rounds: int) -> dict[str, Any]:
    """All sides."""
    step_s = step_seconds(deadline_ms)
    settings = EngineSettings(
        model_path=fastest_form(find_packaged_model()), context_tokens=8192, sessions_max=2
    )
    rates: dict[str, list[float]] = {"timed": [], "large": []}
    steps: dict[str, list[Update]] = {"timed": [], "large": []}
    async with Engine(settings) as bare:
        engine = Measured(bare)
        over_bare, idle_ms = await idle(engine, step_s, 4 * rounds)
        for number in range(rounds):
            order = ("timed", "large") if number % 2 else ("large", "timed")
            for side in order:
                time_s = step_s if side == "timed" else math.inf
                rate, updates = await behind(engine, time_s, records, f"{side}-{number}")
                rates[side].append(rate)
                steps[side] += updates
    ratios = [a / b for a, b in zip(rates["timed"], rates["large"], strict=True)]
    return {
        "bench": "step_size",
        "answer_deadline_ms": deadline_ms,
        "step_s": step_s,
        "records": records,
        "timed_over_large": round(statistics.median(ratios), 3),
        "idle_over_bare": round(over_bare, 3),
        "idle_ms": round(idle_ms),
        "timed_records_per_s": round(statistics.median(rates["timed"]), 1),
        "large_records_per_s": round(statistics.median(rates["large"]), 1),
        "timed_steps": len(steps["timed"]) // rounds,
        "large_steps": len(steps["large"]) // rounds,
        "longest_step_s": round(max(one.decode_s for one in steps["timed"]), 2),
        "median_step_s": round(statistics.median(one.decode_s for one in steps["timed"]), 2),
        "longest_large_s": round(max(one.decode_s for one in steps["large"]), 2),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--deadline-ms", type=int, default=2000)
    arguments.add_argument("--records", type=int, default=240)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    found = asyncio.run(measure(given.deadline_ms, given.records, given.rounds))
    found["pass"] = (
        found["timed_over_large"] >= OVER_LARGE_MIN
        and found["idle_over_bare"] <= IDLE_OVER_BARE_MAX
    )
    for name, value in found.items():
        print(f"{name:<22}{value}")
    print(json.dumps(found))
    sys.exit(not found["pass"])


if __name__ == "__main__":
    main()
