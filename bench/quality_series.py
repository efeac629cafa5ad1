"""Real series with standing questions through the engine: what it answered to each update.

Each series is one session, written in one way. What the engine gave is kept in a file under
the cache, so that a series is run once for a model, its lines and its questions.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import atan2, cos, degrees, radians
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from flashfeed.cli import sample_data
from flashfeed.codecs.registry import text_codec
from flashfeed.engine import Engine
from flashfeed.models.records import Event, Iot, Ohlcv, Record, Spatial, StreamType, Vitals
from flashfeed.models.session import Answer, FlashQuery, SessionSpec, WindowSpec
from flashfeed.models.window import window_start

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from client_packages import python_package

GLUCOSE_LIMIT = 140.0
RIDE_S = 5
HEART_S = 5
HEART_PACKAGE = "pyhrv==0.5.0"
EARTH_M = 6_371_000.0
DAY_S = 86_400.0
CANDLES_FROM = 1_136_073_600.0
"""2006-01-01."""


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question, and the outcome rule that says its truth."""

    name: str
    group: str
    query: str
    label: str
    after: str = "0 records"
    choices: tuple[str, str] = ("no", "yes")


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of which series."""

    type: StreamType
    prompt: str
    series: tuple[str, ...]
    updates: int
    window: int
    texts: tuple[str, ...]
    questions: tuple[Question, ...]

    @property
    def spec(self) -> SessionSpec:
        """The session's spec."""
        flash = tuple(
            FlashQuery(id=number, name=one.name, query=one.query, choices=one.choices)
            for number, one in enumerate(self.questions, 1)
        )
        window = WindowSpec("exact", self.window)
        return SessionSpec(type=self.type, prompt=self.prompt, window=window, flash=flash)


class Step(msgspec.Struct, frozen=True):
    """What the engine gave for one update: an answer and a hidden state for each question."""

    answers: tuple[Answer, ...]
    hidden: tuple[bytes, ...]


class Run(msgspec.Struct, frozen=True):
    """One series, written in one way: a step for each of its first records, and the mean
    tokens of a line."""

    series: str
    text: str
    line_tokens: float
    steps: list[Step]


def plans() -> dict[str, Plan]:
    """The plans of quality.toml."""
    text = (Path(__file__).parent / "quality.toml").read_text()
    return {name: msgspec.convert(one, Plan) for name, one in tomllib.loads(text).items()}


def records_of(series: str) -> Iterator[Record]:
    """A real series, oldest first."""
    return OTHERS[series]() if series in OTHERS else candle_records(series)


def candle_records(symbol: str) -> Iterator[Ohlcv]:
    """A stock's daily candles."""
    for row in sample_data.candles(symbol):
        if row["start"] >= CANDLES_FROM:
            yield Ohlcv(
                o=row["open"],
                h=row["high"],
                l=row["low"],
                c=row["close"],
                v=row["volume"],
                timestamp=row["start"],
            )


def glucose_records() -> Iterator[Iot]:
    """A glucose monitor's readings, with the limit that is asked about."""
    for row in sample_data.glucose():
        yield Iot(sid="glucose", val=row["glucose"], hi=GLUCOSE_LIMIT, timestamp=row["timestamp"])


def ride_records() -> Iterator[Spatial]:
    """A bicycle's way, every RIDE_S seconds, in metres from where it began; the heading is that
    of the way since the position before."""
    rows = list(sample_data.ride())[::RIDE_S]
    x = y = 0.0
    for before, row in pairwise(rows):
        north = EARTH_M * radians(row["latitude"] - before["latitude"])
        east = (
            EARTH_M
            * cos(radians(row["latitude"]))
            * radians(row["longitude"] - before["longitude"])
        )
        x, y = x + east, y + north
        yield Spatial(
            x=x,
            y=y,
            z=row["altitude"],
            spd=row["speed"],
            hdg=degrees(atan2(east, north)) % 360,
            timestamp=row["timestamp"],
        )


def commit_records() -> Iterator[Event]:
    """How many commits a project had, each day that it had any."""
    days = Counter(int(at // DAY_S) for at in sample_data.commits())
    for day in sorted(days):
        yield Event(src="bokeh", sev=1, cat="commits", cnt=days[day], timestamp=day * DAY_S)


def heart_records() -> Iterator[Vitals]:
    """The heart rate of HEART_S seconds at a time: pyhrv's hour of beats, the time in ms
    between each two of them."""
    folder = python_package(HEART_PACKAGE) / "pyhrv" / "files"
    between = np.load(folder / "SampleNNISeriesLong.npy")
    step = (np.cumsum(between) / 1000 // HEART_S).astype(int)
    for number in np.unique(step)[:-1]:
        rate = 60_000 / between[step == number].mean()
        yield Vitals(hr=float(round(rate)), timestamp=float(number * HEART_S))


OTHERS: Final[dict[str, Callable[[], Iterator[Record]]]] = {
    "glucose": glucose_records,
    "ride": ride_records,
    "heart": heart_records,
    "commits": commit_records,
}


def lines_of(
    records: Sequence[Record], record_type: StreamType, text: str, block: int
) -> list[str]:
    """The records as lines, without their line breaks, in blocks as a session's window has."""
    codec = text_codec(text, record_type)
    memory, lines = None, []
    for place, record in enumerate(records):
        if place % block == 0:
            memory = None
        lines.append(codec.render(record, memory).rstrip("\n"))
        memory = codec.remember(memory, record)
    return lines


class TimeUp(Exception):
    """The time that a run may take is over; what it did is kept."""


async def answered(engine: Engine, plan: Plan, series: str, text: str, until: float) -> Run:
    """The series as the engine answers it, from the cache as far as it was run before. Raises
    TimeUp at `until` (time.monotonic)."""
    records = list(records_of(series))[: plan.updates]
    lines = lines_of(records, plan.type, text, plan.window)
    spec = plan.spec
    key = hashlib.sha256(
        msgspec.json.encode([engine.model_hash, spec, plan.updates, series, text, lines])
    ).hexdigest()[:20]
    cache = Path(os.environ.get("FLASHFEED_CACHE", Path.home() / ".cache" / "flashfeed"))
    path = cache / "quality" / f"{key}.msgpack"
    run = Run(series, text, 0.0, [])
    if path.exists():
        run = msgspec.msgpack.decode(path.read_bytes(), type=Run)
    n = len(run.steps)
    if n == len(lines):
        return run
    session = f"{series}-{text}"
    start = window_start(spec.window, n)
    await engine.open(session, spec, lines[start:n], n)
    tokens = run.line_tokens * n
    try:
        for line in lines[n:]:
            if time.monotonic() > until:
                raise TimeUp(f"{session}: {len(run.steps)} of {len(lines)}, run again to go on")
            update = await engine.update(session, [line])
            tokens += update.ingest_tokens
            run.steps.append(Step(update.answers, update.hidden))
    finally:
        run = msgspec.structs.replace(run, line_tokens=tokens / max(1, len(run.steps)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.msgpack.encode(run))
        await engine.close(session, forget=True)
    return run
