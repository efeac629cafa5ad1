"""Generations: in a branch that never touches the data, and never in its way (invariant 6)."""

from __future__ import annotations

import asyncio

import pytest

from flashfeed.engine import Engine
from flashfeed.engine.model import Model
from flashfeed.models.errors import Overloaded, SessionUnknown
from flashfeed.models.generation import GeneratedPiece, GenerateOptions
from flashfeed.models.session import FlashQuery, SessionSpec

from .conftest import Fresh, Recorder, seat_of, tokens_of

pytestmark = pytest.mark.model

SPEC = SessionSpec(type="event", prompt="You are terse.")
QUERY = FlashQuery(id=1, query="Is all well?", choices=("yes", "no"))
LINES = ["pump 3 on", "pressure 4.1 bar", "pressure 9.9 bar, alarm"]


async def collect(
    engine: Engine, name: str, prompt: str, options: GenerateOptions
) -> list[GeneratedPiece]:
    return [piece async for piece in engine.generate(name, prompt, options)]


async def test_a_generation_leaves_the_data_as_it_was(
    engine: Engine, model: Model, fresh: Fresh, name: str
) -> None:
    await engine.open(name, SPEC)
    before = await engine.update(name, LINES, (QUERY,))
    text = (await engine.inspect(name)).text
    pieces = await collect(engine, name, "What happened?", GenerateOptions(max_tokens=12))
    assert (await engine.inspect(name)).text == text
    after = await engine.update(name, (), (QUERY,))
    assert after.answers[0].probabilities == pytest.approx(before.answers[0].probabilities)
    context = seat_of(engine, name).group.context
    assert context.cells_used == after.n_tokens
    tokens = tokens_of(engine, name)
    first = fresh.row([*tokens, *model.tokens("What happened?"), *model.tail])
    assert model.piece(int(first.argmax())).decode() == pieces[0].text
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish_reason in ("stop", "length")
    assert [piece.n_tokens for piece in pieces[:3]] == [1, 2, 3]
    start = len(tokens) + len(model.tokens("What happened?")) + len(model.tail)
    assert [piece.position for piece in pieces[:2]] == [start, start + 1]
    await engine.close(name)


async def test_seeds_and_stop_strings(engine: Engine, name: str) -> None:
    await engine.open(name, SPEC)
    warm = GenerateOptions(max_tokens=10, temperature=1.5, top_p=0.95, seed=7)
    one, two = [await collect(engine, name, "Tell a story.", warm) for _ in range(2)]
    assert one == two
    cold = GenerateOptions(max_tokens=16)
    whole = "".join(p.text for p in await collect(engine, name, "Tell a story.", cold))
    stop = whole[4:9]  # cuts through tokens
    options = GenerateOptions(max_tokens=16, stop=(stop,))
    pieces = await collect(engine, name, "Tell a story.", options)
    assert "".join(piece.text for piece in pieces) == whole[: whole.index(stop)]
    assert pieces[-1].finish_reason == "stop"
    await engine.close(name)


async def test_closing_the_iterator_cancels(engine: Engine, name: str) -> None:
    await engine.open(name, SPEC)
    running = engine.generate(name, "Count to a thousand.", GenerateOptions(max_tokens=400))
    await anext(running)
    await running.aclose()
    seat = seat_of(engine, name)
    for _ in range(20):
        if not seat.branches:
            break
        await engine.update(name, (), (QUERY,))
    assert not seat.branches
    held = (await engine.inspect(name)).n_tokens
    assert seat.group.context.cells_used == held
    await engine.close(name)


async def test_closing_the_session_ends_its_generations_as_cancelled(
    engine: Engine, model: Model, name: str
) -> None:
    ends, model.ends = model.ends, frozenset()
    try:
        await engine.open(name, SPEC)
        running = engine.generate(name, "Go on.", GenerateOptions(max_tokens=400))
        await anext(running)
        await engine.close(name)
        rest = [piece async for piece in running]
        assert rest[-1].finish_reason == "cancelled"
    finally:
        model.ends = ends
    with pytest.raises(SessionUnknown):
        await collect(engine, name, "Still there?", GenerateOptions())


async def test_an_update_waits_for_one_step_of_a_generation_at_most(
    engine: Engine, model: Model, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.open(name, SPEC)
    recorder = Recorder(seat_of(engine, name).group.context, monkeypatch)
    own = seat_of(engine, name).sequence
    ends, model.ends = model.ends, frozenset()
    try:
        running = engine.generate(name, "Go on.", GenerateOptions(max_tokens=60))
        await anext(running)
        for line in LINES:
            begun = len(recorder.passes)
            await engine.update(name, [line], (QUERY,))
            places = [
                place
                for place, one in enumerate(recorder.passes[begun:])
                if any(own in run.sequences for run in one.runs)
            ]
            # Of the passes since the call at most one ran and one was begun before it.
            assert places[0] <= 2
        rest = [piece async for piece in running]
        assert rest[-1].n_tokens == 60
    finally:
        model.ends = ends
    await engine.close(name)


async def test_a_generation_goes_on_under_constant_updates(engine: Engine, name: str) -> None:
    await engine.open(name, SPEC)
    done = asyncio.Event()

    async def generate() -> None:
        await collect(engine, name, "Say something.", GenerateOptions(max_tokens=6))
        done.set()

    task = asyncio.create_task(generate())
    n_updates = 0
    while not done.is_set() and n_updates < 60:
        await asyncio.gather(*(engine.update(name, (), (QUERY,)) for _ in range(3)))
        n_updates += 3
    assert done.is_set()
    await task
    await engine.close(name)


async def test_more_generations_than_branches_are_refused(engine: Engine, name: str) -> None:
    await engine.open(name, SPEC)
    options = GenerateOptions(max_tokens=100)
    running = [
        engine.generate(name, "Count.", options) for _ in range(engine.settings.generations_max)
    ]
    for one in running:
        await anext(one)
    with pytest.raises(Overloaded):
        await collect(engine, name, "Count.", options)
    for one in running:
        await one.aclose()
    await engine.close(name)
