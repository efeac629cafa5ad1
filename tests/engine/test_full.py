"""A full context is an error before anything is decoded, never an abort (invariant 6)."""

from __future__ import annotations

import pytest

from flashfeed.engine import Engine
from flashfeed.engine.model import Model
from flashfeed.models.errors import ContextFull
from flashfeed.models.generation import GenerateOptions
from flashfeed.models.session import FlashQuery, SessionSpec

from .conftest import Recorder, seat_of

pytestmark = pytest.mark.model

WINDOW = 128
SPEC = SessionSpec(type="iot", prompt="Watch.", context=WINDOW)
YES = FlashQuery(id=1, query="Alert?", choices=("yes", "no"))
LONG = FlashQuery(id=2, query="Which?", choices=("red hot iron", "blue cold water", "green"))
FREE = FlashQuery(id=3, query="Say more.", max_tokens=12)


def line_of(model: Model, n_tokens: int) -> str:
    """A line of exactly so many tokens, its end included (SmolLM2: one a digit)."""
    line = "7" * (n_tokens - 1)
    assert len(model.tokens(line + "\n")) == n_tokens
    return line


def cells_of(model: Model, query: FlashQuery) -> int:
    """Cells of a question: its tokens, and those of its answers but each one's last."""
    question = len(model.tokens(query.query)) + len(model.tail)
    if not query.choices:
        return question + query.max_tokens - 1
    return question + sum(len(model.tokens(choice)) - 1 for choice in query.choices)


@pytest.mark.parametrize(
    "queries", [(), (YES,), (LONG,), (FREE,), (YES, LONG, FREE)], ids=["-", "y", "l", "f", "ylf"]
)
async def test_exactly_full_is_taken_and_one_more_is_not(
    engine: Engine,
    model: Model,
    name: str,
    queries: tuple[FlashQuery, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prefix = await engine.open(name, SPEC)
    answer = max((cells_of(model, query) for query in queries), default=0)
    room = WINDOW - prefix - answer
    recorder = Recorder(seat_of(engine, name).group.context, monkeypatch)
    with pytest.raises(ContextFull, match=f"holds {prefix} of {WINDOW}"):
        await engine.update(name, [line_of(model, room + 1)], queries)
    assert not recorder.passes
    assert (await engine.inspect(name)).n_tokens == prefix
    update = await engine.update(name, [line_of(model, room)], queries)
    assert update.n_tokens == prefix + room
    assert len(update.answers) == len(queries)
    again = await engine.update(name, (), queries)
    assert [one.value for one in again.answers] == [one.value for one in update.answers]
    with pytest.raises(ContextFull):
        await engine.update(name, ["7"], queries)
    await engine.close(name)


@pytest.mark.parametrize("n_characters", [WINDOW, 5_000, 300_000])
async def test_a_huge_line_is_refused(engine: Engine, name: str, n_characters: int) -> None:
    prefix = await engine.open(name, SPEC)
    with pytest.raises(ContextFull):
        await engine.update(name, ["ok", "9" * n_characters], (YES,))
    update = await engine.update(name, ["ok"], (YES,))
    assert update.n_tokens == prefix + update.ingest_tokens
    await engine.close(name)


async def test_a_prompt_too_long_for_its_window_is_refused_and_leaves_nothing(
    engine: Engine, name: str
) -> None:
    with pytest.raises(ContextFull, match="system prompt"):
        await engine.open(name, SessionSpec(type="iot", prompt="word " * 300, context=WINDOW))
    await engine.open(name, SPEC)
    await engine.close(name)


async def test_one_token_at_a_time_until_full(engine: Engine, name: str) -> None:
    held = await engine.open(name, SPEC)
    while True:
        try:
            update = await engine.update(name, ["7" * 9] * 2, (YES,))
        except ContextFull:
            break
        assert update.n_tokens > held
        held = update.n_tokens
    assert WINDOW - 40 < held <= WINDOW
    assert (await engine.inspect(name)).n_tokens == held
    await engine.close(name)


@pytest.mark.parametrize("window", [64, 255, 256, 257, 300])
async def test_odd_windows(engine: Engine, model: Model, name: str, window: int) -> None:
    prefix = await engine.open(name, SessionSpec(type="iot", prompt="Watch.", context=window))
    update = await engine.update(name, [line_of(model, window - prefix)], ())
    assert update.n_tokens == window
    with pytest.raises(ContextFull):
        await engine.update(name, [""], ())
    with pytest.raises(ContextFull):
        async for _ in engine.generate(name, "?", GenerateOptions()):
            pass
    await engine.close(name)


async def test_a_generation_ends_with_the_context_and_makes_way_for_data(
    engine: Engine, model: Model, name: str
) -> None:
    prefix = await engine.open(name, SPEC)
    ends, model.ends = model.ends, frozenset()
    try:
        prompt = len(model.tokens("Go on.") + model.tail)
        options = GenerateOptions(max_tokens=1000)
        pieces = [piece async for piece in engine.generate(name, "Go on.", options)]
        assert pieces[-1].finish_reason == "length"
        assert pieces[-1].n_tokens == WINDOW - prefix - prompt + 1
        running = engine.generate(name, "Go on.", options)
        await anext(running)
        await engine.update(name, [line_of(model, WINDOW - prefix - 20)], ())
        rest = [piece async for piece in running]
        assert rest[-1].finish_reason == "length"
        assert rest[-1].n_tokens < WINDOW - prefix - prompt
        assert (await engine.inspect(name)).n_tokens == WINDOW - 20
    finally:
        model.ends = ends
    await engine.close(name)


async def test_data_takes_the_cells_of_a_generation_at_once(
    engine: Engine, model: Model, name: str
) -> None:
    window = 256  # llama.cpp's own step: not a cell more than the window is there
    prefix = await engine.open(name, SessionSpec(type="iot", prompt="Watch.", context=window))
    ends, model.ends = model.ends, frozenset()
    try:
        running = engine.generate(name, "Go on.", GenerateOptions(max_tokens=200))
        written = [await anext(running) for _ in range(5)]
        update = await engine.update(name, [line_of(model, window - prefix)], ())
        assert update.n_tokens == window
        written += [piece async for piece in running]
        assert written[-1].finish_reason == "length"
        assert written[-1].n_tokens < 200
    finally:
        model.ends = ends
    await engine.close(name)
