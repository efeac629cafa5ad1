"""From the records that come to those that a session holds, where that needs memory. Pure.

A candle that may still change waits for the next one; trades and finer candles become
bars (bars.py); a vital sign by itself is joined with the last ones that are still fresh.
A live session is also told what is not final yet.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ..models.assembly import Assembly, duration_s
from ..models.errors import ValidationFault
from ..models.records import VITAL_FIELDS, Ohlcv, Record, Trade, Vitals, record_fields
from ..models.session import SessionSpec
from .bars import Built, build, open_bars, piece_of


class Assembled(NamedTuple):
    """What a record led to: what is remembered, the records that the session takes now,
    whether it came too late to count, and in a live session the candles that are not final."""

    assembly: Assembly
    records: tuple[Record, ...] = ()
    late: bool = False
    live: tuple[Ohlcv, ...] = ()


def assemble(
    assembly: Assembly, spec: SessionSpec, record: Record, may_change: bool, received_s: float
) -> Assembled:
    """Take a record in. `may_change`: it is a candle of a feed that sends one again until the
    next begins. Raises ValidationFault for a record that the session makes nothing of."""
    if isinstance(record, Vitals) and spec.merge:
        return _merged(assembly, record, duration_s(spec.merge), received_s)
    if isinstance(record, Trade) and spec.bars is None:
        raise ValidationFault("expected a candle, got a trade; give the session's template `bars`")
    if spec.bars is None and not may_change:
        return Assembled(assembly, (record,))
    if isinstance(record, Trade | Ohlcv):
        assembly = _of_one_symbol(assembly, record.sym or "")
    if isinstance(record, Ohlcv) and may_change:
        done = _final(assembly, spec, record, received_s)
    else:
        done = _barred(assembly, spec, record, received_s)
    return done._replace(live=_live(done.assembly, spec, received_s)) if spec.live else done


def _live(assembly: Assembly, spec: SessionSpec, received_s: float) -> tuple[Ohlcv, ...]:
    """What is not final, as it would be if nothing else came."""
    held = () if assembly.candle is None else (msgspec.convert(assembly.candle, Ohlcv),)
    if spec.bars is None:
        return held
    pieces = [piece_of(candle, spec.bars, received_s) for candle in held]
    return open_bars(assembly, spec.bars, pieces)


def _of_one_symbol(assembly: Assembly, sym: str) -> Assembly:
    if assembly.sym and sym and sym != assembly.sym:
        raise ValidationFault(
            f"expected {assembly.sym}, of which this session's candles are, got {sym}; name the "
            "feed's sessions by symbol"
        )
    return msgspec.structs.replace(assembly, sym=assembly.sym or sym)


def _final(assembly: Assembly, spec: SessionSpec, candle: Ohlcv, received_s: float) -> Assembled:
    """The candle before, where this one begins after it."""
    if candle.timestamp is None:
        raise ValidationFault("expected a candle with a time, which says when the next one begins")
    held = assembly.candle
    kept = msgspec.structs.replace(assembly, candle=record_fields(candle))
    if held is None or held["timestamp"] == candle.timestamp:
        return Assembled(kept)
    if candle.timestamp < held["timestamp"]:
        return Assembled(assembly, late=True)
    return _barred(kept, spec, msgspec.convert(held, Ohlcv), received_s)


def _barred(assembly: Assembly, spec: SessionSpec, record: Record, received_s: float) -> Assembled:
    if spec.bars is None or not isinstance(record, Trade | Ohlcv):
        return Assembled(assembly, (record,))
    built: Built = build(assembly, spec.bars, piece_of(record, spec.bars, received_s))
    return Assembled(*built)


def _merged(assembly: Assembly, vitals: Vitals, fresh_s: float, received_s: float) -> Assembled:
    """The record with every vital sign that is not older than `fresh_s`, each the newest by
    its own time."""
    time = received_s if vitals.timestamp is None else vitals.timestamp
    last = dict(assembly.vitals)
    for name in VITAL_FIELDS:
        value = getattr(vitals, name)
        if value is not None and (name not in last or last[name][0] <= time):
            last[name] = time, value
    newest = max(stamp for stamp, _ in last.values())
    fresh = {name: pair for name, pair in last.items() if newest - pair[0] <= fresh_s}
    kept = msgspec.structs.replace(assembly, vitals=fresh)
    if last == assembly.vitals:
        return Assembled(kept, late=True)
    values = {name: value for name, (_, value) in fresh.items()}
    return Assembled(kept, (Vitals(**values, timestamp=newest),))
