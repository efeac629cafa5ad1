"""What an engine says of itself adds up to what it did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from flashfeed.engine import Engine, EngineSettings
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec

pytestmark = pytest.mark.model

UP = FlashQuery(id=1, query="Is it rising?", choices=("yes", "no"))
FREE = FlashQuery(id=2, query="What is it?", max_tokens=3)
N = 3


def spec(tenant: str = "") -> SessionSpec:
    return SessionSpec(
        type="iot", prompt="Watch the pumps.", window=WindowSpec("exact", N), tenant=tenant
    )


@pytest_asyncio.fixture
async def cramped(model_path: Path, tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine with one seat."""
    settings = EngineSettings(model_path=model_path, threads=1, context_tokens=512, seats_max=1)
    one = Engine(settings)
    one.start()
    yield one
    await one.stop()


async def test_tokens_are_counted_by_tenant_and_by_what_they_were_for(
    engine: Engine, name: str
) -> None:
    tenant = f"tenant of {name}"
    await engine.open(name, spec(tenant))
    ingest = queries = 0
    seconds = 0.0
    for n in range(2):
        update = await engine.update(name, [f"pump at {n} bar"], (UP, FREE))
        ingest += update.ingest_tokens
        queries += sum(update.query_tokens)
        assert len(update.query_tokens) == 2
        # The last token of a free answer is written and not decoded.
        assert sum(update.query_tokens) == update.question_tokens + update.generated_tokens - 1
        seconds += update.decode_s
    stats = engine.stats()
    spent = {kind: one for (whose, kind), one in stats.spent.items() if whose == tenant}
    assert spent["ingest"].tokens == ingest > 0
    assert spent["flash"].tokens == queries > 0
    assert spent["ingest"].seconds + spent["flash"].seconds == pytest.approx(seconds)
    assert "generate" not in spent


async def test_nothing_waits_when_all_is_done(engine: Engine, name: str) -> None:
    await engine.open(name, spec())
    await engine.update(name, ["pump at 1 bar"], (UP,))
    await engine.inspect(name)
    stats = engine.stats()
    assert stats.jobs["flash"] == stats.jobs["generate"] == 0
    assert stats.waits["flash"].count >= 1
    assert stats.models[0].weights_bytes > 1_000_000
    assert stats.models[0].hash == engine.model_hash
    assert stats.devices
    assert stats.llama_cpp


async def test_sessions_that_take_turns_in_one_seat_come_back(cramped: Engine) -> None:
    for one in ("a", "b"):
        await cramped.open(one, spec())
        await cramped.update(one, ["pump at 1 bar"], (UP,))
    stats = cramped.stats()
    assert dict(stats.sessions) == {"resident": 1, "evicted": 1, "rebuilding": 0}
    assert (stats.seats, stats.seats_max) == (1, 1)
    assert 0 < stats.kv_cells_used <= stats.kv_cells
    evictions, restores = stats.evictions, dict(stats.restores)
    await cramped.update("a", ["pump at 2 bar"], (UP,))
    stats = cramped.stats()
    assert stats.evictions == evictions + 1
    assert dict(stats.restores) == restores | {"decode": restores["decode"] + 1}


async def test_a_window_that_moves_in_place_is_brought_back(cramped: Engine) -> None:
    await cramped.open("a", spec())
    for n in range(2 * N + 1):
        await cramped.update("a", [f"pump at {n} bar"], (UP,))
    stats = cramped.stats()
    assert dict(stats.restores) == {"snapshot": 0, "decode": 1}
    assert dict(stats.sessions) == {"resident": 1, "evicted": 0, "rebuilding": 0}
    assert stats.evictions == 0
    assert stats.spent["", "background"].tokens > 0
