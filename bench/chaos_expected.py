"""What a session must hold in the end: its records, the text codec and the window's arithmetic,
and nothing of how steps are planned, batched or recovered. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chaos_feed import MINUTE_S, START_S, Candle

from flashfeed.codecs.registry import text_codec
from flashfeed.models.records import make_record
from flashfeed.models.session import SessionSpec
from flashfeed.models.window import block_start, window_start


def unique(candles: Iterable[Candle]) -> list[Candle]:
    """A session's candles, each once, by their start."""
    return sorted(set(candles))


def expected_lines(candles: Iterable[Candle], symbol: str, spec: SessionSpec) -> list[str]:
    """The lines of the session's window, oldest first."""
    codec = text_codec(spec.text, spec.type)
    items = unique(candles)
    begins = window_start(spec.window, len(items))
    lines, memory, block = [], None, -1
    # No line refers beyond its block, and a window begins with one.
    for number in range(begins, len(items)):
        if block != (now := block_start(spec.window, number)):
            block, memory = now, None
        record = make_record(spec.type, _fields(items[number], symbol))
        lines.append(codec.render(record, memory).removesuffix("\n"))
        memory = codec.remember(memory, record)
    return lines


def _fields(candle: Candle, symbol: str) -> Mapping[str, Any]:
    close = float(candle.close)
    return {
        **{name: close for name in "ohlc"},
        "v": 1.0,
        "sym": symbol,
        "timestamp": float(START_S + MINUTE_S * candle.number),
    }
