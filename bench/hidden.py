"""What does reading the hidden states cost a pass?

A context that reads them (engine/hidden.py) against one that does not, taking turns with the
same pass: 93 tokens and four outputs after 2,000 tokens. Once with nothing else in this
process, and once beside a thread that computes in Python all the while, which the callback
has to take the GIL from; there the model has one thread of the machine's less, on both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from statistics import median

import numpy as np

from flashfeed.engine import Engine, EngineSettings, fastest_form, find_packaged_model
from flashfeed.engine.context import Context
from flashfeed.engine.model import Model
from flashfeed.engine.plan import Pass, Run, cut

HISTORY_TOKENS = 2000
PASS_TOKENS = 93
OUTPUTS = (20, 50, 70, 92)
ROUNDS = 11
BUSY_ROUNDS = 7


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


async def main() -> None:
    path = fastest_form(find_packaged_model())
    threads = len(os.sched_getaffinity(0))
    settings = EngineSettings(model_path=path, threads=threads)
    async with Engine(settings) as engine:
        model = engine._open_sessions().model
        quiet, seconds = compare(model, settings, ROUNDS)
        fewer = replace(settings, threads=max(1, threads - 1))
        with busy_thread():
            busy, busy_seconds = compare(model, fewer, BUSY_ROUNDS)
    print(f"{'':34}{'ms':>10}{'ratio':>10}")
    print(f"{'pass of 93 tokens at 2,000':34}{seconds * 1000:10.1f}{quiet:10.3f}")
    print(f"{'beside a busy Python thread':34}{busy_seconds * 1000:10.1f}{busy:10.3f}")
    figures = {
        "bench": "hidden",
        "pass_overhead": round(quiet, 3),
        "pass_overhead_busy_python": round(busy, 3),
        "pass_ms": round(seconds * 1000, 1),
        "model": path.name,
        "threads": threads,
        "pass": quiet <= 1.03,
    }
    print(json.dumps(figures))
    sys.exit(not figures["pass"])


if __name__ == "__main__":
    asyncio.run(main())
