"""Real data for the demo, the benches and the tests: daily candles, a glucose monitor, a
bicycle ride, a project's commits.

The files come with the package bokeh-sampledata, which is found and not imported (its
import needs pandas). Rows are plain dicts; times are float seconds since 1970, with the
files' naive times taken as UTC.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import orjson

from ..models.errors import ConfigError

SYMBOLS: Final = ("AAPL", "GOOG", "IBM", "MSFT")
_DAY_S: Final = 86_400
_SEMICIRCLE_DEGREES: Final = 180 / 2**31
"""A GPS receiver's unit (Garmin's FIT format)."""


def candles(symbol: str) -> Iterator[dict[str, Any]]:
    """A symbol's daily candles, oldest first: start, open, high, low, close, volume."""
    if symbol not in SYMBOLS:
        raise ConfigError(f"no sample candles of {symbol!r}; known: {', '.join(SYMBOLS)}")
    for row in _rows("stocks.csv.gz"):
        if row["Ticker"] == symbol:
            yield {
                "start": _seconds(row["Date"]),
                "open": float(row["Open"]),
                "high": float(row["High"]),
                "low": float(row["Low"]),
                "close": float(row["Close"]),
                "volume": float(row["Volume"]),
            }


def glucose() -> Iterator[dict[str, Any]]:
    """A continuous glucose monitor's readings, one in 5 minutes, oldest first.

    timestamp, glucose (mg/dL) and isig (the sensor's current, nA; None where it was not
    recorded). Three times stand twice in the file.
    """
    for row in _rows("CGM.csv.gz"):
        yield {
            "timestamp": _seconds(row["datetime"]),
            "glucose": float(row["glucose"]),
            "isig": None if row["isig"] == "nil" else float(row["isig"]),
        }


def ride() -> Iterator[dict[str, Any]]:
    """A bicycle ride, second by second: timestamp (from 0), latitude and longitude in degrees,
    altitude in m, speed in m/s."""
    for place, row in enumerate(_rows("cycling.csv.gz")):
        yield {
            "timestamp": float(place),
            "latitude": int(row["position_lat"]) * _SEMICIRCLE_DEGREES,
            "longitude": int(row["position_long"]) * _SEMICIRCLE_DEGREES,
            "altitude": float(row["altitude"]),
            "speed": float(row["speed"]),
        }


def commits() -> Iterator[float]:
    """When the commits of the project bokeh were made, the newest first."""
    with gzip.open(_path("commits.txt.gz"), "rt") as lines:
        for line in lines:
            yield parsedate_to_datetime(line.strip()).timestamp()


def cryptofeed_json(symbol: str, row: dict[str, Any]) -> bytes:
    """A candle as cryptofeed's Kafka backend writes it."""
    end = row["start"] + _DAY_S - 1
    return orjson.dumps(
        {
            "exchange": "NASDAQ",
            "symbol": f"{symbol}-USD",
            "start": row["start"],
            "stop": end,
            "interval": "1d",
            "trades": None,
            "open": row["open"],
            "close": row["close"],
            "high": row["high"],
            "low": row["low"],
            "volume": row["volume"],
            "closed": True,
            "timestamp": end,
            "receipt_timestamp": end + 1,
        }
    )


def telegraf_json(row: dict[str, Any], patient: str = "1") -> bytes:
    """A glucose reading as Telegraf's JSON serializer writes it: whole seconds."""
    return orjson.dumps(
        {
            "fields": {"glucose": row["glucose"]},
            "name": "cgm",
            "tags": {"host": "cgm-01", "patient": patient},
            "timestamp": int(row["timestamp"]),
        }
    )


def _path(name: str) -> Path:
    spec = importlib.util.find_spec("bokeh_sampledata")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("the sample data needs the package bokeh-sampledata (extra `demo`)")
    return Path(spec.submodule_search_locations[0]) / "_data" / name


def _rows(name: str) -> Iterator[dict[str, str]]:
    with gzip.open(_path(name), "rt", newline="") as lines:
        yield from csv.DictReader(lines)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
