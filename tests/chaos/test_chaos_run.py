"""A short run of the chaos itself: real workers, one broker, every kind of check."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos import Run, chaos
from chaos_schedule import Kind

from apache_kafka import available

pytestmark = [
    pytest.mark.broker,
    pytest.mark.model,
    pytest.mark.skipif(not available(), reason="needs java, mvn and openssl"),
]
RUN = Run(
    seed=3,
    minutes=0.6,
    sessions=12,
    workers=2,
    brokers=1,
    rate=5.0,
    kills=2,
    sample=4,
    kinds=(Kind.ISLAND, Kind.DISK_FULL),
)


async def test_two_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    outcome = await chaos(RUN, tmp_path)
    assert outcome.failures == [], (outcome.verdict, outcome.exits)
    figures = outcome.verdict.figures
    assert figures["kills"] == RUN.kills
    assert figures["sessions_compared"] == RUN.sessions
    assert figures["answers_compared"] == RUN.sample
    assert figures["poison"] > 0
