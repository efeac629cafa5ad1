"""Build llama-cpp-python once for this machine and install it into the running venv.

Plain standard library, run by `make` before anything else is installed.

The registry has no wheel of llama-cpp-python, and pip's own cache must not be
trusted with one: the library is compiled for the CPU it is built on, so a wheel
carried to another machine dies with "Illegal instruction". Ours is kept under a
key of everything that shapes it: version, CMake options, compiler, CPU features,
and the files beside this one.

    CMAKE_ARGS="-DGGML_CUDA=on" make        a CUDA build (other options likewise)
    FLASHFEED_CACHE=/some/dir make          where wheels and models are kept
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "llama-cpp-python"
SHAPING = ("llama.cmake", "amx_gcc12.h", "copied_rows.cpp")
# What the binding never loads: multimodal, tools, the web UI, HTTPS downloads.
TRIMMED = {
    "LLAVA_BUILD": "OFF",
    "LLAMA_BUILD_TOOLS": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "CMAKE_PROJECT_llama.cpp_INCLUDE": str(HERE / "llama.cmake"),
    "CMAKE_PROJECT_ggml_INCLUDE": str(HERE / "llama.cmake"),
}


def cpu_features() -> str:
    """The CPU's feature flags: what `-march=native` turns into instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    wanted = ("flags", "Features", "model name")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def compiler() -> str:
    """The first line of the C++ compiler's version."""
    command = os.environ.get("CXX", "c++")
    return subprocess.run(
        [command, "--version"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]


def build_key(version: str, user_args: str) -> str:
    """Name of the cache folder for one exact build."""
    parts = [version, user_args, compiler(), cpu_features(), platform.machine()]
    parts += [(HERE / name).read_text() for name in SHAPING]
    parts += [f"{k}={v}" for k, v in sorted(TRIMMED.items()) if "INCLUDE" not in k]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return f"{version}-{digest}"


def pinned_version(lock: Path) -> str:
    """The version that the lock file names for llama-cpp-python."""
    for line in lock.read_text().splitlines():
        name, _, version = line.partition("==")
        if name.strip() == PACKAGE:
            return version.strip()
    raise SystemExit(f"{lock}: no line '{PACKAGE}==VERSION'; add one")


def pip(*args: str, env: dict[str, str] | None = None) -> None:
    """Run this interpreter's pip, stopping the set-up with its output on failure."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *args]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} failed:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        )


def main() -> None:
    """Install the cached wheel, building it first where there is none."""
    version = pinned_version(Path(sys.argv[1]))
    user_args = os.environ.get("CMAKE_ARGS", "")
    cache = Path(os.environ.get("FLASHFEED_CACHE", Path.home() / ".cache" / "flashfeed"))
    wheels = cache / "wheels" / build_key(version, user_args)
    if not list(wheels.glob("*.whl")):
        # The 77 steps took 190 CPU seconds where this was measured (2026-11).
        cores = os.cpu_count() or 1
        print(
            f"flashfeed: compiling llama.cpp {version} for this machine, once "
            f"(about {max(1, round(200 / cores / 60))} to {max(2, round(480 / cores / 60))} "
            f"minutes on {cores} cores; kept in {wheels})",
            flush=True,
        )
        began = time.monotonic()
        args = " ".join(f"-D{key}={value}" for key, value in TRIMMED.items())
        env = {**os.environ, "CMAKE_ARGS": f"{args} {user_args}".strip()}
        env.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(cores))
        pip(
            "wheel", "--no-deps", "--no-cache-dir", "--no-binary", PACKAGE,
            f"{PACKAGE}=={version}", "-w", str(wheels), env=env,
        )  # fmt: skip
        print(f"flashfeed: compiled in {time.monotonic() - began:.0f} s", flush=True)
    else:
        print(f"flashfeed: llama.cpp {version} was compiled before, reusing {wheels}", flush=True)
    wheel = next(wheels.glob("*.whl"))
    pip("install", "--no-deps", "--force-reinstall", str(wheel))


if __name__ == "__main__":
    main()
