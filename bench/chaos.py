"""Records under faults: real workers and brokers, troubled at random, and every record compared.

    python bench/chaos.py --seed 1 --minutes 20          (make chaos)

A feed of candles with duplicates, late ones and poison goes to real workers (real model, one
question each session) over a cluster of Apache Kafka, while chaos_schedule.py's faults come:
workers killed and stalled, brokers killed, restarted and stalled, the network between one worker
and a broker cut, the snapshots' disk full. Then everything is healed, and what was fed is held
against what is committed and what the sessions hold (chaos_verdict.py says what each figure is).

The last line is JSON. It fails (exit 1) where a figure is out of its bound, where there was no
kill, or nothing to compare. `exits` counts workers that ended by themselves, and were started
again as a supervisor would; `--logs DIR` keeps every log.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import chaos_readings as readings
from chaos_faults import make_trouble
from chaos_feed import feed, symbols
from chaos_rig import PARTITIONS, Rig, rig
from chaos_schedule import OTHERS, Kind, schedule
from chaos_verdict import (
    Source,
    Trouble,
    Verdict,
    by_session,
    failures,
    recoveries,
    unapplied,
    verdict,
)

from flashfeed.agents.key_partition import partition_of

KILLS_A_MINUTE = 25 / 20
DRAIN_SILENT_S = 90.0
"""Nothing new for so long, and what is missing then is lost."""
TAIL_S = 12.0
"""The feed goes on behind the last fault."""


@dataclass(frozen=True)
class Run:
    """What is run. `rate` is source records a second."""

    seed: int = 1
    minutes: float = 20.0
    sessions: int = 200
    workers: int = 3
    brokers: int = 3
    rate: float = 2.0
    kills: int = 0
    session_timeout_s: float = 6.0
    sample: int = 20
    kinds: tuple[Kind, ...] = OTHERS

    @property
    def seconds(self) -> float:
        """For how long faults come."""
        return self.minutes * 60

    @property
    def kills_wanted(self) -> int:
        """How many kills: 25 in 20 minutes where the run does not say."""
        return self.kills or max(1, round(self.minutes * KILLS_A_MINUTE))


@dataclass
class Outcome:
    """Figures, and what is behind them."""

    verdict: Verdict
    failures: list[str]
    exits: list[str]


async def chaos(run: Run, home: Path) -> Outcome:
    """One run, whole."""
    names = symbols(run.sessions)
    faults = schedule(
        run.seed,
        run.seconds,
        run.kills_wanted,
        run.workers,
        run.brokers,
        run.session_timeout_s,
        run.kinds,
    )
    async with rig(home, run.workers, run.brokers, run.sessions, run.session_timeout_s) as troubled:
        say(f"ready; snapshots' disk: {troubled.disk}")
        troubled.began_s = time.time()
        over = asyncio.Event()
        feeding = asyncio.create_task(
            readings.send(troubled.bootstrap, feed(run.seed, names), run.rate, over)
        )
        troubles = await make_trouble(troubled, faults)
        await asyncio.sleep(TAIL_S)
        over.set()
        source = await feeding
        say(f"fed {len(source)} records; waiting until they are applied")
        drained_s = await drain(troubled, source)
        outcome = await judge(run, troubled, source, troubles)
        exits = [word for seat in troubled.seats for word in seat.exits]
        figures = outcome.figures
        figures |= {"drained_s": round(drained_s, 1), "exits": len(exits)}
        figures |= {f"disk_{troubled.disk}": 1}
    wrong = failures(figures, run.kills_wanted, run.session_timeout_s)
    return Outcome(outcome, wrong, exits)


async def drain(troubled: Rig, source: Sequence[Source]) -> float:
    """Wait until every record is in a version or a dead letter; the seconds it took. Where
    nothing more comes for DRAIN_SILENT_S it returns too: the verdict says what is missing."""
    began = moved = time.monotonic()
    before = -1
    while True:
        updated = await readings.updates(troubled.bootstrap)
        letters = await readings.letters(troubled.bootstrap)
        now = time.monotonic()
        if not unapplied(source, letters, updated):
            return now - began
        if len(updated) + len(letters) > before:
            before, moved = len(updated) + len(letters), now
        if now - moved > DRAIN_SILENT_S:
            return now - began
        await asyncio.sleep(1.5)


async def judge(
    run: Run, troubled: Rig, source: Sequence[Source], troubles: Sequence[Trouble]
) -> Verdict:
    """Read everything once more, and count."""
    brokers = troubled.bootstrap
    candles = by_session(source)
    states = await readings.held(troubled, sorted(candles))
    updated = await readings.updates(brokers)
    answered, last = await readings.answers(brokers)
    final = readings.finals(states, await readings.heads(brokers))
    config = readings.config_of(troubled)
    queries = [one.id for one in config.templates["market"].spec().flash]
    found = verdict(source, await readings.letters(brokers), updated, answered, final, queries)
    chosen = random.Random(run.seed).sample(sorted(candles), min(run.sample, len(candles)))
    compared = await readings.compare(config, candles, states, last, chosen)
    found.note("wrong_sessions", compared.wrong)
    seen = (
        await readings.claims(brokers),
        times((one.session, one.at_s) for one in updated),
        times((one.session, one.sent_s) for one in source if one.candle and not one.repeats),
    )
    back = recoveries(troubles, *seen)
    raw = [s for kill in troubles if kill.url for _, _, s in recoveries([kill], *seen)]
    slowest = max((seconds for _, _, seconds in back), default=0.0)
    found.details["recoveries"] = [
        f"killed at {kill.at_s - troubled.began_s:.1f} s, partition {number}: {seconds:.1f} s"
        for kill, number, seconds in sorted(back, key=lambda one: -one[2])[:3]
    ]
    found.figures |= {
        "recover_seconds_max": round(slowest, 1),
        "recover_seconds_raw_max": round(max(raw, default=0.0), 1),
        "recoveries": len(back),
        "logits_apart_max": round(compared.logits_apart_max, 4),
        "answers_compared": compared.answers,
        "sessions_compared": len(states),
        "kills": sum(bool(one.url) for one in troubles),
        "faults": len(troubles),
        "records": len(source),
        "poison": sum(one.candle is None for one in source),
        "events": len(updated) + len(answered),
    }
    return found


def times(events: Iterator[tuple[str, float]]) -> Mapping[int, list[float]]:
    """The times of sessions' events by the sessions' partition."""
    found: dict[int, list[float]] = defaultdict(list)
    for session, at_s in events:
        found[partition_of(session, PARTITIONS)].append(at_s)
    return found


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def keeping(logs: Path | None) -> Iterator[Path]:
    """A folder for a run, whose logs are kept where somebody wants them."""
    with tempfile.TemporaryDirectory(prefix="flashfeed-chaos-") as folder:
        home = Path(folder)
        try:
            yield home
        finally:
            if logs is not None:
                for log in home.rglob("*.log"):
                    logs.mkdir(parents=True, exist_ok=True)
                    shutil.copy(log, logs / f"{log.parent.name}-{log.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = Run()
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--minutes", type=float, default=defaults.minutes)
    parser.add_argument("--sessions", type=int, default=defaults.sessions)
    parser.add_argument("--workers", type=int, default=defaults.workers)
    parser.add_argument("--brokers", type=int, default=defaults.brokers)
    parser.add_argument("--rate", type=float, default=defaults.rate)
    parser.add_argument("--kills", type=int, default=0, help="0: 25 in 20 minutes")
    parser.add_argument("--kinds", default="", help="of the other faults: STALL,CUT,...")
    parser.add_argument("--logs", type=Path)
    given = vars(parser.parse_args())
    logs, kinds = given.pop("logs"), given.pop("kinds")
    if kinds:
        given["kinds"] = tuple(Kind[name] for name in kinds.split(","))
    run = Run(**given)
    # Stopped from outside it still unmounts and ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    logging.disable(logging.ERROR)  # the clients' complaints of brokers that we took away
    with keeping(logs) as home:
        outcome = asyncio.run(chaos(run, home))
    for name, listed in outcome.verdict.details.items():
        say("\n  ".join([f"{name}:", *listed]))
    for word in outcome.exits:
        say(f"a worker ended by itself: {word}")
    for word in outcome.failures:
        say(f"FAILED: {word}")
    passed = not outcome.failures
    figures = {name: whole(value) for name, value in outcome.verdict.figures.items()}
    settings = {"seed": run.seed, "minutes": run.minutes, "sessions": run.sessions}
    print(json.dumps({"bench": "chaos", **settings, **figures, "pass": passed}))
    sys.exit(not passed)


def whole(value: float) -> float | None:
    """A figure as JSON has it: without infinity, and whole where it is."""
    if value == float("inf"):
        return None
    return int(value) if value == int(value) else value


if __name__ == "__main__":
    main()
