"""The score page's pictures: SVG made of numbers, in the page's own colours. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from flashfeed.heads.score_curves import LearningPoint, ReliabilityBin

WIDTH, HEIGHT = 440, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 22, 12, 40
_TICKS: Final = 5
_BAR_MAX: Final = 46


class _Scale(NamedTuple):
    """Data to pixels: of the plot's rectangle."""

    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        return _LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return (
            HEIGHT - _BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - _TOP - _BOTTOM)
        )


def reliability_chart(bins: Sequence[ReliabilityBin], n_choices: int) -> str:
    """How often answers were right against how sure they were. The bars at the foot are how many
    answers that were."""
    least = min([1 / n_choices, *(one.confidence for one in bins)])
    scale = _Scale(math.floor(least * 10) / 10, 1.0, 0.0, 1.0)
    most = max(one.answers for one in bins)
    parts = _axes(scale, "confidence", "how often right", percent=(True, True))
    start = max(scale.x0, scale.y0)
    parts.append(_line("ideal", [(start, start), (1.0, 1.0)], scale))
    for place, one in enumerate(bins):
        x = scale.x(one.confidence)
        height = _BAR_MAX * one.answers / most
        foot = scale.y(0.0)
        said = (
            f"{one.answers} answers, mean confidence {one.confidence:.3f}, right {one.right:.3f} "
            f"(95% {one.low:.3f} to {one.high:.3f})"
        )
        parts += [
            f'<rect class="count" x="{x - 5:.1f}" y="{foot - height:.1f}" width="10" '
            f'height="{height:.1f}"/>',
            f'<line class="interval" x1="{x:.1f}" x2="{x:.1f}" y1="{scale.y(one.low):.1f}" '
            f'y2="{scale.y(one.high):.1f}"/>',
            f'<circle class="own" cx="{x:.1f}" cy="{scale.y(one.right):.1f}" r="4">'
            f"<title>{said}</title></circle>",
            f'<text class="small" x="{x:.1f}" y="{foot - height - 3 - 11 * (place % 2):.1f}" '
            f'text-anchor="middle">{one.answers}</text>',
        ]
    return _svg(parts, "Reliability: how often answers of a confidence were right")


def learning_chart(points: Sequence[LearningPoint]) -> str:
    """The mean log loss so far over the labels, against what knows nothing of the data."""
    values = [value for one in points for value in (one.own, one.base_rate, one.persistence)]
    top = _round_up(min(max(values), 3.0))  # the first labels may cost much more
    last = points[-1].label
    scale = _Scale(0.0, float(max(last, 1)), 0.0, top)
    parts = _axes(scale, "labels", "mean log loss so far (nats)")
    for name in ("persistence", "base_rate", "own"):
        line = [(float(one.label), min(getattr(one, name), top)) for one in points]
        parts.append(_line(name, line, scale))
    return _svg(parts, "Learning: the mean log loss so far")


def _axes(
    scale: _Scale, x_title: str, y_title: str, percent: tuple[bool, bool] = (False, False)
) -> list[str]:
    parts = []
    for number in range(_TICKS + 1):
        share = number / _TICKS
        x_value = scale.x0 + share * (scale.x1 - scale.x0)
        y_value = scale.y0 + share * (scale.y1 - scale.y0)
        x, y = scale.x(x_value), scale.y(y_value)
        parts += [
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>',
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<text class="small" x="{x:.1f}" y="{HEIGHT - _BOTTOM + 15}" text-anchor="middle">'
            f"{_tick(x_value, percent[0])}</text>",
            f'<text class="small" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{_tick(y_value, percent[1])}</text>",
        ]
    middle = (HEIGHT - _BOTTOM + _TOP) / 2
    return [
        *parts,
        f'<text x="{(WIDTH + _LEFT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{x_title}'
        "</text>",
        f'<text x="14" y="{middle:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle:.0f})">{y_title}</text>',
    ]


def _tick(value: float, percent: bool) -> str:
    return f"{value:.0%}" if percent else f"{value:.3g}"


def _line(name: str, points: Sequence[tuple[float, float]], scale: _Scale) -> str:
    at = " ".join(f"{scale.x(x):.1f},{scale.y(y):.1f}" for x, y in points)
    return f'<polyline class="{name}" points="{at}"/>'


def _svg(parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg>'
    )


def _round_up(value: float) -> float:
    """A little above the value, with few digits."""
    step = 10.0 ** math.floor(math.log10(max(value, 1e-3))) / 2
    return math.ceil(value * 1.02 / step) * step
