"""bench/scale.py: its stub of the engine, and what its figures are made of."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("confluent_kafka")


async def test_updates_that_wait_share_a_decode_and_all_are_answered() -> None:
    from scale_engine import UPDATES_MAX, DelayEngine

    from flashfeed.models.session import FlashQuery

    engine = DelayEngine()
    queries = [FlashQuery("Up?", id=1)]
    work = [engine.update(f"s{n}", ["a", "b"], queries) for n in range(2 * UPDATES_MAX + 1)]
    updates = await asyncio.gather(*work)
    assert engine.decodes == 3
    assert engine.lines == 2 * len(work)
    assert all(len(one.answers) == 1 for one in updates)


async def test_a_session_that_is_stopped_holds_no_other_up() -> None:
    from scale_engine import DelayEngine

    engine = DelayEngine()
    gone = asyncio.ensure_future(engine.update("gone", ["a"]))
    stays = asyncio.ensure_future(engine.update("stays", ["a"]))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).ingest_tokens == 1


ROW = {"sessions": 10, "memory_bytes": 1, "records_per_s": 1, "stop_s": 0.1}
FEW = {"sessions": 1_000, "memory_bytes": 10_000, "records_per_s": 2_000, "stop_s": 1.0}


@pytest.mark.parametrize(
    ("many", "good"),
    [
        ({"memory_bytes": 12_000, "records_per_s": 1_600, "stop_s": 9.0}, True),
        ({"memory_bytes": 16_000, "records_per_s": 1_600, "stop_s": 9.0}, False),
        ({"memory_bytes": 12_000, "records_per_s": 1_000, "stop_s": 9.0}, False),
        ({"memory_bytes": 12_000, "records_per_s": 1_600, "stop_s": 11.0}, False),
    ],
)
def test_many_sessions_are_held_against_few(many: dict[str, float], good: bool) -> None:
    from scale import judged, passed

    found = judged([ROW, FEW, {"sessions": 100_000} | many])
    assert found["memory_growth"] == many["memory_bytes"] / 10_000
    assert found["rate_kept"] == many["records_per_s"] / 2_000
    assert passed(found) is good


def test_a_table_has_what_any_row_has() -> None:
    from scale import lines

    head, one, two = lines([{"workers": 1, "records_per_s": 5}, {"workers": 4, "skipped": "2"}])
    assert head.split() == ["workers", "records_per_s", "skipped"]
    assert one.split() == ["1", "5"]
    assert two.split() == ["4", "2"]
