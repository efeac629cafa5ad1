"""A patient's early warning score and its band, of the vitals that are there. Pure.

The points and the bands are those of NEWS2 (Royal College of Physicians, National Early
Warning Score 2, London 2017, charts 1 to 3), with SpO2 scale 1; scale 2, for patients with
hypercapnic failure, is a clinician's choice and is not here.

NEWS2 is defined of all seven parameters. Where one is missing this is no NEWS2 and is not
called so: its points are a lower bound, and its confidence is the share of the seven that
are there.
"""

from __future__ import annotations

import math
from typing import Final, Literal, NamedTuple

from ..models.records import Vitals

Band = Literal["low", "low-medium", "medium", "high"]

PARAMETERS: Final = ("rr", "spo2", "o2", "bp_s", "hr", "avpu", "temp")
COMPLETE_NAME: Final = "NEWS2"
PARTIAL_NAME: Final = "partial"

_MEDIUM_FROM: Final = 5
_HIGH_FROM: Final = 7
_RED: Final = 3
_INF: Final = math.inf
_OFF_SCALE: Final = 1e6  # beyond every step, and its tenths are a number still
# The highest value of each step, and its points. Temperature in tenths of a degree.
_STEPS: Final[dict[str, tuple[tuple[float, int], ...]]] = {
    "rr": ((8, 3), (11, 1), (20, 0), (24, 2), (_INF, 3)),
    "spo2": ((91, 3), (93, 2), (95, 1), (_INF, 0)),
    "bp_s": ((90, 3), (100, 2), (110, 1), (219, 0), (_INF, 3)),
    "hr": ((40, 3), (50, 1), (90, 0), (110, 1), (130, 2), (_INF, 3)),
    "temp": ((350, 3), (360, 1), (380, 0), (390, 1), (_INF, 2)),
}


class EarlyWarning(NamedTuple):
    """The points, the band that they mean, what is missing, and 0..1 how sure that is."""

    score: int
    band: Band
    missing: tuple[str, ...]
    confidence: float

    @property
    def name(self) -> str:
        """NEWS2 where all seven are there, `partial` where not."""
        return PARTIAL_NAME if self.missing else COMPLETE_NAME


def early_warning(vitals: Vitals) -> EarlyWarning:
    """The score of what is there. Values are rounded to the chart's own steps first: whole
    numbers, and tenths of a degree."""
    points = {
        name: _points(name, value)
        for name in PARAMETERS
        if (value := getattr(vitals, name)) is not None
    }
    score = sum(points.values())
    band: Band = "low"
    if score >= _HIGH_FROM:
        band = "high"
    elif score >= _MEDIUM_FROM:
        band = "medium"
    elif _RED in points.values():
        band = "low-medium"
    missing = tuple(name for name in PARAMETERS if name not in points)
    return EarlyWarning(score, band, missing, len(points) / len(PARAMETERS))


def _points(name: str, value: float | str) -> int:
    if isinstance(value, str):
        return 0 if value == "A" else _RED
    if name == "o2":
        return 2 if value > 0 else 0
    value = max(-_OFF_SCALE, min(value, _OFF_SCALE))
    read = math.floor(value * 10 + 0.5) if name == "temp" else math.floor(value + 0.5)
    return next(points for highest, points in _STEPS[name] if read <= highest)
