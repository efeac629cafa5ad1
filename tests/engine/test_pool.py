"""Room for one context more: who makes way for it, who is told that there is none, and who
is served meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from flashfeed.engine import Engine, EngineSettings, groups, seat_queue
from flashfeed.engine.seats import Group, Kind
from flashfeed.engine.trace import Trace
from flashfeed.models.errors import (
    ConfigError,
    EngineError,
    ModelRefused,
    ModelUnavailable,
)
from flashfeed.models.generation import GenerateOptions
from flashfeed.models.session import SessionSpec, WindowSpec

from .books import expect_books
from tiny_gguf import tiny_model

pytestmark = pytest.mark.model

SMALL, LARGE, HUGE = 256, 512, 4096
TALK = GenerateOptions(max_tokens=150, ignore_eos=True)


def spec_of(context: int, model: str = "") -> SessionSpec:
    return SessionSpec(
        type="iot", prompt="Watch.", window=WindowSpec("grow"), context=context, model=model
    )


def settings_of(model_path: Path, kv_bytes_max: int = 0) -> EngineSettings:
    return EngineSettings(
        model_path=model_path, threads=1, context_tokens=SMALL, kv_bytes_max=kv_bytes_max
    )


@pytest_asyncio.fixture(scope="module")
async def sizes(model_path: Path) -> dict[int, int]:
    """Bytes of a context, by its tokens; of the weights under 0."""
    async with Engine(settings_of(model_path)) as engine:
        home = engine._open_sessions().home
        [resident] = engine._open_homes().residents()
        kinds = {size: Kind(home, size).n_bytes for size in (SMALL, LARGE, HUGE)}
        return {**kinds, 0: resident.weights}


@pytest_asyncio.fixture
async def tight(model_path: Path, sizes: dict[int, int]) -> AsyncIterator[Engine]:
    """Room for one small context and a large one, and not a byte more."""
    settings = settings_of(model_path, sizes[SMALL] + sizes[LARGE])
    async with Engine(settings) as engine:
        yield engine


def resident(engine: Engine) -> set[str]:
    return {one.id for one in engine._open_sessions() if one.senior is not None}


async def test_a_context_that_can_never_be_had_is_refused_and_evicts_nobody(tight: Engine) -> None:
    await tight.open("a", spec_of(SMALL))
    await tight.open("b", spec_of(LARGE))
    began = time.monotonic()
    with pytest.raises(ModelRefused, match=r"4096 tokens needs .* MiB .*engine\.kv_bytes_max"):
        await tight.open("c", spec_of(HUGE))
    with pytest.raises(ModelRefused):  # nor is it brought back for ever
        await tight.open("d", spec_of(HUGE), ["pump 1"], 1)
    assert time.monotonic() - began < 2
    assert resident(tight) == {"a", "b"}
    assert tight._open_sessions().evictions == 0
    await expect_books(tight)


async def test_the_first_context_is_held_against_the_bound_too(
    model_path: Path, sizes: dict[int, int]
) -> None:
    engine = Engine(settings_of(model_path, sizes[SMALL] - 1))
    with pytest.raises(ConfigError, match=r"256 tokens needs .*engine\.kv_bytes_max"):
        engine.start()
    async with Engine(settings_of(model_path, sizes[SMALL])) as exact:
        await exact.open("a", spec_of(SMALL))
        with pytest.raises(ModelRefused):
            await exact.open("b", spec_of(LARGE))


async def test_only_those_are_evicted_whose_seats_make_room(tight: Engine) -> None:
    await tight.open("old and small", spec_of(SMALL))
    await tight.open("large", spec_of(LARGE))
    await tight.open("also large", spec_of(LARGE))
    assert resident(tight) == {"old and small", "also large"}
    await tight.open("also small", spec_of(SMALL))
    assert resident(tight) == {"also large", "also small"}
    await expect_books(tight)


async def test_what_other_models_weights_leave_no_room_for_is_told_at_once(
    model_path: Path, sizes: dict[int, int]
) -> None:
    budget = sizes[0] + sizes[SMALL] + sizes[LARGE]
    async with Engine(settings_of(model_path), models_bytes_max=budget) as engine:
        await engine.open("a", spec_of(SMALL))
        began = time.monotonic()
        with pytest.raises(ModelUnavailable, match=r"models\.bytes_max"):
            await engine.open("b", spec_of(HUGE))
        assert time.monotonic() - began < 2
        assert resident(engine) == {"a"}
        await engine.open("c", spec_of(LARGE))
        assert resident(engine) == {"a", "c"}
        await expect_books(engine)


async def test_a_context_that_llama_cpp_refuses_is_tried_once_and_evicts_nobody(
    model_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Heads of 8 numbers: llama.cpp makes no q8_0 cache of them, whatever is free."""
    shape = {"attention__head_count": 8, "attention__head_count_kv": 4}
    odd = tiny_model(tmp_path / "odd.gguf", model_path, "llama", **shape)

    def locate(reference: str) -> tuple[str, EngineSettings]:
        return reference, EngineSettings(model_path=odd, threads=1, kv_type="q8_0")

    async with Engine(settings_of(model_path), locate) as engine:
        await engine.open("a", spec_of(SMALL))
        with caplog.at_level(logging.WARNING, logger=groups.__name__):
            for n in range(20):
                with pytest.raises(ModelUnavailable, match="could not make a context"):
                    await engine.open(f"b{n}", spec_of(SMALL, "odd"))
        tries = [one for one in caplog.records if one.name == groups.__name__]
        assert len(tries) == 1
        assert resident(engine) == {"a"}
        await expect_books(engine)


class SmallDevice:
    """Stands for a device with room for so many bytes of contexts: what llama.cpp does where
    memory runs out can be had here in no other way."""

    def __init__(self, n_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n_bytes = n_bytes
        self.tries = 0
        self._made: list[Group] = []
        monkeypatch.setattr(groups, "Group", self._group)
        monkeypatch.setattr(groups, "free_memory_bytes", lambda _: self._free())

    def _free(self) -> int:
        there = [one for one in self._made if one.context._handle is not None]
        return self.n_bytes - sum(one.kind.n_bytes for one in there)

    def _group(self, kind: Kind, trace: Trace | None) -> Group:
        self.tries += 1
        if kind.n_bytes > self._free():
            raise EngineError("no memory")
        self._made.append(Group(kind, trace))
        return self._made[-1]


async def test_where_memory_runs_out_as_many_make_way_as_that_takes(
    model_path: Path, sizes: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Engine(settings_of(model_path)) as engine:
        device = SmallDevice(2 * sizes[SMALL], monkeypatch)
        for name in "ab":
            await engine.open(name, spec_of(SMALL))
        await engine.open("c", spec_of(SMALL))
        assert (resident(engine), device.tries) == ({"b", "c"}, 3)
        for n in range(20):
            with pytest.raises(ModelUnavailable, match=r"MiB of memory are free: no memory"):
                await engine.open(f"d{n}", spec_of(HUGE))
        assert (resident(engine), device.tries) == ({"b", "c"}, 4)
        monkeypatch.setattr(groups, "_FAILED_S", 0.3)
        await asyncio.sleep(0.4)
        device.n_bytes = sizes[HUGE]  # what others held was given back meanwhile
        await engine.open("d", spec_of(HUGE))
        assert resident(engine) == {"d"}
        await expect_books(engine)


async def two_that_wait(engine: Engine) -> tuple[list[str], list[asyncio.Task[None]]]:
    """A large context is wanted while the only one that there may be is in use; then a small
    one, for which there is room. Who had theirs, in that order, and the tasks."""
    had: list[str] = []

    async def open_one(name: str, context: int) -> None:
        await engine.open(name, spec_of(context))
        had.append(name)

    large = asyncio.create_task(open_one("large", LARGE))
    await asyncio.sleep(0.1)
    small = asyncio.create_task(open_one("small", SMALL))
    await asyncio.sleep(0)
    return had, [large, small]


async def test_who_cannot_be_served_holds_up_nobody_who_can(tight: Engine) -> None:
    await tight.open("busy", spec_of(LARGE))
    talk = tight.generate("busy", "Go on.", TALK)
    await anext(talk)
    had, tasks = await two_that_wait(tight)
    async with asyncio.timeout(5):
        await tasks[1]
    assert had == ["small"]
    await talk.aclose()
    await asyncio.gather(*tasks)
    assert resident(tight) == {"large", "small"}
    await expect_books(tight)


async def test_who_has_waited_for_long_is_not_overtaken(
    tight: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seat_queue, "_OVERTAKEN_S", 0.0)
    await tight.open("busy", spec_of(LARGE))
    talk = tight.generate("busy", "Go on.", TALK)
    await anext(talk)
    had, tasks = await two_that_wait(tight)
    for _ in range(3):
        await anext(talk)
    assert had == []
    await talk.aclose()
    await asyncio.gather(*tasks)
    assert had == ["large", "small"]


def test_a_free_seat_of_another_kind_may_always_be_taken(tight: Engine) -> None:
    home = tight._open_sessions().home
    queue = seat_queue.SeatQueue()
    first = queue.join(Kind(home, LARGE), 0.0)
    other = queue.join(Kind(home, SMALL), 0.0)
    behind = queue.join(Kind(home, LARGE), 0.0)
    assert queue.turn(first, 0.0) == seat_queue.Turn(leaves=0, any_seat=True)
    assert queue.turn(other, 0.0) == seat_queue.Turn(leaves=1, any_seat=True)
    assert queue.turn(behind, 0.0) is None  # the first of its kind will have it
    assert queue.turn(other, 0.05) is None  # nothing happened since
    queue.changed()
    assert queue.turn(other, 5.0) == seat_queue.Turn(leaves=1, any_seat=False)
    queue.leave(first)
    assert queue.turn(behind, 5.0) == seat_queue.Turn(leaves=1, any_seat=False)
    assert queue.turn(other, 5.0) == seat_queue.Turn(leaves=0, any_seat=True)
