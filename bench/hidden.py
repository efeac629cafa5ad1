"""What does it cost an update that its questions learn?

    pass_overhead              from a record to its answers: a session whose questions learn
                               beside one whose do not, with all that a worker does for it but
                               Kafka (learning_sides.py); the median of the paired updates' ratios
    pass_overhead_mean         the same of all updates' time: with the fits, which are few
    read_overhead              a bare pass of a context that reads the hidden states, against one
                               that does not: 93 tokens and four outputs after 2,000 tokens
    read_overhead_busy_python  the same beside a thread that computes in Python all the while, with
                               one thread of the machine's less for the model, on both sides

The sides take turns. Sessions do so by stretches of STRETCH updates, one at once after the other,
so that what the learner does after an update meets its own side's next one; the first of a stretch
has nothing before it and is not timed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

import numpy as np
from learning_sides import Side
from rig import QUIET_S, say

from flashfeed.engine import Engine, EngineSettings, fastest_form, find_packaged_model
from flashfeed.engine.context import Context
from flashfeed.engine.model import Model
from flashfeed.engine.plan import Pass, Run, cut

HISTORY_TOKENS = 2000
PASS_TOKENS = 93
OUTPUTS = (20, 50, 70, 92)
ROUNDS = 11
BUSY_ROUNDS = 7
HISTORY_RECORDS = 40
STRETCH = 8
SESSION_TOKENS = 4608
OVERHEAD_MAX = 1.03
Sessions = tuple[list[float], list[float]]


@contextlib.contextmanager
def busy_thread() -> Iterator[None]:
    """A thread that never lets go of the GIL by itself."""
    over = threading.Event()

    def work() -> None:
        n = 0
        while not over.is_set():
            n += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def compare(model: Model, settings: EngineSettings, rounds: int) -> tuple[float, float]:
    """The median ratio of reading over not reading, and seconds of a pass that does not."""
    draw = np.random.default_rng(0)
    history = tuple(int(token) for token in draw.integers(100, 4000, HISTORY_TOKENS))
    new = tuple(int(token) for token in draw.integers(100, 4000, PASS_TOKENS))
    sides = [Context(model, replace(settings, hidden_states=on), 2304) for on in (False, True)]
    seconds: list[list[float]] = [[], []]
    for context in sides:
        for one in cut((Run(history, 0, (0,)),), context.limits):
            context.run(one)
    for number in range(rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            decoded = sides[side].run(Pass((Run(new, HISTORY_TOKENS, (0,), OUTPUTS),)))
            seconds[side].append(decoded.seconds)
            assert decoded.hidden.shape == (len(OUTPUTS), model.n_embd if side else 0)
            sides[side].truncate(0, HISTORY_TOKENS)
    for context in sides:
        context.free()
    return median(on / off for off, on in zip(*seconds, strict=True)), median(seconds[0])


async def compare_sessions(settings: EngineSettings, stretches: int) -> tuple[Sessions, int]:
    """Seconds of each update of a session without learning and of one with it, in turns; and the
    labels that were learnt meanwhile."""
    settings = replace(settings, context_tokens=SESSION_TOKENS)
    seconds: Sessions = ([], [])
    async with (
        Engine(settings) as without,
        Engine(replace(settings, hidden_states=True)) as with_it,
    ):
        n_embd = with_it._open_sessions().model.n_embd
        sides = (Side(without, False, n_embd), Side(with_it, True, n_embd))
        for side in sides:
            await side.start(HISTORY_RECORDS)
        for number in range(stretches):
            for place in (0, 1) if number % 2 else (1, 0):
                await sides[place].take()
                seconds[place].extend([await sides[place].take() for _ in range(STRETCH)])
                await sides[place].rest()
                await asyncio.sleep(QUIET_S)
            if not (number + 1) % 5:
                say(f"{number + 1} of {stretches} stretches, {ratio(*seconds):.3f}")
        labels = sides[1].labels
        for side in sides:
            await side.stop()
    return seconds, labels


def ratio(off: Sequence[float], on: Sequence[float]) -> float:
    """The median of the ratios of what was measured side by side."""
    return median(b / a for a, b in zip(off, on, strict=True))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stretches", type=int, default=25, help="of STRETCH updates, a side")
    args = parser.parse_args()
    path = fastest_form(find_packaged_model())
    threads = len(os.sched_getaffinity(0))
    settings = EngineSettings(model_path=path, threads=threads)
    async with Engine(settings) as engine:
        model = engine._open_sessions().model
        quiet, pass_s = compare(model, settings, ROUNDS)
        fewer = replace(settings, threads=max(1, threads - 1))
        with busy_thread():
            busy, busy_s = compare(model, fewer, BUSY_ROUNDS)
    (off, on), labels = await compare_sessions(settings, args.stretches)
    overhead = ratio(off, on)
    print(f"{'':34}{'ms':>10}{'ratio':>10}")
    for name, seconds, found in (
        ("update of a session that learns", median(on), overhead),
        ("  all updates together", sum(on) / len(on), sum(on) / sum(off)),
        ("pass of 93 tokens at 2,000", pass_s, quiet),
        ("beside a busy Python thread", busy_s, busy),
    ):
        print(f"{name:34}{seconds * 1000:10.1f}{found:10.3f}")
    figures = {
        "bench": "hidden",
        "pass_overhead": round(overhead, 3),
        "pass_overhead_mean": round(sum(on) / sum(off), 3),
        "read_overhead": round(quiet, 3),
        "read_overhead_busy_python": round(busy, 3),
        "update_ms": round(median(off) * 1000, 1),
        "updates": len(on),
        "labels": labels,
        "pass_ms": round(pass_s * 1000, 1),
        "model": path.name,
        "threads": threads,
        "pass": overhead <= OVERHEAD_MAX,
    }
    print(json.dumps(figures))
    sys.exit(not figures["pass"])


if __name__ == "__main__":
    asyncio.run(main())
