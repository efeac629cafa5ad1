"""The engine at its work: against llama-server, starting over, and the bare passes.

    make peers                       compiles llama-server, once
    bench/engine.py                  everything, about 20 minutes on 2 cores
    bench/engine.py --quick          smaller work, a few minutes: figures to look at only
    bench/engine.py --only sliding   one measure; may be given again
    bench/engine.py --write          also put the results into bench/RESULTS.md

All ratios are of sides that took turns in this run: medians of the paired ratios. A
table, then one JSON line: each figure with its bound and whether it passes, null where it
could not be measured, with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import alone
import llama_cpp.llama_cpp as C
import peers
from llama_server import ServerSettings
from rig import Report, Rig, say
from server_setup import choose_server
from versus_append import append_only
from versus_sliding import sliding

from flashfeed.engine import fastest_form, find_packaged_model
from flashfeed.engine.model import Model

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
LIMIT_S = 1200.0
MEASURES: dict[str, Callable[[Rig], Awaitable[Report]]] = {
    "append": append_only,
    "sliding": sliding,
    "free": alone.free_answers,
    "saturated": alone.saturated,
    "growth": alone.growth,
    "sessions": alone.many_sessions,
    "restore": alone.restore,
    "foreground": alone.foreground,
}
BOUNDS: dict[str, tuple[str, str, float]] = {
    "server_over_us": ("append", ">=", 1.5),
    "server_over_us_4000": ("append", ">=", 1.7),
    "scratch_over_us": ("append", ">=", 40.0),
    "us_over_ideal": ("append", "<=", 1.15),
    "server_over_us_sliding": ("sliding", ">=", 7.0),
    "exact_cost": ("sliding", "<=", 1.15),
    "free_over_ideal": ("free", "<=", 1.2),
    "tokens_over_raw_prefill": ("saturated", ">=", 0.95),
    "growth": ("growth", "<=", 1.1),
    "sessions_growth": ("sessions", "<=", 1.3),
    "restore_over_prefill": ("restore", ">=", 50.0),
    "foreground_wait": ("foreground", "<=", 5.0),
}
ON_GPU = {"server_over_us": 4.0, "server_over_us_4000": 4.0, "restore_over_prefill": 0.0}
"""Bounds that differ where five passes cost five times one; restoring is reported only."""


async def measure(rig: Rig, names: list[str]) -> tuple[Report, dict[str, str]]:
    """Every measure in turn; what was found, and why the others were not."""
    whole, reasons = Report(), dict[str, str]()
    peer = ""
    if {"append", "sliding"} & set(names):
        try:
            whole.remarks.append(choose_server(rig))
        except Exception as error:  # the peer's troubles must not hide our own figures
            peer = str(error)
            rig.server = None
    for name in names:
        say(f"{name} ...")
        began = time.monotonic()
        try:
            report = await asyncio.wait_for(MEASURES[name](rig), LIMIT_S)
        except Exception as error:  # one measure that fails leaves the others standing
            reasons[name] = f"{type(error).__name__}: {error}"[:500]
            say(f"  failed: {reasons[name]}")
            continue
        if peer and name in ("append", "sliding"):
            reasons[name] = peer
        say(f"  {time.monotonic() - began:.0f} s")
        whole.figures |= report.figures
        whole.rows += report.rows
        whole.remarks += report.remarks
    return whole, reasons


def judged(report: Report, names: list[str], reasons: dict[str, str]) -> dict[str, Any]:
    """The figures that have a bound, each with it and whether it holds."""
    on_gpu = bool(C.llama_supports_gpu_offload())
    found: dict[str, Any] = {}
    for figure, (name, sign, cpu_bound) in BOUNDS.items():
        if name not in names:
            continue
        bound = ON_GPU.get(figure, cpu_bound) if on_gpu else cpu_bound
        value = report.figures.get(figure)
        entry: dict[str, Any] = {
            "value": value if value is None else round(value, 3),
            "bound": f"{sign} {bound:g}",
            "pass": value is not None and (value >= bound if sign == ">=" else value <= bound),
        }
        if value is None:
            entry["reason"] = reasons.get(name, "not part of this run")
        found[figure] = entry
    return found


def as_text(report: Report, found: dict[str, Any]) -> str:
    """The tables: milliseconds by side, then the figures."""
    lines = ["| median ms | ideal | flashfeed | peer |", "|---|--:|--:|--:|"]
    lines += [f"| {' | '.join(row)} |" for row in report.rows]
    lines += ["", "| figure | value | bound | pass |", "|---|--:|--:|---|"]
    for name, entry in found.items():
        value = "-" if entry["value"] is None else f"{entry['value']:g}"
        verdict = "yes" if entry["pass"] else f"no {entry.get('reason', '')}".strip()
        lines.append(f"| {name} | {value} | {entry['bound']} | {verdict} |")
    for name, value in report.figures.items():
        if name not in found:
            lines.append(f"| {name} | {value:.3g} | | |")
    return "\n".join([*lines, "", *report.remarks])


def cpu_seconds() -> tuple[float, float]:
    """CPU seconds of the whole machine, and of this process and its ended children."""
    try:
        fields = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return 0.0, 0.0
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


def device() -> str:
    """The processor, or the GPU where llama.cpp was built for one."""
    if C.llama_supports_gpu_offload():
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        try:
            done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
            return done.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return "GPU"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str:
    """The commit that is measured; `+` where the working tree differs from it."""

    def git(*args: str) -> str:
        command = ["git", *args]
        folder = RESULTS.parent
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=20, check=False
        )
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")


def write_results(title: str, text: str) -> None:
    """Puts the run above the older ones in RESULTS.md."""
    head, mark, older = RESULTS.read_text().partition("\n## ")
    RESULTS.write_text(f"{head.rstrip()}\n\n## {title}\n\n{text.strip()}\n{mark}{older}")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller work, a few minutes")
    parser.add_argument("--only", action="append", choices=list(MEASURES), metavar="NAME")
    parser.add_argument("--write", action="store_true", help="put the results into RESULTS.md")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    names = options.only or list(MEASURES)
    path = fastest_form(find_packaged_model(), progress=say)
    model = Model.load(path, -1)
    rig = Rig(path, model, options.threads, options.quick)
    program = peers.server_path()
    if program.is_file():
        rig.server = ServerSettings(
            program=program,
            model=path,
            slots=8,
            context_tokens=4096,
            batch_tokens=rig.batch_tokens,
            threads=options.threads,
            flash_attention=None,  # as it comes; what suits it best here is beside it
            kv_unified=False,
        )
    # Ended from outside, the run still takes llama-server down with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    machine, own = cpu_seconds()
    report, reasons = asyncio.run(measure(rig, names))
    machine, own = (b - a for a, b in zip((machine, own), cpu_seconds(), strict=True))
    if machine:
        report.figures["cpu_share_of_others"] = max(0.0, 1 - own / machine)
    model.free()
    found = judged(report, names, reasons)
    text = as_text(report, found)
    print(text)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    about = {
        "date": date,
        "device": f"{device()}, {options.threads} threads",
        "commit": commit(),
        "model": path.name,
    }
    if options.write:
        title = f"{date}, {about['device']}, commit {about['commit']}"
        write_results(title + (" (quick)" if options.quick else ""), text)
    passed = bool(found) and all(entry["pass"] for entry in found.values())
    reported = {k: round(v, 4) for k, v in report.figures.items() if k not in found}
    line = {"bench": "engine", **about, "quick": options.quick, "figures": found}
    print(json.dumps({**line, "reported": reported, "reasons": reasons, "pass": passed}))
    sys.exit(not passed)


if __name__ == "__main__":
    main()
