r"""Candles as numbers: `ohlcv_numbers`, the short one, and `ohlcv_full`, all five fields.

    ohlcv_numbers   122.00 -6.4 2.8M             close, change in %, volume
    ohlcv_full      122.00 -6.4% o+500 h+594 l-131 2.8M
                    and open, high and low as distances to the close, counted in the close's
                    last digit (cents here): the open was 5.00 above it

The change is against the close before, in percent, and stands only where there is one.
The symbol opens the line where it is not the one of the record before (`AAPL 130.31 9.6M`).
"""

from __future__ import annotations

import re
from typing import Final

from ..models.records import Ohlcv, StreamType
from .text import (
    DECIMALS_MIN,
    NAME,
    NUMBER,
    SHORT,
    SIGNED,
    RefersToPrevious,
    Written,
    decimals,
    fixed_tolerance,
    match_line,
    name_text,
    name_value,
    number_text,
    rounding,
    short_text,
    short_tolerance,
    short_value,
    tolerance,
)
from .text_facts import percent

CHANGE_DECIMALS: Final = 1

_SHORT_LINE: Final = re.compile(
    rf"(?:(?P<sym>{NAME}) )?(?P<c>{NUMBER})(?: (?P<change>{SIGNED}))? (?P<v>{SHORT})\n"
)
_FULL_LINE: Final = re.compile(
    rf"(?:(?P<sym>{NAME}) )?(?P<c>{NUMBER})(?: (?P<change>{SIGNED})%)?"
    rf" o(?P<o>{SIGNED}) h(?P<h>{SIGNED}) l(?P<l>{SIGNED}) (?P<v>{SHORT})\n"
)


def _change(record: Ohlcv, previous: Ohlcv | None) -> float | None:
    """The change in percent against the close before, where that says something."""
    if previous is None or not _same_symbol(record, previous):
        return None
    return percent(record.c, previous.c)


def _same_symbol(record: Ohlcv, previous: Ohlcv) -> bool:
    return record.sym is None or previous.sym is None or record.sym == previous.sym


def stated_symbol(record: Ohlcv, previous: Ohlcv | None) -> str | None:
    """The symbol where a line must say it: it is not the one of the record before."""
    if previous is not None and record.sym == previous.sym:
        return None
    return record.sym


def _change_text(change: float) -> str:
    text = f"{change:+.{CHANGE_DECIMALS}f}"
    return "+0.0" if text == "-0.0" else text


class OhlcvNumbers(RefersToPrevious):
    """Close, change and volume."""

    name = "ohlcv_numbers"
    record_type: StreamType = "ohlcv"
    legend = (
        "Each line is one candle: close, change from the close before in percent, "
        "volume (K thousand, M million)."
    )
    leaves_out = "open, high and low; the time"
    precision: Final = {
        "sym": "exact",
        "c": "5 significant digits, at least 2 decimals",
        "change": "a tenth of a percent",
        "v": "2 significant digits",
    }

    def render(self, record: Ohlcv, previous: Ohlcv | None) -> str:
        """The record's line."""
        sym = stated_symbol(record, previous)
        change = _change(record, previous)
        start = "" if sym is None else f"{name_text(sym)} "
        middle = "" if change is None else f" {_change_text(change)}"
        return f"{start}{number_text(record.c, DECIMALS_MIN)}{middle} {short_text(record.v)}\n"

    def parse(self, line: str, previous: Ohlcv | None) -> dict[str, float | str]:
        """The fields a line says."""
        return _common_fields(match_line(_SHORT_LINE, line))

    def written(self, record: Ohlcv, previous: Ohlcv | None) -> dict[str, Written]:
        """The fields the record's line must say."""
        return {**_common_written(record, previous), "c": Written(record.c, tolerance(record.c))}


class OhlcvFull(RefersToPrevious):
    """All five fields, open, high and low as distances to the close."""

    name = "ohlcv_full"
    record_type: StreamType = "ohlcv"
    legend = (
        "Each line is one candle: close, change from the close before, then open (o), high (h) "
        "and low (l) as their distance to the close, counted in the close's last digit, then "
        "volume (K thousand, M million)."
    )
    leaves_out = "the time"
    precision: Final = {
        "sym": "exact",
        "o": "as the close",
        "h": "as the close",
        "l": "as the close",
        "c": "5 significant digits, at least 2 decimals",
        "change": "a tenth of a percent",
        "v": "2 significant digits",
    }

    def render(self, record: Ohlcv, previous: Ohlcv | None) -> str:
        """The record's line."""
        places, (o, h, l, c) = _ticks(record)
        sym = stated_symbol(record, previous)
        change = _change(record, previous)
        start = "" if sym is None else f"{name_text(sym)} "
        middle = "" if change is None else f" {_change_text(change)}%"
        return (
            f"{start}{_tick_text(c, places)}{middle} "
            f"o{o - c:+d} h{h - c:+d} l{l - c:+d} {short_text(record.v)}\n"
        )

    def parse(self, line: str, previous: Ohlcv | None) -> dict[str, float | str]:
        """The fields a line says."""
        groups = match_line(_FULL_LINE, line)
        fields = _common_fields(groups)
        places = len(groups["c"].partition(".")[2])
        close = int(groups["c"].replace(".", ""))
        for name in ("o", "h", "l"):
            fields[name] = (close + int(groups[name])) / 10**places
        return fields

    def written(self, record: Ohlcv, previous: Ohlcv | None) -> dict[str, Written]:
        """The fields the record's line must say."""
        written = _common_written(record, previous)
        unit = 10.0 ** -decimals(record.c)
        for name, value in (("o", record.o), ("h", record.h), ("l", record.l), ("c", record.c)):
            written[name] = Written(value, rounding(unit, max(abs(value), abs(record.c))))
        return written


def _ticks(record: Ohlcv) -> tuple[int, tuple[int, ...]]:
    """How many decimals the candle needs, and its four prices in units of the last one."""
    places = decimals(record.c)
    prices = (record.o, record.h, record.l, record.c)
    texts = [f"{price:.{places}f}" for price in prices]
    while places > DECIMALS_MIN and all(text[-1] == "0" for text in texts):
        places -= 1
        texts = [text[:-1] for text in texts]
    return places, tuple(int(text.replace(".", "")) for text in texts)


def _tick_text(ticks: int, places: int) -> str:
    digits = f"{abs(ticks):0{places + 1}d}"
    return f"{'-' if ticks < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _common_fields(groups: dict[str, str]) -> dict[str, float | str]:
    fields: dict[str, float | str] = {"c": float(groups["c"]), "v": short_value(groups["v"])}
    if "change" in groups:
        fields["change"] = float(groups["change"])
    if "sym" in groups:
        fields["sym"] = name_value(groups["sym"])
    return fields


def _common_written(record: Ohlcv, previous: Ohlcv | None) -> dict[str, Written]:
    written = {"v": Written(record.v, short_tolerance(record.v))}
    change = _change(record, previous)
    if change is not None:
        written["change"] = Written(change, fixed_tolerance(change, CHANGE_DECIMALS))
    sym = stated_symbol(record, previous)
    if sym is not None:
        written["sym"] = Written(sym)
    return written
