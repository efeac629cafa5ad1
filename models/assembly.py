"""What a session's owner remembers between records: bars being built, a candle that may
still change, the last vitals. Part of the session's state, in its changelog.

The work is done in codecs/bars.py and codecs/assembly.py.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import msgspec

from .origins import Origin
from .trace_context import TraceContext

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION_MAX_S: Final = 366 * 86400.0


def duration_s(text: str) -> float:
    """Seconds of `500ms`, `5s`, `1m`, `4h`, `1d`. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _SECONDS[match[2]] if match else -1.0
    if not 0 <= seconds <= DURATION_MAX_S:
        raise ValueError(f"expected a duration such as 500ms, 5s, 1m, 4h or 1d, got {text!r}")
    return seconds


class BarSpec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a session makes candles of trades, or of finer candles.

    `by` time: `size` is a duration (`1m`), bars begin at its multiples since 1970, and an
    interval without a trade has no bar. `by` tick, volume or dollar: `size` is a number of
    trades, of units traded, or of money; trades alone make these. A bar is complete when
    event time is `lateness` past its end; a trade that comes later is late, and counted.
    """

    by: Literal["time", "tick", "volume", "dollar"] = "time"
    size: str | float = "1m"
    lateness: str = "0s"

    def __post_init__(self) -> None:
        if self.by == "time":
            if not isinstance(self.size, str):
                raise ValueError(f"expected bars.size as a duration such as 1m, got {self.size}")
            if not duration_s(self.size):
                raise ValueError("expected bars.size above 0s")
        elif isinstance(self.size, str) or not 0 < self.size < float("inf"):
            raise ValueError(f"expected bars.size as a number above 0, got {self.size!r}")
        duration_s(self.lateness)


Merge = Annotated[str, msgspec.Meta(max_length=20)]


class Piece(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A trade or a finer candle on its way into a bar. The order of the fields is the order
    in which pieces of the same time are taken, so that it does not depend on arrival."""

    time: float
    o: float
    h: float
    l: float
    c: float
    v: float
    sym: str = ""


class OpenBar(msgspec.Struct, frozen=True, array_like=True):
    """A bar that is not complete. `filled` is how much of its size it has."""

    start: float
    o: float
    h: float
    l: float
    c: float
    v: float
    filled: float
    sym: str = ""


class Assembly(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the owner remembers.

    `waiting` are pieces that a later one may still come before, sorted; `newest` the
    newest event time (s). `candle` are the fields of a candle that counts as final when
    the next one begins, `sym` the symbol of what is put together. `vitals` holds each
    vital sign's last value and its time.
    `origins` are the source records that went in here and are in no published version,
    `traces` the newest of their traces.
    `live` is how many of the session's lines are of candles that are not final.
    """

    waiting: tuple[Piece, ...] = ()
    newest: float | None = None
    bar: OpenBar | None = None
    candle: dict[str, Any] | None = None
    sym: str = ""
    vitals: dict[str, tuple[float, Any]] = {}
    origins: tuple[Origin, ...] = ()
    live: int = 0
    traces: tuple[TraceContext, ...] = ()
