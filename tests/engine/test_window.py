"""A window that slides answers as a fresh context does (invariants 4 and 5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import llama_cpp.llama_cpp as C
import numpy as np
import pytest
import pytest_asyncio

from flashfeed.engine import DecodeFailed, Engine, EngineSettings
from flashfeed.engine.capabilities import capabilities
from flashfeed.engine.model import Model
from flashfeed.models.errors import ContextFull, RequestError
from flashfeed.models.generation import GenerateOptions
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec
from flashfeed.models.window import window_start

from .conftest import Fresh, Recorder, seat_of, tokens_of
from .test_failures import Failing

pytestmark = pytest.mark.model

N = 3
UP = FlashQuery(id=1, query="Is the pressure rising?", choices=("yes", "no"))
COLOUR = FlashQuery(id=2, query="Which colour?", choices=("red hot", "blue cold", "green"))
ALL = (UP, COLOUR)
LOGITS_WITHIN, NEAR_TIE = 0.1, 0.2


def spec_of(mode: str, items: int = N) -> SessionSpec:
    return SessionSpec(type="iot", prompt="Watch.", window=WindowSpec(mode, items), context=512)


def line(n: int) -> str:
    return f"pump {n} at {n * 7 % 50}.{n % 10} bar"


@pytest_asyncio.fixture(scope="module")
async def few(model_path: Path) -> AsyncIterator[Engine]:
    """Few seats: windows and evictions compete for them."""
    one = Engine(EngineSettings(model_path=model_path, threads=1, context_tokens=512, seats_max=3))
    one.start()
    yield one
    await one.stop()


def expect_equal(fresh: Fresh, tokens: list[int], row: np.ndarray) -> None:
    reference = fresh.row(tokens)
    assert float(np.abs(reference - row).max()) <= LOGITS_WITHIN
    best, second = np.sort(reference)[-2:][::-1]
    if best - second > NEAR_TIE:
        assert reference.argmax() == row.argmax()


def expected_tokens(engine: Engine, model: Model, name: str, count: int) -> list[int]:
    session = engine._open_sessions()[name]
    lines = [line(n) for n in range(window_start(session.spec.window, count), count)]
    return [*session.prefix, *(token for one in lines for token in model.tokens(one + "\n"))]


@pytest.mark.parametrize("sizes", [(1,) * 14, (2, 1, 3, 4, 1, 2, 7, 1, 20, 1), (5, 9, 6, 6)])
async def test_an_exact_window_is_a_fresh_context(
    engine: Engine,
    model: Model,
    fresh: Fresh,
    name: str,
    sizes: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prefix = await engine.open(name, spec_of("exact"))
    count = 0
    question = [*model.tokens(UP.query), *model.tail]
    for size in sizes:
        update = await engine.update(name, [line(n) for n in range(count, count + size)], ALL)
        count += size
        expected = expected_tokens(engine, model, name, count)
        assert tokens_of(engine, name) == expected
        assert update.n_tokens == len(expected) > prefix
        recorder = Recorder(seat_of(engine, name).group.context, monkeypatch)
        await engine.update(name, (), (UP,))
        expect_equal(fresh, [*expected, *question], recorder.rows[0])
        monkeypatch.undo()
    assert count // N * N == engine._open_sessions()[name].junior.start  # type: ignore[union-attr]
    await engine.close(name)


async def test_an_exact_window_never_decodes_history_again(
    engine: Engine, model: Model, name: str
) -> None:
    await engine.open(name, spec_of("exact"))
    for n in range(5 * N):
        update = await engine.update(name, [line(n)], ALL)
        assert update.ingest_tokens == len(model.tokens(line(n) + "\n"))
        assert update.decodes == 1
    await engine.close(name)


async def test_a_generation_goes_on_while_the_window_moves(
    engine: Engine, model: Model, name: str
) -> None:
    await engine.open(name, spec_of("exact"))
    count = 2 * N - 1
    await engine.update(name, [line(n) for n in range(count)], ALL)
    ends, model.ends = model.ends, frozenset()
    try:
        alone = [
            p.text async for p in engine.generate(name, "Go on.", GenerateOptions(max_tokens=30))
        ]
        running = engine.generate(name, "Go on.", GenerateOptions(max_tokens=30))
        written = [(await anext(running)).text]
        for n in range(count, count + 3 * N):
            await engine.update(name, [line(n)], ALL)
        written += [piece.text async for piece in running]
    finally:
        model.ends = ends
    assert "".join(written) == "".join(alone)
    assert tokens_of(engine, name) == expected_tokens(engine, model, name, count + 3 * N)
    await engine.close(name)


@pytest.mark.parametrize("code", [1, 2, -3])
async def test_a_failed_move_of_the_window_leaves_it(
    engine: Engine, model: Model, name: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.open(name, spec_of("exact"))
    await engine.update(name, [line(n) for n in range(2 * N - 1)], ())
    await engine.save(name)  # after the junior
    before = (await engine.inspect(name)).text
    junior = engine._open_sessions()[name].junior
    assert junior is not None
    failing = Failing(junior.group.context, monkeypatch, 0, code, True)
    with pytest.raises(DecodeFailed):
        await engine.update(name, [line(2 * N - 1)], ALL)
    monkeypatch.undo()
    assert failing.failed
    assert (await engine.inspect(name)).text == before
    await engine.update(name, [line(n) for n in range(2 * N - 1, 2 * N + 2)], ALL)
    assert tokens_of(engine, name) == expected_tokens(engine, model, name, 2 * N + 2)
    await engine.close(name)


async def test_a_shifted_window_holds_the_last_items(
    engine: Engine, model: Model, name: str
) -> None:
    await engine.open(name, spec_of("shift"))
    ends, model.ends = model.ends, frozenset()
    try:
        running = engine.generate(name, "Go on.", GenerateOptions(max_tokens=25))
        await anext(running)
        count = 0
        for size in (1, 1, 1, 1, 2, 1, 5, 1):
            update = await engine.update(name, [line(n) for n in range(count, count + size)], ALL)
            count += size
            assert len(update.answers) == 2
            assert tokens_of(engine, name) == expected_tokens(engine, model, name, count)
            assert f"pump {count - 1} " in (await engine.inspect(name)).text
        assert [piece async for piece in running][-1].finish_reason == "length"
    finally:
        model.ends = ends
    seat = seat_of(engine, name)
    assert seat.group.context.cells_used == len(tokens_of(engine, name))
    await engine.close(name)


async def test_a_shifted_window_is_near_a_fresh_context(
    engine: Engine, model: Model, fresh: Fresh, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Approximate, as documented: the survivors still know what slid out."""
    await engine.open(name, spec_of("shift", 12))
    for n in range(30):
        await engine.update(name, [line(n)], ())
    recorder = Recorder(seat_of(engine, name).group.context, monkeypatch)
    await engine.update(name, (), (UP,))
    question = [*model.tokens(UP.query), *model.tail]
    reference = fresh.row([*tokens_of(engine, name), *question])
    assert np.corrcoef(reference, recorder.rows[0])[0, 1] > 0.95
    await engine.close(name)


async def test_a_model_that_cannot_shift_says_so(
    engine: Engine, model: Model, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = capabilities("qwen2vl", rope_type=C.LLAMA_ROPE_TYPE_MROPE, n_swa=0, recurrent=False)
    monkeypatch.setattr(model, "capabilities", many)
    with pytest.raises(RequestError, match="M-RoPE"):
        await engine.open(name, spec_of("shift"))


async def test_a_window_that_is_too_long_for_its_context_is_refused(
    engine: Engine, name: str
) -> None:
    await engine.open(name, spec_of("exact", 64))
    with pytest.raises(ContextFull):
        for n in range(200):
            await engine.update(name, [line(n)], ALL)
    assert (await engine.update(name, (), ALL)).answers
    await engine.close(name)


async def test_sessions_come_back_where_they_were(few: Engine, model: Model, name: str) -> None:
    names = [f"{name}-{n}" for n in range(6)]
    for one in names:
        await few.open(one, spec_of("exact"))
    for n in range(9):
        await asyncio.gather(*(few.update(one, [line(n)], ALL) for one in names[n % 2 :: 2]))
    for place, one in enumerate(names):
        count = len([n for n in range(9) if n % 2 == place % 2])
        lines = [line(n) for n in range(9) if n % 2 == place % 2]
        start = window_start(WindowSpec("exact", N), count)
        text = (await few.inspect(one)).text
        assert [word in text for word in lines] == [n >= start for n in range(count)]
    assert few._open_sessions().evictions
    assert few._open_sessions().n_seats <= 3
    for one in names:
        await few.close(one)
    assert few._open_sessions().n_seats == 0


async def test_a_session_opened_with_its_lines_is_as_if_it_had_got_them(
    engine: Engine, model: Model, name: str
) -> None:
    twin = name + "-twin"
    await engine.open(name, spec_of("exact"), frozen=["always here"])
    await engine.update(name, [line(n) for n in range(8)], ())
    held = tokens_of(engine, name)
    await engine.open(twin, spec_of("exact"), [line(n) for n in range(3, 8)], 8, ["always here"])
    assert (await engine.inspect(twin)).text == model.text(held)
    await engine.update(twin, [line(8)], ALL)
    await engine.update(name, [line(8)], ALL)
    assert tokens_of(engine, twin) == tokens_of(engine, name)
    assert [p async for p in engine.generate(twin, "Go on.", GenerateOptions(max_tokens=3))]
    await engine.close(name)
    await engine.close(twin)
