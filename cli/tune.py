"""`flashfeed tune`: measures this machine with a model, and keeps what suits it best."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from flashfeed.engine import EngineSettings
from flashfeed.engine.machine import cores
from flashfeed.engine.measure import LOGIT_DIFF_MAX
from flashfeed.engine.model_source import fetch
from flashfeed.engine.tune import FULL, QUICK
from flashfeed.engine.tune import tune as measure_and_keep
from flashfeed.engine.tuned import Measured, Record, Tuned, recall, tuned_file
from flashfeed.models.config import Config
from flashfeed.models.errors import ConfigError

from .models import catalogue, engine_of
from .settings import load

_BUSY: Final = 0.5


def tune(config_path: Path | None, model: str = "", quick: bool = False, show: bool = False) -> int:
    """Measure, choose, keep and print; with `show` print what is kept.

    Raises ConfigError for a wrong configuration or model. 1 where nothing is kept to show.
    """
    config = load(config_path) if config_path else Config()
    known = catalogue(config)
    name = model or known.default
    if name not in known.named:
        raise ConfigError(f"expected one of {', '.join(sorted(known.named))}, got model {name!r}")
    console = Console(highlight=False)
    path = fetch(known.named[name], known.limits, progress=console.print)
    options = engine_of(config, name)
    kept = tuned_file(path, options.gpu_layers)
    if show:
        record = recall(kept)
        if record is None:
            console.print(f"{path.name}: not tuned on this machine; run flashfeed tune")
            return 1
    else:
        console.print(f"measuring {path.name}", soft_wrap=True)
        load_1min = os.getloadavg()[0]
        if load_1min > _BUSY * cores():
            console.print(
                f"this machine is busy (load {load_1min:.1f} on {cores()} cores): the figures "
                "will mislead; measure again when it does nothing else"
            )
        settings = EngineSettings(
            model_path=path,
            threads=cores(),
            gpu_layers=options.gpu_layers,
            batch_tokens=options.batch_tokens,
        )
        effort = QUICK if quick else FULL
        record = measure_and_keep(path, settings, effort, lambda what: console.print(f"  {what}"))
    _print(console, record)
    console.print(f"kept as {kept}", soft_wrap=True)
    console.print(
        "A worker takes these where its \\[engine] table says 0 or auto; restart it to apply them."
    )
    return 0


def _print(console: Console, record: Record) -> None:
    console.print(f"\n{record.model} on {record.device}, llama.cpp {record.llama_cpp}")
    table = Table("setting", "chosen", "measured (ms)", box=None, pad_edge=False)
    for setting, chosen, figures in rows(record.tuned, record.measured):
        table.add_row(setting, chosen, figures)
    console.print(table)


def rows(tuned: Tuned, measured: Measured) -> list[tuple[str, str, str]]:
    """Setting, choice and figures, for a person."""
    kinds = "; ".join(
        f"{kind.flash_attention}/{kind.kv_type} update {_ms(kind.update_s)}, step "
        f"{_ms(kind.step_s)}, logits within {kind.logit_diff:.3f}"
        + ("" if kind.logit_diff <= LOGIT_DIFF_MAX else " (too far)")
        for kind in measured.attention
    )
    groups = "; ".join(
        f"{group.sessions}: alone {_ms(group.lone_s)}, "
        f"shared {_ms(group.shared_s / group.sessions)} each"
        for group in measured.groups
    )
    passes = ", ".join(f"{n}: {_ms(seconds)}" for n, seconds in sorted(measured.passes.items()))
    return [
        ("threads", str(tuned.threads), _by(measured.threads)),
        ("flash_attention", tuned.flash_attention, kinds),
        ("kv_type", tuned.kv_type, ""),
        ("ubatch_tokens", str(tuned.ubatch_tokens), _by(measured.ubatch)),
        ("step_tokens", str(tuned.step_tokens), f"tokens of a pass {passes}"),
        ("foreground_chunk", str(tuned.foreground_chunk), ""),
        ("sessions_per_context", str(tuned.sessions_per_context), groups),
    ]


def _by(seconds: dict[int, float]) -> str:
    return ", ".join(f"{key}: {_ms(value)}" for key, value in sorted(seconds.items()))


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}" if seconds >= 0.01 else f"{seconds * 1000:.1f}"
