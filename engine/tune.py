"""Measures what a model's settings cost on this machine: `flashfeed tune`.

About a minute on two cores for a small model. Candidates of one setting are measured in
turns; each setting is measured under the choices made before it, in the order of
`measure`. What the figures mean is decided in tuned.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from flashfeed.models.errors import EngineError

from .context import Context
from .machine import cores, devices, llama_cpp_build
from .measure import (
    QUESTIONS,
    Updates,
    best_in_turns,
    feed,
    fork_logit_diff,
    pass_seconds,
    sample_tokens,
)
from .model import Model
from .recurrent import settings_with_states
from .settings import EngineSettings
from .tuned import (
    Attention,
    Group,
    Measured,
    Record,
    choose,
    choose_attention,
    remember,
    tuned_file,
)

_ROOM: Final = 128  # cells that an update and its questions take, and a few steps
_KINDS: Final[tuple[dict[str, Any], ...]] = (
    {"flash_attention": "off", "kv_type": "f16"},
    {"flash_attention": "on", "kv_type": "f16"},
    {"flash_attention": "on", "kv_type": "q8_0"},
)
_STEPS: Final = 3
_PASSES: Final = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
_GROUPS: Final = (1, 2, 4)


@dataclass(frozen=True)
class Effort:
    """How much is measured: tokens of history, also of the comparison with a fresh
    context, rounds, and the largest pass."""

    history: int
    fidelity: int
    rounds: int
    pass_max: int


FULL: Final = Effort(history=500, fidelity=200, rounds=3, pass_max=1024)
QUICK: Final = Effort(history=50, fidelity=30, rounds=1, pass_max=64)


def tune(
    path: Path,
    settings: EngineSettings,
    effort: Effort = FULL,
    say: Callable[[str], None] = lambda _: None,
    cache: Path | None = None,
) -> Record:
    """Measures the model, chooses, and keeps the choice for every worker on this machine.

    Of `settings` count gpu_layers and batch_tokens. Raises what Model.load raises, and
    EngineError where no context could be made.
    """
    model = Model.load(path, settings.gpu_layers)
    try:
        measured = measure(model, settings, effort, say)
    finally:
        model.free()
    record = Record(
        tuned=choose(measured),
        measured=measured,
        model=path.name,
        device=", ".join(devices()),
        llama_cpp=llama_cpp_build()[0],
    )
    remember(record, tuned_file(path, settings.gpu_layers, cache))
    return record


def measure(
    model: Model, settings: EngineSettings, effort: Effort, say: Callable[[str], None]
) -> Measured:
    """Everything that `choose` needs."""
    base = dataclasses.replace(settings, flash_attention="off", kv_type="f16", ubatch_tokens=0)
    tokens = sample_tokens(model, max(effort.history, settings.batch_tokens))
    bench = _Bench(model, tokens, effort)
    say("threads")
    threads = bench.threads(base)
    base = dataclasses.replace(base, threads=min(threads, key=lambda n: threads[n]))
    say("flash attention, KV type")
    attention = bench.attention(base)
    chosen = choose_attention(attention)
    base = dataclasses.replace(base, flash_attention=chosen.flash_attention, kv_type=chosen.kv_type)
    say("n_ubatch")
    ubatch = bench.ubatch(base)
    say("tokens of a pass")
    passes = bench.passes(base)
    say("sessions of a context")
    groups = bench.groups(base)
    return Measured(threads, attention, ubatch, passes, groups)


def thread_counts(n_cores: int) -> list[int]:
    """The numbers of threads that are tried: quarters of the cores."""
    return sorted({max(1, n_cores * quarter // 4) for quarter in (1, 2, 3, 4)})


class _Bench:
    def __init__(self, model: Model, tokens: tuple[int, ...], effort: Effort) -> None:
        self._model = model
        self._tokens = tokens
        self._history = tokens[: effort.history]
        self._effort = effort

    def threads(self, base: EngineSettings) -> dict[int, float]:
        with ExitStack() as stack:
            updates = {
                n: stack.enter_context(self._updates(dataclasses.replace(base, threads=n)))
                for n in thread_counts(cores())
            }
            return best_in_turns(
                {n: one.seconds for n, one in updates.items()}, self._effort.rounds
            )

    def attention(self, base: EngineSettings) -> tuple[Attention, ...]:
        kinds: list[Attention] = []
        with ExitStack() as stack:
            opened: dict[int, Updates] = {}
            for index, kind in enumerate(_KINDS):
                try:
                    opened[index] = stack.enter_context(
                        self._updates(dataclasses.replace(base, **kind))
                    )
                except EngineError:  # this model or device cannot
                    if index == 0:
                        raise
            updates_s = best_in_turns(
                {index: one.seconds for index, one in opened.items()}, self._effort.rounds
            )
            with_steps_s = best_in_turns(
                {index: _with_steps(one) for index, one in opened.items()}, self._effort.rounds
            )
            reference = opened[0].rows()
            for index, one in opened.items():
                from_reference = float(np.abs(one.rows() - reference).max())
                own = fork_logit_diff(one.context, self._tokens, self._effort.fidelity)
                kinds.append(
                    Attention(
                        **_KINDS[index],
                        update_s=updates_s[index],
                        step_s=max(0.0, with_steps_s[index] - updates_s[index]) / _STEPS,
                        logit_diff=round(max(own, from_reference), 4),
                    )
                )
        return tuple(kinds)

    def ubatch(self, base: EngineSettings) -> dict[int, float]:
        n = base.batch_tokens
        with ExitStack() as stack:
            contexts = {
                size: stack.enter_context(
                    self._context(dataclasses.replace(base, ubatch_tokens=size), n)
                )
                for size in (n, n // 2, n // 4)
                if size >= 32
            }
            return best_in_turns(
                {
                    size: _whole_batch(context, self._tokens[:n])
                    for size, context in contexts.items()
                },
                min(2, self._effort.rounds),
            )

    def passes(self, base: EngineSettings) -> dict[int, float]:
        largest = min(base.batch_tokens, self._effort.pass_max)
        with self._context(base, len(self._history) + largest) as context:
            feed(context, 0, self._history, 0)
            return best_in_turns(
                {
                    n: _one_pass(context, self._tokens[:n])
                    for n in _PASSES
                    if n <= min(largest, context.limits.batch_tokens)
                },
                self._effort.rounds,
            )

    def groups(self, base: EngineSettings) -> tuple[Group, ...]:
        found: list[Group] = []
        with ExitStack() as stack:
            updates = {n: stack.enter_context(self._updates(base, n_sessions=n)) for n in _GROUPS}
            lone = best_in_turns(
                {n: one.seconds for n, one in updates.items()}, self._effort.rounds
            )
            shared = best_in_turns(
                {n: _all_updates(one, n) for n, one in updates.items()}, self._effort.rounds
            )
            found = [Group(n, lone[n], shared[n]) for n in _GROUPS]
        return tuple(found)

    @contextmanager
    def _context(self, settings: EngineSettings, cells: int) -> Iterator[Context]:
        if not self._model.capabilities.cuts:
            settings = settings_with_states(settings)
        context = Context(self._model, settings, cells)
        try:
            yield context
        finally:
            context.free()

    @contextmanager
    def _updates(self, settings: EngineSettings, n_sessions: int = 1) -> Iterator[Updates]:
        settings = dataclasses.replace(settings, sessions_per_context=n_sessions)
        with self._context(settings, n_sessions * (len(self._history) + _ROOM)) as context:
            for session in range(n_sessions):
                feed(context, session, self._history, 0)
            yield Updates(context, self._tokens, n_sessions)


def _with_steps(updates: Updates) -> Callable[[], float]:
    return lambda: updates.seconds(n_steps=_STEPS)


def _all_updates(updates: Updates, n: int) -> Callable[[], float]:
    return lambda: updates.seconds(n_sessions=n)


def _one_pass(context: Context, tokens: tuple[int, ...]) -> Callable[[], float]:
    return lambda: pass_seconds(context, tokens)


def _whole_batch(context: Context, tokens: tuple[int, ...]) -> Callable[[], float]:
    def seconds() -> float:
        context.clear()
        return pass_seconds(context, tokens)

    return seconds


assert _ROOM >= 40 + QUESTIONS * (12 + _STEPS), "an update with its steps fits its room"
