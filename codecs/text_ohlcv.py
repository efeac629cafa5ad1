r"""Candles in words, what a model of this size reads best (docs/CONFIDENCE.md has the table):

    122.00
    115.24 down 5.5 high wide       close, its direction and change in percent, volume, range
    118.50 up 2.8 low narrow

The change is against the close before. The volume is high above the mean of the block's earlier
ones, else low. The range is wide or narrow against the candle before, or `same`. They stand only
where there is a candle of the same symbol before; volume and range not in the line of several
candles or of an open one, which are of another time. The symbol opens the line where it is not
the one of the record before.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..models.records import Ohlcv, StreamType
from .text import (
    DECIMALS_MIN,
    NAME,
    NUMBER,
    Written,
    fixed_tolerance,
    match_line,
    name_text,
    name_value,
    number_text,
    tolerance,
)
from .text_facts import DOWN, HIGH, LOW, SAME, UP, FactsMemory, measured, remembered
from .text_ohlcv_numbers import CHANGE_DECIMALS, stated_symbol

RANGES: Final = {UP: "wide", DOWN: "narrow", SAME: "same"}

_LINE: Final = re.compile(
    rf"(?:(?P<sym>{NAME}) )?(?P<c>{NUMBER})"
    rf"(?: (?P<direction>{UP}|{DOWN}|{SAME})(?: (?P<size>{NUMBER}))?)?"
    rf"(?: (?P<volume>{HIGH}|{LOW}))?(?: (?P<range>{'|'.join(RANGES.values())}))?\n"
)


class OhlcvLine:
    """Close, direction and change, volume and range, all but the close and the change in words."""

    name = "ohlcv"
    record_type: StreamType = "ohlcv"
    legend = (
        "Each line is one candle: close, whether it went up or down and by how much in percent, "
        "whether its volume is high or low, and whether its range is wide or narrow."
    )
    leaves_out = "open, high and low; the volume itself; the time"
    precision: Final = {
        "sym": "exact",
        "c": "5 significant digits, at least 2 decimals",
        "direction": "exact",
        "change": "a tenth of a percent",
        "volume": "exact",
        "range": "exact",
    }

    def remember(self, memory: FactsMemory | None, record: Ohlcv) -> FactsMemory:
        """How close, volume and range of each symbol went through the block."""
        return remembered(memory, record, self.record_type)

    def render(self, record: Ohlcv, memory: FactsMemory | None) -> str:
        """The record's line."""
        sym = stated_symbol(record, None if memory is None else memory.previous)
        line = number_text(record.c, DECIMALS_MIN)
        if sym is not None:
            line = f"{name_text(sym)} {line}"
        direction, change, volume, spread = _said(record, memory)
        if direction is not None:
            line = f"{line} {direction}"
            if change is not None:
                line = f"{line} {abs(change):.{CHANGE_DECIMALS}f}"
        if volume is not None:
            line = f"{line} {volume}"
        if spread is not None:
            line = f"{line} {spread}"
        return line + "\n"

    def parse(self, line: str, memory: FactsMemory | None) -> dict[str, float | str]:
        """The fields a line says."""
        groups = match_line(_LINE, line)
        fields: dict[str, float | str] = {"c": float(groups["c"])}
        if "sym" in groups:
            fields["sym"] = name_value(groups["sym"])
        for name in ("direction", "volume", "range"):
            if name in groups:
                fields[name] = groups[name]
        if "size" in groups:
            size = float(groups["size"])
            fields["change"] = -size if groups["direction"] == DOWN else size
        return fields

    def written(self, record: Ohlcv, memory: FactsMemory | None) -> dict[str, Written]:
        """The fields the record's line must say."""
        written = {"c": Written(record.c, tolerance(record.c))}
        sym = stated_symbol(record, None if memory is None else memory.previous)
        if sym is not None:
            written["sym"] = Written(sym)
        for name, value in _said(record, memory)._asdict().items():
            if value is not None:
                within = fixed_tolerance(value, CHANGE_DECIMALS) if name == "change" else 0.0
                written[name] = Written(value, within)
        return written


class _Said(NamedTuple):
    """What there is to say behind the close."""

    direction: str | None = None
    change: float | None = None
    volume: str | None = None
    range: str | None = None


_NOTHING: Final = _Said()


def _said(record: Ohlcv, memory: FactsMemory | None) -> _Said:
    went = None if memory is None else memory.courses.get(record.sym)
    if not went:
        return _NOTHING
    close, volume, spread = went.get("c"), went.get("v"), went.get("range")
    wide = measured(record, "range")
    return _Said(
        None if close is None else close.direction_of(record.c),
        None if close is None else close.percent_of(record.c),
        None if volume is None else volume.level_of(record.v),
        None if spread is None or wide is None else RANGES[spread.direction_of(wide)],
    )
