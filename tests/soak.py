"""The engine's long tests: `make soak`. Half an hour on two cores; progress on stderr, one
JSON line with `pass` at the end.

1. 1,000 windows' worth of records under `exact` (N = 8), an update a record with 2 to 4
   questions; sampled updates are held against a fresh context, and the latency is flat.
2. 2,000 operations in any order, oversized ones and failing decodes among them
   (engine/machine.py), with sessions that agree with a fresh context at the end.
3. As many over small models with a recurrent state, alone and beside attention.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from engine.conftest import Fresh
from engine.long_window import Report, run_windows

from engine.machine import AnyOrder
from flashfeed.engine import Engine, EngineSettings, fastest_form, find_packaged_model

from tiny_gguf import RECURRENT, tiny_model

GROWTH_MAX = 1.25
"""Of the median update, last tenth over second tenth: loose, for a machine with other work."""


def say(text: str) -> None:
    """Progress, for whoever watches."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


async def soak_windows(model_path: Path, windows: int) -> dict[str, Any]:
    """The first part; what it found."""
    engine = Engine(
        EngineSettings(model_path=model_path, threads=1, context_tokens=512, batch_tokens=256)
    )
    engine.start()
    model = engine._open_sessions().model
    fresh = Fresh(model, engine.settings)

    def progress(report: Report) -> None:
        say(f"{report.windows} windows, {report.sampled} sampled, worst {report.worst:.4f}")

    try:
        report = await run_windows(engine, model, fresh, "soak", windows=windows, progress=progress)
    finally:
        fresh.context.free()
        await engine.stop()
    return {
        "windows": report.windows,
        "updates": len(report.seconds),
        "sampled": report.sampled,
        "worst_logit": round(report.worst, 4),
        "wrong": report.wrong,
        "near_ties": report.ties,
        "growth": round(report.growth, 3),
        "pass": report.is_fresh and report.growth <= GROWTH_MAX,
    }


def soak_operations(model_path: Path, operations: int, first_seed: int) -> dict[str, Any]:
    """The second part. Raises what a failing operation raised, with the way to it."""
    AnyOrder.model_path = model_path
    AnyOrder.done.clear()
    number = first_seed
    while AnyOrder.operations() < operations:
        say(f"{AnyOrder.operations()} operations; seed {number}")
        AnyOrder.run(number, examples=5, steps=50)
        number += 1
    return {
        "operations": AnyOrder.operations(),
        "seeds": [first_seed, number - 1],
        **dict(AnyOrder.done.most_common()),
        "pass": AnyOrder.done["compared"] > 0,
    }


def main() -> int:
    """Runs both; 0 where both passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--operations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    wanted = parser.parse_args()
    model_path = fastest_form(find_packaged_model())
    found: dict[str, Any] = {}
    if wanted.windows:
        found["exact"] = asyncio.run(soak_windows(model_path, wanted.windows))
    if wanted.operations:
        found["any_order"] = soak_operations(model_path, wanted.operations, wanted.seed)
        with tempfile.TemporaryDirectory() as folder:
            for kind, keys in RECURRENT.items():
                say(f"{kind}, a recurrent model")
                tiny = tiny_model(Path(folder, f"{kind}.gguf"), model_path, kind, **keys)
                found[kind] = soak_operations(tiny, wanted.operations, wanted.seed)
    found["pass"] = all(part["pass"] for part in found.values())
    print(json.dumps(found))
    return 0 if found["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
