"""Fuzz a real worker: python tests/fuzz/run_fuzz.py [CASES] [SEED]. `make fuzz` runs 20,000.

No 5xx but a deliberate 503, no hang, no crash, no session harmed; at least a tenth of the
cases reach the engine, by the worker's own metrics.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flashfeed.cli.embedded_broker import embedded_broker, free_port
from flashfeed.cli.worker_process import wait_until_ready, worker_process

from fuzz_http import broken_cases, schema_cases
from fuzz_sockets import socket_cases
from fuzz_target import Target

CASES = 20_000
REACHED_SHARE_MIN = 0.1
SHARES = {"schema": 0.45, "broken": 0.4, "sockets": 0.15}
WORKER_TOML = """
[kafka]
brokers = "{brokers}"
group = "flashfeed-fuzz"

[bridge]
port = {port}

[engine]
context_tokens = 2048
sessions_max = 24
"""


def fuzz(url: str, cases: int, first_seed: int) -> Target:
    """All three kinds of cases, and the bystanders after them."""
    target = Target(url)
    schema_cases(target, round(cases * SHARES["schema"]), first_seed)
    # Some routes have less to say than their share.
    rest = cases - target.cases
    frames = round(cases * SHARES["sockets"])
    broken_cases(target, rest - frames, first_seed)
    socket_cases(target, frames, first_seed)
    target.settle()
    if target.reached < REACHED_SHARE_MIN * cases:
        target.failed(f"only {target.reached} of {target.cases} cases reached the engine")
    return target


def report(target: Target, spent_s: float) -> str:
    """What ran and what was found, for a person."""
    statuses = ", ".join(f"{kind}: {count}" for kind, count in target.statuses.most_common())
    lines = [
        f"{target.cases} cases in {spent_s:.0f} s, {target.reached} reached the engine",
        statuses,
        f"{len(target.failures)} failures",
        *dict.fromkeys(target.failures),
    ]
    return "\n".join(lines)


def _alive(process: subprocess.Popen[bytes], target: Target, log: Path) -> None:
    if process.poll() is not None:
        target.failed(f"the worker ended with {process.returncode}: {log.read_text()[-2000:]}")
    for line in log.read_text(errors="replace").splitlines():
        if "Traceback" in line:
            target.failed(f"the worker's log has a traceback: {log}")
            return


def run(cases: int, first_seed: int) -> tuple[Target, float]:
    """Fuzz a worker of its own, so that every place in it is the cases'; what was found, and
    the seconds it took."""
    home = Path(tempfile.mkdtemp(prefix="flashfeed-fuzz-"))
    config, log, port = home / "worker.toml", home / "worker.log", free_port()
    with embedded_broker() as brokers:
        config.write_text(WORKER_TOML.format(brokers=brokers, port=port))
        with worker_process(config, log) as process:
            wait_until_ready(port, process, log)
            began = time.monotonic()
            target = fuzz(f"http://127.0.0.1:{port}", cases, first_seed)
            _alive(process, target, log)
            return target, time.monotonic() - began


def main() -> None:
    """Run, print, and exit with 1 where something was found."""
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else CASES
    first_seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    target, spent_s = run(cases, first_seed)
    print(report(target, spent_s))
    sys.exit(bool(target.failures))


if __name__ == "__main__":
    main()
