"""Prometheus' text format (0.0.4) of collected families. Pure.

What prometheus_client's `generate_latest` writes, byte for byte, for the three types that we
have: it checks every label's name on every line, which is most of its time.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString


def text_of(families: Iterable[Metric]) -> bytes:
    """The families' text. Raises ValueError for a type that is none of counter, gauge and
    classic histogram."""
    lines: list[str] = []
    for family in families:
        if family.type not in {"counter", "gauge", "histogram"}:
            raise ValueError(f"{family.name}: expected no {family.type}")
        name = f"{family.name}_total" if family.type == "counter" else family.name
        meaning = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
        lines.append(f"# HELP {name} {meaning}\n# TYPE {name} {family.type}\n")
        lines += map(_line, family.samples)
    return "".join(lines).encode()


def _line(sample: Sample) -> str:
    value = floatToGoString(sample.value)  # type: ignore[no-untyped-call]
    if not sample.labels:
        return f"{sample.name} {value}\n"
    labels = ",".join([f'{name}="{_quoted(one)}"' for name, one in sorted(sample.labels.items())])
    return f"{sample.name}{{{labels}}} {value}\n"


def _quoted(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
