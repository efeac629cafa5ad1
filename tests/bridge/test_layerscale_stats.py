"""Statistics of a session whose window has slid, against numpy over what was pushed."""

import contextlib

import numpy as np
import pytest
from layerscale import LayerScale, NotFoundError

pytestmark = [pytest.mark.model, pytest.mark.broker]

WINDOW = 4
PUSHED = 11
KEPT = 7  # items 4 to 10: a window of 4 holds the last 4 to 7


def columns(records, *names):
    return [np.array([record[name] for record in records], dtype=float) for name in names]


def candles(rng):
    close = 150 + rng.normal(0, 1, PUSHED).cumsum().round(2)
    return [
        {"o": float(c) - 0.5, "h": float(c) + 1, "l": float(c) - 1, "c": float(c), "v": 1000.0 + i}
        for i, c in enumerate(close)
    ]


def candle_stats(records):
    o, h, low, c, v = columns(records, "o", "h", "l", "c", "v")
    return {
        "max_high": h.max(),
        "max_high_index": int(h.argmax()),
        "min_low": low.min(),
        "min_low_index": int(low.argmin()),
        "max_volume": v.max(),
        "first_open": o[0],
        "last_close": c[-1],
        "avg_close": c.mean(),
        "change": c[-1] - o[0],
        "change_pct": (c[-1] / o[0] - 1) * 100,
    }


def readings(rng):
    values = rng.uniform(50, 100, PUSHED).round(1)
    return [
        {"sid": f"temp-{i % 3}", "val": float(value), "lo": 60.0, "hi": 90.0}
        for i, value in enumerate(values)
    ]


def reading_stats(records):
    value, low, high = columns(records, "val", "lo", "hi")
    breached = (value < low) | (value > high)
    return {
        "last_sensor": records[-1]["sid"],
        "last_value": value[-1],
        "min_value": value.min(),
        "max_value": value.max(),
        "avg_value": value.mean(),
        "threshold_breaches": int(breached.sum()),
        "breach_rate": breached.mean(),
    }


def positions(rng):
    points = rng.normal(0, 10, (PUSHED, 3)).round(2)
    return [
        {"x": float(x), "y": float(y), "z": float(z), "spd": float(i), "hdg": float(i * 100 % 360)}
        for i, (x, y, z) in enumerate(points)
    ]


def position_stats(records):
    x, y, z, speed, heading = columns(records, "x", "y", "z", "spd", "hdg")
    steps = np.diff(np.stack([x, y, z]), axis=1)
    turns = np.angle(np.exp(1j * np.radians(np.diff(heading))), deg=True)
    return {
        "current_position": {"x": x[-1], "y": y[-1], "z": z[-1]},
        "current_speed": speed[-1],
        "current_heading": heading[-1],
        "total_distance": np.linalg.norm(steps, axis=0).sum(),
        "max_speed": speed.max(),
        "avg_speed": speed.mean(),
        "max_turn_rate": np.abs(turns).max(),
    }


def happenings(rng):
    return [
        {
            "src": f"host-{int(rng.integers(3))}",
            "sev": int(rng.integers(1, 6)),
            "cat": ["slow query", "restart"][int(rng.integers(2))],
            "cnt": int(rng.integers(1, 9)),
        }
        for _ in range(PUSHED)
    ]


def happening_stats(records):
    severity, count = columns(records, "sev", "cnt")
    names = np.array([record["cat"] for record in records])
    totals = {str(name): int(count[names == name].sum()) for name in np.unique(names)}
    top = max(totals, key=lambda name: totals[name])
    return {
        "total_event_count": int(count.sum()),
        "max_severity": int(severity.max()),
        "critical_events": int((severity >= 4).sum()),
        "unique_sources": len({record["src"] for record in records}),
        "unique_categories": len(totals),
        "top_category": top,
        "top_category_count": totals[top],
    }


def vitals(rng):
    rate = [70, 80, 110, 90, 120, 125, 80, 55, 50, 101, 99]
    return [
        {
            "hr": float(hr),
            "bp_s": 120.0 + i,
            "bp_d": 80.0 - i,
            "spo2": float(rng.integers(85, 99)),
            "temp": [36.8, 38.2][i % 2],
        }
        for i, hr in enumerate(rate)
    ]


def vital_stats(records):
    rate, systolic, diastolic, spo2, temp = columns(records, "hr", "bp_s", "bp_d", "spo2", "temp")
    pressure = diastolic + (systolic - diastolic) / 3

    def runs(beyond):
        return int((np.diff(np.concatenate([[0], beyond.astype(int)])) == 1).sum())

    return {
        "current": {
            "hr": rate[-1],
            "bp": f"{systolic[-1]:g}/{diastolic[-1]:g}",
            "spo2": spo2[-1],
            "temp": temp[-1],
            "map": pressure[-1],
        },
        "avg_heart_rate": rate.mean(),
        "avg_map": pressure.mean(),
        "min_spo2": spo2.min(),
        "max_temp": temp.max(),
        "alerts": {
            "tachycardia_episodes": runs(rate > 100),
            "bradycardia_episodes": runs(rate < 60),
            "hypoxia_episodes": runs(spo2 < 90),
            "fever_episodes": runs(temp >= 38),
        },
    }


def flat(stats):
    """Nested figures under joined names: approx takes no nested ones."""
    for name, value in stats.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", one) for inner, one in flat(value))
        else:
            yield name, value


@pytest.mark.client("layerscale 0.3.0 (PyPI)", "sessions.stats")
@pytest.mark.parametrize(
    ("kind", "make", "expected"),
    [
        ("ohlcv", candles, candle_stats),
        ("iot", readings, reading_stats),
        ("spatial", positions, position_stats),
        ("event", happenings, happening_stats),
        ("vitals", vitals, vital_stats),
    ],
)
def test_statistics_are_of_the_window(worker, kind, make, expected):
    records = make(np.random.default_rng(7))
    with LayerScale(base_url=worker.url, timeout=60) as client:
        session = client.sessions.create(type=kind, window_size=WINDOW).session_id
        try:
            for start in range(0, PUSHED, 3):
                client.sessions.push(session, records[start : start + 3], wait=True)
            client.sessions.append(session, "A text is no record.")
            assert client.sessions.get(session).data_count == KEPT - WINDOW
            client.sessions.push(session, records[:2], wait=True)
            window = [*records[-3:], *records[:2]]
            stats = client.sessions.stats(session).model_dump()
        finally:
            with contextlib.suppress(NotFoundError):
                client.sessions.delete(session)
    assert stats.pop("type") == kind
    assert stats.pop("count") == len(window)
    assert dict(flat(stats)) == pytest.approx(dict(flat(expected(window))))
