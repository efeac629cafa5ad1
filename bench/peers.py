"""Compile llama-server, the peer that bench/engine.py measures, once for this machine.

Plain standard library, run by `make peers` after `make setup`. It is built from the very
sdist that our own llama.cpp comes from, with the same compiler options and the same fixes
(engine/build/), and kept in the cache under a key of everything that shapes it.

    CMAKE_ARGS="-DGGML_CUDA=on" make peers     a CUDA build (other options likewise)
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "engine" / "build"))
import install  # noqa: E402  (a script beside llama.cmake, no package)

OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    # The libraries stand beside the program, wherever that is.
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_INSTALL_RPATH": "$ORIGIN",
    "CMAKE_PROJECT_llama.cpp_INCLUDE": str(HERE / "peers.cmake"),
    "CMAKE_PROJECT_ggml_INCLUDE": str(HERE / "peers.cmake"),
}
BUILD_TIMEOUT_S = 3600


def server_path(user_args: str | None = None) -> Path:
    """Where the llama-server of this checkout and machine is, or would be."""
    version = install.pinned_version(ROOT / "requirements.lock")
    args = os.environ.get("CMAKE_ARGS", "") if user_args is None else user_args
    shape = "\0".join(
        [
            install.build_key(version, args),
            (HERE / "peers.cmake").read_text(),
            *(f"{k}={v}" for k, v in sorted(OPTIONS.items()) if "INCLUDE" not in k),
        ]
    )
    digest = hashlib.sha256(shape.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("FLASHFEED_CACHE", Path.home() / ".cache" / "flashfeed"))
    return cache / "peers" / f"{version}-{digest}" / "llama-server"


def build(target: Path) -> None:
    """Compile llama-server in a scratch folder and put it at `target`."""
    version = install.pinned_version(ROOT / "requirements.lock")
    with tempfile.TemporaryDirectory(prefix="flashfeed-peers-") as scratch:
        folder = Path(scratch)
        name = install.PACKAGE
        install.pip(
            "download", "--no-deps", "--no-binary", name, f"{name}=={version}", "-d", scratch
        )
        with tarfile.open(next(folder.glob("*.tar.gz"))) as sdist:
            sdist.extractall(folder, filter="data")
        source = next(folder.glob("*/vendor/llama.cpp"))
        options = [f"-D{key}={value}" for key, value in OPTIONS.items()]
        options += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        run("cmake", "-S", str(source), "-B", str(folder / "b"), *options)
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1))
        run("cmake", "--build", str(folder / "b"), "--target", "llama-server", "-j", jobs)
        keep(folder / "b" / "bin", target)


def keep(built: Path, target: Path) -> None:
    """The program and its libraries, moved into place at once or not at all."""
    target.parent.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent.parent))
    partial.chmod(0o755)
    for file in (built / target.name, *built.glob("*.so*")):
        shutil.copy2(file, partial, follow_symlinks=False)
    shutil.rmtree(target.parent, ignore_errors=True)
    partial.rename(target.parent)


def run(*command: str) -> None:
    """A command; its output only where it fails."""
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S
    )
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} failed:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        )


def main() -> None:
    """Compile what is missing; print where it is."""
    target = server_path()
    if target.is_file():
        print(f"flashfeed: llama-server was compiled before: {target}")
        return
    cores = os.cpu_count() or 1
    print(f"flashfeed: compiling llama-server, once (some {20 // cores + 1} minutes)", flush=True)
    began = time.monotonic()
    build(target)
    print(f"flashfeed: compiled in {time.monotonic() - began:.0f} s: {target}")


if __name__ == "__main__":
    main()
