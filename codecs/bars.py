"""Bars of trades or finer candles, in event time. Pure: a state and a piece in, a new state,
complete bars and what was late out.

Pieces wait until event time is the allowed lateness past them, and are then taken in order
of their own time. So every order of arrival within the lateness gives the same bars.
"""

from __future__ import annotations

import bisect
import math
import sys
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from ..models.assembly import Assembly, BarSpec, OpenBar, Piece, duration_s
from ..models.errors import ValidationFault
from ..models.records import TIMESTAMP_MIN_S, Ohlcv, Trade

WAITING_MAX: Final = 4096
"""Pieces that may wait. Where a feed has more within its lateness the oldest is taken at
once, and what should have come before it is late."""


class Built(NamedTuple):
    """What a piece led to."""

    assembly: Assembly
    bars: tuple[Ohlcv, ...] = ()
    late: bool = False


def piece_of(record: Trade | Ohlcv, spec: BarSpec, received_s: float) -> Piece:
    """A record as a piece of a bar; without a time of its own it is of when it was received.
    Raises ValidationFault where such bars are not made of it."""
    sym = record.sym or ""
    if isinstance(record, Trade):
        time = received_s if record.timestamp is None else record.timestamp
        return Piece(time, record.p, record.p, record.p, record.p, record.q, sym)
    if spec.by != "time":
        raise ValidationFault(f"expected a trade, of which {spec.by} bars are made, got a candle")
    if record.timestamp is None:
        raise ValidationFault("expected a candle with a time, of which coarser bars are made")
    return Piece(record.timestamp, record.o, record.h, record.l, record.c, record.v, sym)


def build(assembly: Assembly, spec: BarSpec, piece: Piece) -> Built:
    """Take a piece in."""
    lateness = duration_s(spec.lateness)
    newest = assembly.newest
    if newest is not None and piece.time < newest - lateness:
        return Built(assembly, late=True)
    waiting = list(assembly.waiting)
    bisect.insort(waiting, piece)
    newest = piece.time if newest is None else max(newest, piece.time)
    due = bisect.bisect_left(waiting, newest - lateness, key=lambda one: one.time)
    due = max(due, len(waiting) - WAITING_MAX)
    bar, bars = assembly.bar, []
    for one in waiting[:due]:
        bar, complete = _add(bar, spec, one)
        bars += complete
    if len(waiting) - due >= WAITING_MAX:
        newest = max(newest, waiting[due].time + lateness)
    if bar is not None and spec.by == "time" and newest - lateness >= _end(bar, spec):
        waits_before = due < len(waiting) and waiting[due].time < _end(bar, spec)
        if not waits_before:
            bars.append(_ohlcv(bar))
            bar = None
    state = msgspec.structs.replace(assembly, waiting=tuple(waiting[due:]), newest=newest, bar=bar)
    return Built(state, tuple(bars))


def open_bars(assembly: Assembly, spec: BarSpec, more: Iterable[Piece] = ()) -> tuple[Ohlcv, ...]:
    """The bars that are not complete, as they would be if no piece came but `more`: those
    that only wait for late pieces, and the last one. A piece more never makes them fewer."""
    bar, bars = assembly.bar, []
    for one in sorted((*assembly.waiting, *more)):
        bar, complete = _add(bar, spec, one)
        bars += complete
    return (*bars, *(() if bar is None else (_ohlcv(bar),)))


def _add(bar: OpenBar | None, spec: BarSpec, piece: Piece) -> tuple[OpenBar | None, list[Ohlcv]]:
    """The bar with the piece in it, and the bars that are complete now."""
    complete: list[Ohlcv] = []
    if spec.by == "time":
        size = duration_s(str(spec.size))
        start = math.floor(piece.time / size) * size
        if bar is not None and bar.start != start:
            complete.append(_ohlcv(bar))
            bar = None
    else:
        start = piece.time
    bar = _with(bar, piece, start, _share(spec, piece))
    if spec.by != "time" and bar.filled >= float(spec.size):
        complete.append(_ohlcv(bar))
        bar = None
    return bar, complete


def _share(spec: BarSpec, piece: Piece) -> float:
    """How much of a bar's size a piece fills."""
    if spec.by == "volume":
        return piece.v
    return _finite(piece.c * piece.v) if spec.by == "dollar" else 1.0


def _with(bar: OpenBar | None, piece: Piece, start: float, share: float) -> OpenBar:
    if bar is None:
        return OpenBar(start, piece.o, piece.h, piece.l, piece.c, piece.v, share, piece.sym)
    return OpenBar(
        bar.start,
        bar.o,
        max(bar.h, piece.h),
        min(bar.l, piece.l),
        piece.c,
        _finite(bar.v + piece.v),
        _finite(bar.filled + share),
        bar.sym or piece.sym,
    )


def _finite(value: float) -> float:
    """The nearest number to it: the changelog's JSON cannot hold an infinity."""
    return max(-sys.float_info.max, min(value, sys.float_info.max))


def _end(bar: OpenBar, spec: BarSpec) -> float:
    return bar.start + duration_s(str(spec.size))


def _ohlcv(bar: OpenBar) -> Ohlcv:
    return Ohlcv(
        o=bar.o,
        h=bar.h,
        l=bar.l,
        c=bar.c,
        v=bar.v,
        sym=bar.sym or None,
        timestamp=max(bar.start, TIMESTAMP_MIN_S),  # the first bar begins before all times
    )
