"""The published client packages that cannot stand in our own environment.

Two versions of one Python package, and the packages of npm, each in a folder of its own
in flashfeed's cache; fetched once.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

CLIENTS = Path(__file__).parent / "clients"
FETCH_TIMEOUT_S = 600


def node_modules() -> Path:
    """The folder with npm's `node_modules` as tests/clients/package-lock.json has them."""
    lock = (CLIENTS / "package-lock.json").read_bytes()
    folder = _cache() / f"node-{hashlib.sha256(lock).hexdigest()[:16]}"
    with _once(folder) as missing:
        if missing:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(CLIENTS / name, folder / name)
            _run("npm", "ci", "--no-audit", "--no-fund", cwd=folder)
    return folder / "node_modules"


def python_package(requirement: str) -> Path:
    """A folder for PYTHONPATH that holds one package (`name==version`) and nothing else."""
    folder = _cache() / f"{requirement.replace('==', '-')}-{sys.implementation.cache_tag}"
    with _once(folder) as missing:
        if missing:
            pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
            _run(*pip, "install", "-q", "--no-deps", "--target", str(folder), requirement)
    return folder


def module_beside(requirement: str, name: str, alias: str) -> ModuleType:
    """Another version of a package that our own environment has, under another name, so
    that one test can use both. Its own imports must be relative."""
    if alias in sys.modules:
        return sys.modules[alias]
    folder = python_package(requirement) / name
    spec = importlib.util.spec_from_file_location(
        alias, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None, folder
    module = sys.modules[alias] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _cache() -> Path:
    cache = Path(os.environ.get("FLASHFEED_CACHE", Path.home() / ".cache" / "flashfeed"))
    folder = cache / "clients"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _once(folder: Path) -> Iterator[bool]:
    """Whether the folder is still to be filled; one process at a time, marked when done."""
    mark = folder.parent / f"{folder.name}.done"
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = not mark.exists()
        if missing:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        yield missing
        mark.touch()


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(
        command, cwd=cwd, check=False, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S
    )
    assert not done.returncode, f"{' '.join(command)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
