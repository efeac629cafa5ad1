"""Prometheus, Alertmanager, promtool and amtool, for the tests that hold the dashboards, the
alerts and the deployment's files against them.

Where they are not installed, Debian's packages are downloaded and unpacked into the cache,
once; a test that wants them is skipped where neither is possible.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from flashfeed.cli.embedded_broker import die_with_parent, free_port

PACKAGES = {"promtool": "prometheus", "amtool": "prometheus-alertmanager"}


@cache
def folder(program: str = "promtool") -> Path | None:
    """Where a program and its neighbours are; None where they cannot be had."""
    installed = shutil.which(program)
    if installed:
        return Path(installed).parent
    home = Path(os.environ.get("FLASHFEED_CACHE") or Path.home() / ".cache" / "flashfeed")
    unpacked = home / PACKAGES[program]
    if not (unpacked / "usr/bin" / program).exists() and not _download(program, unpacked):
        return None
    return unpacked / "usr/bin"


def _download(program: str, into: Path) -> bool:
    name = PACKAGES[program]
    into.mkdir(parents=True, exist_ok=True)
    try:
        command = ["apt-get", "download", "-q", name]
        subprocess.run(command, cwd=into, check=True, capture_output=True, timeout=120)
        [package] = into.glob(f"{name}_*.deb")
        subprocess.run(["dpkg", "-x", str(package), str(into)], check=True, timeout=60)
        package.unlink()
    except (OSError, subprocess.SubprocessError, ValueError):
        return False
    return (into / "usr/bin" / program).exists()


def amtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run amtool; skips the test where there is none."""
    programs = folder("amtool")
    if programs is None:
        pytest.skip("needs amtool: apt-get install prometheus-alertmanager")
    command = [str(programs / "amtool"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def promtool(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool with `given` as its input; skips the test where there is none."""
    programs = folder()
    if programs is None:
        pytest.skip("needs promtool: apt-get install prometheus")
    command = [str(programs / "promtool"), *arguments]
    return subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=60, check=False
    )


@contextlib.contextmanager
def prometheus(home: Path, config: str, *flags: str) -> Iterator[str]:
    """A Prometheus of that configuration on 127.0.0.1; its URL, once it is ready."""
    programs = folder()
    if programs is None:
        pytest.skip("needs prometheus: apt-get install prometheus")
    file, port = home / "prometheus.yml", free_port()
    file.write_text(config)
    command = [
        str(programs / "prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={home / 'prometheus-data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        *flags,
    ]
    with _running(command, home / "prometheus.log", f"http://127.0.0.1:{port}") as url:
        yield url


@contextlib.contextmanager
def alertmanager(home: Path, config: str) -> Iterator[str]:
    """An Alertmanager of that configuration on 127.0.0.1; its URL, once it is ready."""
    programs = folder("amtool")
    if programs is None:
        pytest.skip("needs alertmanager: apt-get install prometheus-alertmanager")
    file, port = home / "alertmanager.yml", free_port()
    file.write_text(config)
    command = [
        *_with_its_templates(programs.parent / "share"),
        str(programs / "prometheus-alertmanager"),
        f"--config.file={file}",
        f"--storage.path={home / 'alertmanager-data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",  # alone
    ]
    with _running(command, home / "alertmanager.log", f"http://127.0.0.1:{port}") as url:
        yield url


def _with_its_templates(share: Path) -> list[str]:
    """What goes before Debian's Alertmanager, which looks for its templates in /usr/share: where
    the package is only unpacked, a view of the disk of its own in which they are there."""
    if Path("/usr/share/prometheus/alertmanager/default.tmpl").exists():
        return []
    view = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*view, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs alertmanager: apt-get install prometheus-alertmanager")
    return [*view, 'mount --bind "$0" /usr/share && exec "$@"', str(share)]


@contextlib.contextmanager
def _running(command: list[str], log: Path, url: str) -> Iterator[str]:
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdout=sink,
            stderr=sink,
            preexec_fn=die_with_parent,  # noqa: PLW1509 (nothing else ties it to us)
        )
    try:
        _wait_ready(f"{url}/-/ready", process, log)
        yield url
    finally:
        process.terminate()
        process.wait(15)


def asked(url: str, expression: str, at: float | None = None) -> list[dict[str, Any]]:
    """What a Prometheus says to an expression now, or at a time (seconds since 1970)."""
    query = {"query": expression} | ({"time": str(at)} if at is not None else {})
    answer = httpx.get(f"{url}/api/v1/query", params=query, timeout=30).json()
    assert answer["status"] == "success", (expression, answer)
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"{log.stem} did not get ready: {log.read_text()[-3000:]}")
