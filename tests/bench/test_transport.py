"""bench/transport.py: what its figures are made of, and that its own sides run."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("confluent_kafka")


def test_the_clock_counts_behind_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from clock import Clock

    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    clock = Clock(1000)
    assert not clock.count(100)
    now = 150.0  # as long as it likes: not half of them are there yet
    assert not clock.count(450)
    now = 152.0
    assert clock.count(460)  # ten more than were wanted
    now = 200.0
    assert clock.count(5)  # and more, which count no more
    assert clock.rate() == (1010 - 550) / 2.0


def rates(scale: float = 1.0, **sides: float) -> dict[str, float]:
    """A round; `scale`: how fast the machine was in it."""
    known = {"raw": 100.0, "batched": 80.0, "stock": 4.0, "take": 5.0, "quix": 10.0}
    return {side: rate * scale for side, rate in (known | sides).items()}


def test_a_ratio_is_of_its_round_and_the_median_counts() -> None:
    from transport import ratios

    found = ratios(
        [
            rates(faststream_aiokafka=40.0),
            rates(0.25, faststream_aiokafka=50.0),  # a slow round says the same
            rates(faststream_aiokafka=160.0),
        ]
    )
    assert found["over_raw_aiokafka"] == 0.8
    assert found["batched_over_stock"] == 20.0
    assert found["over_best_framework"] == 1.6  # of 2, 1.6 and 0.5
    assert "over_raw_confluent" not in found


def test_a_framework_that_cannot_run_is_named_and_no_best_one() -> None:
    from transport import Measured, ratios, table

    rounds = [rates(), rates()]
    assert ratios(rounds)["over_best_framework"] == 8.0
    failed = Measured(rounds, {"faststream_confluent": "no such API"})
    records = dict.fromkeys([*rounds[0], "faststream_confluent"], 1)
    text = "\n".join(table("tansu", failed, records))
    assert "cannot run here: no such API" in text
    assert "100   100  100" in text


@pytest.mark.broker
def test_our_sides_read_every_record_and_commit() -> None:
    import asyncio

    import transport

    with transport.embedded_broker() as broker:
        asyncio.run(transport.fill(broker, transport.TOPIC, 4, 2_000))
        for side in ("raw", "batched"):
            # Raises where it fails or commits nothing; what comes in one batch has no rate.
            assert transport.run_side(side, broker, 2_000) >= 0
        with pytest.raises(transport.SideFailed, match="KeyError"):
            transport.side_in_process(transport.THEIRS, "nobody", broker, "g", "1")
