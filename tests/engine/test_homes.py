"""Several models in one engine: loaded on demand, kept while used, unloaded when idle."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from flashfeed.engine import Engine, EngineSettings
from flashfeed.engine.homes import Home
from flashfeed.models.errors import ModelUnknown, Overloaded, SessionUnknown, Unavailable
from flashfeed.models.generation import Continuation, GenerateOptions
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec

from tiny_gguf import tiny_model

pytestmark = pytest.mark.model

UP = FlashQuery(id=1, query="Is it rising?", choices=("yes", "no"))
WINDOW = WindowSpec("exact", 3)
# A tiny model has no chat template of its own worth the name; the prompt begins its context.
OTHER = SessionSpec(type="iot", prompt="Watch.", window=WINDOW, model="tiny", context=256)
DEFAULT = SessionSpec(type="iot", prompt="Watch.", window=WINDOW, context=256)


@pytest.fixture(scope="module")
def tiny(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf", model_path, "llama")


def engine_with(model_path: Path, tiny: Path, bytes_max: int = 0) -> Engine:
    def locate(reference: str) -> tuple[str, EngineSettings]:
        if reference != "tiny":
            raise ModelUnknown(f"expected tiny, got {reference}")
        return reference, EngineSettings(model_path=tiny, threads=1, context_tokens=256)

    settings = EngineSettings(model_path=model_path, threads=1, context_tokens=256, seats_max=4)
    return Engine(settings, locate, bytes_max, idle_unload_s=0.0)


@pytest_asyncio.fixture
async def two(model_path: Path, tiny: Path) -> AsyncIterator[Engine]:
    async with engine_with(model_path, tiny) as engine:
        yield engine


async def residents(engine: Engine) -> dict[str, int]:
    homes = engine._open_homes()
    homes.unload_idle()
    return {one.name: one.users for one in homes.residents()}


async def test_a_session_lives_on_the_model_it_names(two: Engine) -> None:
    assert await residents(two) == {"": 1}
    await two.open("a", OTHER)
    await two.open("b", DEFAULT)
    assert await residents(two) == {"": 2, "tiny": 1}
    assert two.model_hash_of("a") != two.model_hash_of("b") == two.model_hash
    for n in range(8):
        ours, theirs = await asyncio.gather(
            *(two.update(one, [f"pump {n} at 4.5 bar"], (UP,)) for one in "ab")
        )
        assert ours.answers[0].confidence != theirs.answers[0].confidence
    assert [piece async for piece in two.generate("a", "Go on.", GenerateOptions(max_tokens=4))]
    await two.close("a")
    assert await residents(two) == {"": 2}


async def test_who_goes_while_a_model_is_loaded_does_not_keep_it(
    two: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = two._open_homes()
    acquire, begun, loaded = homes.acquire, threading.Event(), threading.Semaphore(0)

    def slowly(reference: str) -> Home:
        begun.set()
        time.sleep(0.2)
        home = acquire(reference)
        loaded.release()
        return home

    monkeypatch.setattr(homes, "acquire", slowly)
    for asking in (two.open("a", OTHER), two.count_prompt(Continuation("Hello"), "tiny")):
        begun.clear()
        task = asyncio.create_task(asking)
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(loaded.acquire, timeout=10)
        async with asyncio.timeout(10):
            while await residents(two) != {"": 1}:
                await asyncio.sleep(0.01)


async def test_a_frozen_prefix_is_not_shared_between_kinds_of_cache(
    model_path: Path, tiny: Path
) -> None:
    """Two models of one file: the same hash, tenant and prompt, other keys and values."""
    kinds: dict[str, Any] = {
        "plain": {"kv_type": "f16"},
        "small": {"kv_type": "q8_0"},
        "flash": {"flash_attention": "on"},
    }

    def locate(reference: str) -> tuple[str, EngineSettings]:
        kind = kinds[reference]
        return reference, EngineSettings(model_path=tiny, threads=1, context_tokens=256, **kind)

    settings = EngineSettings(model_path=model_path, threads=1, context_tokens=256)
    async with Engine(settings, locate) as engine:
        for model in kinds:
            for name in (f"{model} 1", f"{model} 2"):
                await engine.open(name, replace(OTHER, model=model))
                assert (await engine.update(name, ["pump 1 at 4.5 bar"], (UP,))).answers
        assert len({engine._open_sessions()[name + " 1"].key for name in kinds}) == len(kinds)
        assert len({engine._open_sessions()[name + " 1"].prefix for name in kinds}) == 1


async def test_an_unknown_model_is_named(two: Engine) -> None:
    with pytest.raises(ModelUnknown, match="nowhere"):
        await two.open("a", SessionSpec(type="iot", model="nowhere"))
    with pytest.raises(SessionUnknown):
        await two.update("a", ["x"])


async def test_a_session_that_ends_ends_what_is_said_over_it(two: Engine) -> None:
    """Also over a seat that its window has left behind; its model goes with it."""
    await two.open("a", OTHER)
    for n in range(5):
        await two.update("a", [f"pump {n} at 4.5 bar"], ())
    model = two._open_sessions()["a"].model
    ends, model.ends = model.ends, frozenset()
    try:
        running = two.generate("a", "Go on.", GenerateOptions(max_tokens=150))
        await anext(running)
        for n in range(5, 8):
            await two.update("a", [f"pump {n} at 4.5 bar"], ())
        assert two._open_sessions()["a"].retired
        await two.close("a")
        rest = [piece async for piece in running]
    finally:
        model.ends = ends
    assert rest[-1].finish_reason == "cancelled"
    assert await residents(two) == {"": 1}


async def test_a_budget_that_is_full_takes_the_seats_of_idle_sessions(
    model_path: Path, tiny: Path
) -> None:
    async with engine_with(model_path, tiny) as probe:
        home = probe._open_sessions().home
        one_context = home.context_bytes(256)
        weights = sum(one.weights for one in probe._open_homes().residents())
    async with engine_with(model_path, tiny, weights + one_context + one_context // 2) as engine:
        await engine.open("a", DEFAULT)
        await engine.open("b", DEFAULT)  # takes a's
        assert engine._open_sessions()["a"].senior is None
        for n in range(7):  # windows move, though there is no room for a junior
            for one in "ab":
                assert (await engine.update(one, [f"pump {n}"], (UP,))).answers
        assert "pump 2" not in (await engine.inspect("a")).text
        assert "pump 3" in (await engine.inspect("a")).text


async def test_stopping_while_texts_are_made_ready_is_safe(model_path: Path, tiny: Path) -> None:
    for _ in range(3):
        engine = engine_with(model_path, tiny)
        engine.start()
        await engine.open("a", DEFAULT)

        async def say(engine: Engine = engine) -> None:
            async for _ in engine.generate("a", "word " * 40_000, GenerateOptions()):
                pass

        asked = [asyncio.ensure_future(say()) for _ in range(3)]
        await asyncio.sleep(0.01)
        await engine.stop()
        for error in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(error, (Unavailable, Overloaded))
