"""docs/METRICS.md: every metric with its type, labels and meaning, as a worker exports them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Metric

from flashfeed.agents.metrics import Metrics
from flashfeed.agents.metrics_learning import LABELS, SCORES
from flashfeed.cli.probe import ProbeMetrics

PAGE = Path(__file__).parents[1] / "docs" / "METRICS.md"
SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_count", "_sum"),
    "gauge": ("",),
}
"""What a type's samples are called beside its name."""
HEAD = """# Metrics

What a worker's `/metrics` exports, in base SI units; written by
`pytest tests/cli/test_metrics.py --write-metrics`. A session's id is never a label: `tenant`,
`feed` and `query` are names of the configuration, `type` is a session's, `spec` a hash. What
else a tenant calls its own is `other`. A tenant's key reads three figures of its own alone:
`flashfeed_sessions`, `flashfeed_session_tokens` (held by its sessions) and
`flashfeed_queued_records` (that wait).

Counters have `_total` behind their names, histograms are classic (`_bucket`, `_count`, `_sum`).
Beside these there are the process's own (`process_*`). `flashfeed_probe*` are those of
`flashfeed probe --every`, a process of its own; `flashfeed_gpu_*` need the `gpu` extra.

| name | type | labels | meaning |
|---|---|---|---|
"""
GPU = (
    ("flashfeed_gpu_busy_ratio", "Share of the last moments in which a GPU computed."),
    ("flashfeed_gpu_memory_bytes", "Memory of a GPU."),
    ("flashfeed_gpu_memory_used_bytes", "Memory of a GPU in use, by whomever."),
)
"""Only with the `gpu` extra and NVIDIA's driver."""
ELSEWHERE: dict[str, tuple[str, ...]] = {"flashfeed_silent_partitions": ("topic",)}
"""Labels of what agents/stall_watch.py registers, before its first look, and of LEARNT."""
LEARNT = {
    "flashfeed_score_labels",
    "flashfeed_head_drifted_labels",
    *(f"flashfeed_score_{short}" for short, _ in SCORES.values()),
}
"""Only where questions learn."""
ELSEWHERE |= dict.fromkeys(LEARNT, LABELS)
PROBE = "flashfeed_probe"
"""How the names of what `flashfeed probe --every` exports begin."""


class Row(NamedTuple):
    """A metric of the page."""

    kind: str
    labels: tuple[str, ...]
    meaning: str


def documented() -> dict[str, Row]:
    """The page's metrics by name, as it stands."""
    found = {}
    for line in PAGE.read_text().splitlines() if PAGE.is_file() else ():
        cells = re.fullmatch(r"\| `(\w+)` \| (\w+) \| (.*?) \| (.*) \|", line)
        if cells:
            labels = tuple(re.findall(r"`(\w+)`", cells[3]))
            found[cells[1]] = Row(cells[2], labels, cells[4])
    return found


def sample_names() -> set[str]:
    """Every series name that a query may use."""
    return {name + suffix for name, row in documented().items() for suffix in SUFFIXES[row.kind]}


def page(families: Iterable[Metric]) -> str:
    """The page of those metrics."""
    rows = []
    probe = ProbeMetrics()
    probe.found(0, 0.1)
    for family in [*families, *probe.registry.collect()]:
        if not family.name.startswith("flashfeed_"):
            continue
        labels = _label_names(family)
        row = Row(family.type, labels, family.documentation)
        rows.append((family.name, row))
    have = {name for name, _ in rows}
    rows += [(name, Row("gauge", ("gpu", "name"), what)) for name, what in GPU if name not in have]
    return HEAD + "".join(
        f"| `{name}` | {row.kind} | {' '.join(f'`{one}`' for one in row.labels)} "
        f"| {row.meaning} |\n"
        for name, row in sorted(rows)
    )


def _label_names(family: Metric) -> tuple[str, ...]:
    """A family's labels: those of its series, else those that it was made with."""
    for one in family.samples:
        return tuple(name for name in one.labels if name != "le")
    if family.name in ELSEWHERE:
        return ELSEWHERE[family.name]
    known: CollectorRegistry = Metrics().registry
    for collector in known._collector_to_names:
        if getattr(collector, "_name", "") == family.name:
            return tuple(getattr(collector, "_labelnames", ()) or getattr(collector, "_labels", ()))
    raise AssertionError(f"{family.name} has no series, and no labels are known of it")
