"""An evicted or restarted session comes back from its snapshot, or is decoded again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from flashfeed.engine import Engine, EngineSettings
from flashfeed.engine.model import Model
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec

from .conftest import Fresh, Recorder, seat_of, tokens_of

pytestmark = pytest.mark.model

N = 4
UP = FlashQuery(id=1, query="Is it rising?", choices=("yes", "no"))
SPEC = SessionSpec(type="iot", prompt="Watch the pumps.", window=WindowSpec("exact", N))


def line(n: int) -> str:
    return f"pump {n} at {n * 7 % 50}.{n % 10} bar"


def settings_of(model_path: Path, folder: Path) -> EngineSettings:
    return EngineSettings(
        model_path=model_path, threads=1, context_tokens=512, seats_max=2, snapshots=folder
    )


@pytest_asyncio.fixture
async def saving(model_path: Path, tmp_path: Path) -> AsyncIterator[Engine]:
    engine = Engine(settings_of(model_path, tmp_path / "kv"))
    engine.start()
    yield engine
    await engine.stop()


async def expect_fresh(
    engine: Engine, model: Model, fresh: Fresh, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(seat_of(engine, name).group.context, monkeypatch)
    await engine.update(name, (), (UP,))
    monkeypatch.undo()
    question = [*model.tokens(UP.query), *model.tail]
    reference = fresh.row([*tokens_of(engine, name), *question])
    assert float(np.abs(reference - recorder.rows[0]).max()) <= 0.1


def evicted(engine: Engine, name: str) -> bool:
    return engine._open_sessions()[name].senior is None


@pytest.mark.parametrize("count", [2, 6, 11])
async def test_an_evicted_session_comes_back_without_decoding(
    saving: Engine,
    model: Model,
    fresh: Fresh,
    name: str,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await saving.open(name, SPEC)
    for n in range(count):
        await saving.update(name, [line(n)], (UP,))
    held = tokens_of(saving, name)
    await saving.evict(name)
    assert evicted(saving, name)
    await saving.update(name, [line(count)], (UP,))
    snapshots = saving._open_sessions().snapshots
    assert snapshots.restored >= 1
    assert snapshots.refused == 0
    assert tokens_of(saving, name)[: len(held)] == held or (count + 1) % N == 0
    await expect_fresh(saving, model, fresh, name, monkeypatch)


async def test_a_worker_that_stopped_cleanly_goes_on_where_it_was(
    model_path: Path,
    model: Model,
    fresh: Fresh,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = Engine(settings_of(model_path, tmp_path / "kv"))
    first.start()
    await first.open(name, SPEC)
    await first.update(name, [line(n) for n in range(7)], (UP,))
    await first.save(name)  # after the junior
    await first.stop()
    second = Engine(settings_of(model_path, tmp_path / "kv"))
    second.start()
    try:
        # One more line came while nobody was there.
        await second.open(name, SPEC, [line(n) for n in range(8)][4:], 8)
        await second.update(name, (), (UP,))
        assert second._open_sessions().snapshots.restored >= 1
        assert "pump 4 " in (await second.inspect(name)).text
        await expect_fresh(second, model, fresh, name, monkeypatch)
    finally:
        await second.stop()


@pytest.mark.parametrize("harm", ["truncate", "flip", "foreign", "other prompt", "gone"])
async def test_what_is_not_its_own_is_refused_and_decoded_again(
    saving: Engine,
    model: Model,
    fresh: Fresh,
    name: str,
    harm: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await saving.open(name, SPEC)
    await saving.update(name, [line(n) for n in range(6)], ())
    await saving.evict(name)
    snapshots = saving._open_sessions().snapshots
    for writing in snapshots._writing.values():
        await asyncio.wrap_future(writing)
    [path] = (tmp_path / "kv").glob("*.ffkv")
    raw = bytearray(path.read_bytes())
    if harm == "truncate":
        path.write_bytes(raw[: len(raw) // 2])
    elif harm == "flip":
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    elif harm == "foreign":
        other = name + "-other"
        await saving.open(other, SPEC)
        await saving.update(other, [line(9)], ())
        await saving.evict(other)
        for writing in snapshots._writing.values():
            await asyncio.wrap_future(writing)
        [foreign] = set((tmp_path / "kv").glob("*.ffkv")) - {path}
        path.write_bytes(foreign.read_bytes())
    elif harm == "other prompt":
        await saving.close(name)
        changed = SessionSpec(type="iot", prompt="Watch the valves.", window=SPEC.window)
        await saving.open(name, changed, [line(n) for n in range(6)], 6)
    else:
        path.unlink()
    await saving.update(name, [line(6)], (UP,))
    assert snapshots.restored == 0
    assert snapshots.refused == (harm != "gone")
    text = (await saving.inspect(name)).text
    assert all(line(n) in text for n in range(7))
    await expect_fresh(saving, model, fresh, name, monkeypatch)


async def test_the_snapshot_goes_with_the_session(
    saving: Engine, name: str, tmp_path: Path
) -> None:
    await saving.open(name, SPEC)
    await saving.update(name, [line(0)], ())
    await saving.save(name)
    await saving.close(name, forget=True)
    await saving.open(name + "-next", SPEC)
    await saving.stop()
    assert not list((tmp_path / "kv").glob("*.ffkv"))


async def test_a_changed_session_is_saved_on_schedule(
    model_path: Path, name: str, tmp_path: Path
) -> None:
    settings = settings_of(model_path, tmp_path / "kv")
    engine = Engine(
        EngineSettings(**{**settings.__dict__, "snapshot_interval_s": 0.05})  # its own schedule
    )
    engine.start()
    try:
        await engine.open(name, SPEC)
        await engine.update(name, [line(0)], ())
        async with asyncio.timeout(10):
            while not engine._open_sessions().snapshots.saved:
                await asyncio.sleep(0.05)
        saved = engine._open_sessions().snapshots.saved
        await asyncio.sleep(0.3)
        assert engine._open_sessions().snapshots.saved == saved  # nothing changed since
    finally:
        await engine.stop()
