"""Real series with standing questions through the engine: what it answered to each update.

Each series is one session, written in one way. What the engine gave is kept in a file under
the cache, so that a series is run once for a model, its lines and its questions.
"""

from __future__ import annotations

import hashlib
import os
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import msgspec

from flashfeed.cli import sample_data
from flashfeed.codecs.registry import text_codec
from flashfeed.engine import Engine
from flashfeed.models.records import Iot, Ohlcv, StreamType
from flashfeed.models.session import Answer, FlashQuery, SessionSpec, WindowSpec
from flashfeed.models.window import window_start

CHOICES = ("no", "yes")
GLUCOSE_LIMIT = 140.0
VOLUME_DAYS = 20
CANDLES_FROM = 1_136_073_600.0
"""2006-01-01."""


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question, and the outcome rule that says its truth."""

    name: str
    group: str
    query: str
    label: str
    after: str = "0 records"


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
            FlashQuery(id=number, name=one.name, query=one.query, choices=CHOICES)
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


def records_of(series: str) -> Iterator[Ohlcv | Iot]:
    """A real series, oldest first."""
    if series == "glucose":
        for row in sample_data.glucose():
            yield Iot(sid=series, val=row["glucose"], hi=GLUCOSE_LIMIT, timestamp=row["timestamp"])
        return
    for row in sample_data.candles(series):
        if row["start"] >= CANDLES_FROM:
            yield Ohlcv(
                o=row["open"],
                h=row["high"],
                l=row["low"],
                c=row["close"],
                v=row["volume"],
                timestamp=row["start"],
            )


def lines_of(records: list[Ohlcv | Iot], text: str) -> list[str]:
    """The records as lines, without their line breaks."""
    if text == "words":
        return [in_words(records[: place + 1]) for place in range(len(records))]
    codec = text_codec(
        text.removeprefix("codec:"), "iot" if isinstance(records[0], Iot) else "ohlcv"
    )
    memory, lines = None, []
    for record in records:
        lines.append(codec.render(record, memory).rstrip("\n"))
        memory = codec.remember(memory, record)
    return lines


def in_words(candles: list[Any]) -> str:
    """A candle with all that code can say of it in words."""
    last = candles[-1]
    if len(candles) == 1:
        return f"{last.c:.2f}"
    before = candles[-2]
    change = (last.c - before.c) / before.c * 100
    volumes = [one.v for one in candles[-VOLUME_DAYS:]]
    return (
        f"{last.c:.2f} {'up' if last.c > before.c else 'down'} {abs(change):.1f}% "
        f"volume {'high' if last.v > mean(volumes) else 'low'} "
        f"range {'wide' if last.h - last.l > before.h - before.l else 'narrow'}"
    )


class TimeUp(Exception):
    """The time that a run may take is over; what it did is kept."""


async def answered(engine: Engine, plan: Plan, series: str, text: str, until: float) -> Run:
    """The series as the engine answers it, from the cache as far as it was run before. Raises
    TimeUp at `until` (time.monotonic)."""
    records = list(records_of(series))[: plan.updates]
    lines = lines_of(records, text)
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
