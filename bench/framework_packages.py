"""The environment of the frameworks that bench/transport.py measures against: a venv in the
cache, made once for one frameworks.txt."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from flashfeed.engine.machine import cache_folder

REQUIREMENTS = Path(__file__).with_name("frameworks.txt")


def frameworks_python() -> str:
    """The interpreter that has them; made at the first call (a minute)."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = cache_folder() / "bench" / f"frameworks-{digest}-{sys.implementation.cache_tag}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        print(f"installing {REQUIREMENTS.name} into {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True)
        ready.touch()
    return str(python)
