"""Statistics over the records in a session's context, one shape a stream type.

Pure: records in, figures out. An empty session has count 0 and zeros. What a figure
means where its name leaves it open stands at its function; the shapes are those of
the LayerScale client 0.3.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias, cast

from typing_extensions import TypedDict

from flashfeed.models.records import StreamType
from flashfeed.models.views import Fields

SEVERITY_CRITICAL: Final = 4
TACHYCARDIA_ABOVE: Final = 100.0
BRADYCARDIA_BELOW: Final = 60.0
HYPOXIA_BELOW: Final = 90.0
FEVER_FROM: Final = 38.0


class OhlcvStats(TypedDict):
    """Of candles."""

    type: Literal["ohlcv"]
    count: int
    max_high: float
    max_high_index: int
    min_low: float
    min_low_index: int
    max_volume: float
    first_open: float
    last_close: float
    avg_close: float
    change: float
    change_pct: float


class IotStats(TypedDict):
    """Of sensor readings."""

    type: Literal["iot"]
    count: int
    last_sensor: str
    last_value: float
    min_value: float
    max_value: float
    avg_value: float
    threshold_breaches: int
    breach_rate: float


class Position(TypedDict):
    """A point in space."""

    x: float
    y: float
    z: float


class SpatialStats(TypedDict):
    """Of positions."""

    type: Literal["spatial"]
    count: int
    current_position: Position
    current_speed: float
    current_heading: float
    total_distance: float
    max_speed: float
    avg_speed: float
    max_turn_rate: float


class EventStats(TypedDict):
    """Of events."""

    type: Literal["event"]
    count: int
    total_event_count: int
    max_severity: int
    critical_events: int
    unique_sources: int
    unique_categories: int
    top_category: str
    top_category_count: int


class VitalsCurrent(TypedDict):
    """The latest known value of each vital sign."""

    hr: float
    bp: str
    spo2: float
    temp: float
    map: float


class VitalsAlerts(TypedDict):
    """How often a limit was crossed."""

    tachycardia_episodes: int
    bradycardia_episodes: int
    hypoxia_episodes: int
    fever_episodes: int


class VitalsStats(TypedDict):
    """Of vital signs."""

    type: Literal["vitals"]
    count: int
    current: VitalsCurrent
    avg_heart_rate: float
    avg_map: float
    min_spo2: float
    max_temp: float
    alerts: VitalsAlerts


StreamStats: TypeAlias = OhlcvStats | IotStats | SpatialStats | EventStats | VitalsStats


def stream_stats(stream_type: StreamType, records: Sequence[Fields]) -> StreamStats:
    """The statistics of a session's records, oldest first. A sum that no double holds is the
    largest one: JSON has no infinity."""
    return cast(StreamStats, _finite(_BY_TYPE[stream_type](records)))


def ohlcv_stats(records: Sequence[Fields]) -> OhlcvStats:
    """Indexes count from the oldest candle in the context, the first of equals wins;
    `change` is from the first open to the last close, `change_pct` its percentage."""
    first_open = _float(records[0]["o"]) if records else 0.0
    last_close = _float(records[-1]["c"]) if records else 0.0
    high_at = max(range(len(records)), key=lambda i: (records[i]["h"], -i), default=0)
    low_at = min(range(len(records)), key=lambda i: (records[i]["l"], i), default=0)
    change = last_close - first_open
    return {
        "type": "ohlcv",
        "count": len(records),
        "max_high": _float(records[high_at]["h"]) if records else 0.0,
        "max_high_index": high_at,
        "min_low": _float(records[low_at]["l"]) if records else 0.0,
        "min_low_index": low_at,
        "max_volume": max((_float(r["v"]) for r in records), default=0.0),
        "first_open": first_open,
        "last_close": last_close,
        "avg_close": _mean(r["c"] for r in records),
        "change": change,
        "change_pct": 100.0 * change / first_open if first_open else 0.0,
    }


def iot_stats(records: Sequence[Fields]) -> IotStats:
    """Over all sensors of the session; a breach is a value outside its own record's
    limits, `breach_rate` their share of the readings (0 to 1)."""
    values = [_float(r["val"]) for r in records]
    breaches = sum(1 for r in records if _breaches(r))
    return {
        "type": "iot",
        "count": len(records),
        "last_sensor": str(records[-1]["sid"]) if records else "",
        "last_value": values[-1] if values else 0.0,
        "min_value": min(values, default=0.0),
        "max_value": max(values, default=0.0),
        "avg_value": _mean(values),
        "threshold_breaches": breaches,
        "breach_rate": breaches / len(records) if records else 0.0,
    }


def spatial_stats(records: Sequence[Fields]) -> SpatialStats:
    """`total_distance` along the straight lines between the positions; `max_turn_rate`
    the largest turn from one record to the next, in degrees, the short way round."""
    last = records[-1] if records else {"x": 0, "y": 0, "z": 0, "spd": 0, "hdg": 0}
    points = [(r["x"], r["y"], r["z"]) for r in records]
    speeds = [_float(r["spd"]) for r in records]
    return {
        "type": "spatial",
        "count": len(records),
        "current_position": {
            "x": _float(last["x"]),
            "y": _float(last["y"]),
            "z": _float(last["z"]),
        },
        "current_speed": _float(last["spd"]),
        "current_heading": _float(last["hdg"]),
        "total_distance": float(sum(math.dist(a, b) for a, b in pairwise(points))),
        "max_speed": max(speeds, default=0.0),
        "avg_speed": _mean(speeds),
        "max_turn_rate": max(
            (_turn(a["hdg"], b["hdg"]) for a, b in pairwise(records)), default=0.0
        ),
    }


def event_stats(records: Sequence[Fields]) -> EventStats:
    """A higher severity is worse; critical from SEVERITY_CRITICAL on. The top category
    is the one with the most events (`cnt` summed), the first seen of equals."""
    by_category: Counter[str] = Counter()
    for r in records:
        by_category[str(r["cat"])] += int(r["cnt"])
    top, top_count = max(by_category.items(), key=lambda pair: pair[1], default=("", 0))
    return {
        "type": "event",
        "count": len(records),
        "total_event_count": sum(by_category.values()),
        "max_severity": max((int(r["sev"]) for r in records), default=0),
        "critical_events": sum(1 for r in records if r["sev"] >= SEVERITY_CRITICAL),
        "unique_sources": len({r["src"] for r in records}),
        "unique_categories": len(by_category),
        "top_category": top,
        "top_category_count": top_count,
    }


def vitals_stats(records: Sequence[Fields]) -> VitalsStats:
    """Each figure over the records that have the value. MAP is the mean arterial
    pressure, (systolic + 2 diastolic) / 3. An episode is a run of records beyond the
    limit; a record without the value neither ends nor begins one."""
    rates, saturations, temperatures = (_known(records, name) for name in ("hr", "spo2", "temp"))
    pressures = [
        (_float(r["bp_s"]), _float(r["bp_d"]))
        for r in records
        if r.get("bp_s") is not None and r.get("bp_d") is not None
    ]
    means = [systolic / 3 + diastolic / 3 * 2 for systolic, diastolic in pressures]
    systolic, diastolic = pressures[-1] if pressures else (0.0, 0.0)
    return {
        "type": "vitals",
        "count": len(records),
        "current": {
            "hr": rates[-1] if rates else 0.0,
            "bp": f"{systolic:.0f}/{diastolic:.0f}",
            "spo2": saturations[-1] if saturations else 0.0,
            "temp": temperatures[-1] if temperatures else 0.0,
            "map": means[-1] if means else 0.0,
        },
        "avg_heart_rate": _mean(rates),
        "avg_map": _mean(means),
        "min_spo2": min(saturations, default=0.0),
        "max_temp": max(temperatures, default=0.0),
        "alerts": {
            "tachycardia_episodes": _episodes(rate > TACHYCARDIA_ABOVE for rate in rates),
            "bradycardia_episodes": _episodes(rate < BRADYCARDIA_BELOW for rate in rates),
            "hypoxia_episodes": _episodes(value < HYPOXIA_BELOW for value in saturations),
            "fever_episodes": _episodes(value >= FEVER_FROM for value in temperatures),
        },
    }


_BY_TYPE: Final[dict[StreamType, Callable[[Sequence[Fields]], StreamStats]]] = {
    "ohlcv": ohlcv_stats,
    "iot": iot_stats,
    "spatial": spatial_stats,
    "event": event_stats,
    "vitals": vitals_stats,
}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, float):
        return max(-sys.float_info.max, min(value, sys.float_info.max))
    return value


def _float(value: Any) -> float:
    return float(value)


def _mean(values: Iterable[Any]) -> float:
    known = [float(value) for value in values]
    return sum(known) / len(known) if known else 0.0


def _known(records: Sequence[Fields], name: str) -> list[float]:
    return [float(r[name]) for r in records if r.get(name) is not None]


def _breaches(reading: Fields) -> bool:
    low, high = reading.get("lo"), reading.get("hi")
    return (low is not None and reading["val"] < low) or (
        high is not None and reading["val"] > high
    )


def _turn(before: float, after: float) -> float:
    turned = abs(after % 360.0 - before % 360.0)
    return min(turned, 360.0 - turned)


def _episodes(beyond: Iterable[bool]) -> int:
    before = False
    count = 0
    for now in beyond:
        count += now and not before
        before = now
    return count
