"""The choice of a machine's settings from what was measured, and where it is kept. Pure
but for `remember` and `recall`.

    <cache>/models/<model>-<key>.tuned.json    the choice and what it was made from

The key is the model's hash, the processor and GPUs, the layers on them, and llama.cpp's
version: another one of these is another measurement.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec

from .machine import cache_folder, cpu, devices, llama_cpp_build
from .measure import LOGIT_DIFF_MAX
from .model_hash import model_hash, write_atomically

K = TypeVar("K")
_RULE: Final = "tuned, 1"
NEAR: Final = 1.05
"""What is this little slower than the fastest counts as equal; the simpler one is taken."""
GAIN: Final = 1.10
"""A pass grows as long as so many more tokens a second come of it."""
FOREGROUND: Final = 2.0
"""How much longer than alone a generation's token may take while others ingest."""
LONE_MAX: Final = 1.25
"""How much longer an update may take because others share its context."""
STEPS: Final = 4
"""Steps of free answers that count beside an update's pass in the choice of attention."""


@dataclass(frozen=True)
class Attention:
    """How a context attends, what an update's pass and a step of four forks took
    (seconds), and how far its logits were from those of f16 without flash attention."""

    flash_attention: Literal["on", "off"]
    kv_type: Literal["f16", "q8_0", "f32", "bf16"]
    update_s: float
    step_s: float
    logit_diff: float


@dataclass(frozen=True)
class Group:
    """So many sessions in a context: seconds of one's update alone, and of all their
    updates in one pass."""

    sessions: int
    lone_s: float
    shared_s: float


@dataclass(frozen=True)
class Measured:
    """What was measured: seconds by threads (an update's pass), by n_ubatch (a full
    batch) and by tokens of a pass; the kinds of attention, simplest first; group sizes."""

    threads: dict[int, float]
    attention: tuple[Attention, ...]
    ubatch: dict[int, float]
    passes: dict[int, float]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Tuned:
    """The settings of EngineSettings that a measurement decides."""

    threads: int
    kv_type: Literal["f16", "q8_0", "f32", "bf16"]
    flash_attention: Literal["on", "off"]
    ubatch_tokens: int
    step_tokens: int
    foreground_chunk: int
    sessions_per_context: int


class Record(msgspec.Struct, frozen=True):
    """What is kept: the choice, the measurement, and what they hold for."""

    tuned: Tuned
    measured: Measured
    model: str
    device: str
    llama_cpp: str


def choose(measured: Measured) -> Tuned:
    """The settings that the figures speak for."""
    attention = choose_attention(measured.attention)
    return Tuned(
        threads=_simplest(measured.threads, sorted(measured.threads)),
        kv_type=attention.kv_type,
        flash_attention=attention.flash_attention,
        ubatch_tokens=_simplest(measured.ubatch, sorted(measured.ubatch, reverse=True)),
        step_tokens=step_tokens(measured.passes),
        foreground_chunk=foreground_chunk(measured.passes),
        sessions_per_context=sessions_per_context(measured.groups),
    )


def choose_attention(kinds: Sequence[Attention]) -> Attention:
    """The fastest faithful kind; among f16 kinds alone where none is faithful."""
    faithful = [kind for kind in kinds if kind.logit_diff <= LOGIT_DIFF_MAX]
    eligible = faithful or [kind for kind in kinds if kind.kv_type == "f16"]
    costs = {kind: kind.update_s + STEPS * kind.step_s for kind in eligible}
    return _simplest(costs, eligible)


def step_tokens(passes: Mapping[int, float]) -> int:
    """The smallest pass that no larger one beats by much in tokens a second."""
    rates = {n: n / seconds for n, seconds in passes.items()}
    return min(
        n
        for n, rate in rates.items()
        if all(other < GAIN * rate for m, other in rates.items() if m > n)
    )


def foreground_chunk(passes: Mapping[int, float]) -> int:
    """The most tokens beside a generation's one in a pass that takes at most FOREGROUND
    times as long as that one alone; between measured sizes a pass is taken as linear."""
    sizes = sorted(passes)
    limit = FOREGROUND * passes[sizes[0]]
    largest = sizes[0]
    for small, large in itertools.pairwise(sizes):
        if passes[large] > limit:
            slope = (passes[large] - passes[small]) / (large - small)
            largest = small + int((limit - passes[small]) / slope)
            break
        largest = large
    return max(1, largest - 1)


def sessions_per_context(groups: Sequence[Group]) -> int:
    """The group whose updates cost least each when they share a pass, and whose lone
    update is not much slower than in a context of its own."""
    alone = min(group.lone_s for group in groups if group.sessions == 1)
    costs = {
        group.sessions: group.shared_s / group.sessions
        for group in groups
        if group.sessions == 1 or group.lone_s <= LONE_MAX * alone
    }
    return _simplest(costs, sorted(costs))


def _simplest(costs: Mapping[K, float], simplest_first: Sequence[K]) -> K:
    """The first that is as fast as the fastest, or nearly."""
    best = min(costs.values())
    return next(key for key in simplest_first if costs[key] <= NEAR * best)


def tuned_file(model: Path, gpu_layers: int, cache: Path | None = None) -> Path:
    """Where the choice for a model file on this machine is kept."""
    parts = (model_hash(model), cpu(), *devices(), str(gpu_layers), *llama_cpp_build(), _RULE)
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    return (cache or cache_folder()) / "models" / f"{model.stem}-{key}.tuned.json"


def remember(record: Record, path: Path) -> None:
    """Keeps a choice; `path` is `tuned_file`'s."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.format(msgspec.json.encode(record), indent=1).decode())


def recall(path: Path) -> Record | None:
    """The choice kept there, None where there is none that can be read."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=Record)
    return None
