"""Items that are written again: the context is a fresh one's over what stands now (inv. 5)."""

from __future__ import annotations

import pytest

from flashfeed.engine import Engine
from flashfeed.engine.model import Model
from flashfeed.models.errors import EngineError, RequestError
from flashfeed.models.generation import GenerateOptions
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec

from .conftest import Fresh, Recorder, expect_agrees, seat_of, tokens_of

pytestmark = pytest.mark.model

UP = FlashQuery(id=1, query="Is it rising?", choices=("yes", "no"))
N = 4
WINDOWS = [WindowSpec("exact", N), WindowSpec("shift", N), WindowSpec("grow")]


def spec_of(window: WindowSpec) -> SessionSpec:
    return SessionSpec(type="ohlcv", prompt="You watch a market.", window=window)


def line(number: int, close: float) -> str:
    return f"bar {number} close {close}"


async def expect_lines(engine: Engine, name: str, lines: list[str]) -> None:
    """The session holds these lines' tokens, to the last one."""
    model = engine._open_sessions().model
    kept = tokens_of(engine, name)
    session = engine._open_sessions()[name]
    items = [token for one in lines for token in model.tokens(one + "\n")]
    n_items = len(kept) - len(session.prefix)
    assert kept == [*session.prefix, *items[len(items) - n_items :]]
    assert (await engine.inspect(name)).n_tokens == len(kept)


@pytest.mark.parametrize("window", WINDOWS, ids=lambda one: one.mode)
async def test_a_corrected_tail_is_as_if_it_had_never_been_otherwise(
    engine: Engine, model: Model, fresh: Fresh, name: str, window: WindowSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    await engine.open(name, spec_of(window))
    lines: list[str] = []
    for number in range(3 * N + 2):
        lines.append(line(number, 10.5))
        await engine.update(name, lines[-1:], (UP,))
        for rewind in range(1, min(4, len(lines), len(engine._open_sessions()[name].items)) + 1):
            # The last ones again, with other values, and now and then one more.
            lines[-rewind:] = [line(number - back, 20 + rewind) for back in range(rewind)][::-1]
            more = [line(number, 99.5)] if (number + rewind) % 5 == 0 else []
            lines += more
            recorder = Recorder(seat_of(engine, name).group.context, monkeypatch)
            await engine.update(name, lines[-rewind - len(more) :], (UP,), rewind=rewind)
            await expect_lines(engine, name, lines)
            monkeypatch.undo()
            if window.mode != "shift" and recorder.rows:  # else the window moved elsewhere
                asked = [*tokens_of(engine, name), *model.tokens(UP.query), *model.tail]
                expect_agrees(fresh.row(asked), recorder.rows[0])


async def test_what_cannot_be_rewound_is_refused_and_changes_nothing(
    engine: Engine, name: str
) -> None:
    await engine.open(name, spec_of(WINDOWS[0]))
    await engine.update(name, ["one", "two"])
    before = tokens_of(engine, name)
    for lines, rewind in ((["a"], 2), (["a"] * 3, 3)):
        with pytest.raises(RequestError, match="expected a rewind of at most"):
            await engine.update(name, lines, rewind=rewind)
    assert tokens_of(engine, name) == before


async def test_a_rewind_whose_pass_fails_leaves_the_session_as_it_was(
    engine: Engine, fresh: Fresh, model: Model, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.open(name, spec_of(WINDOWS[0]))
    await engine.update(name, [line(n, 10.5) for n in range(6)], (UP,))
    before = tokens_of(engine, name)
    context = seat_of(engine, name).group.context

    def fails(_: object) -> None:
        raise EngineError("the pass failed")

    monkeypatch.setattr(context, "run", fails)
    with pytest.raises(EngineError):
        await engine.update(name, [line(5, 30)], (UP,), rewind=1)
    monkeypatch.undo()
    update = await engine.update(name, (), (UP,))
    assert tokens_of(engine, name) == before
    assert update.answers[0].value in UP.choices


async def test_a_generation_under_way_ends_in_peace(engine: Engine, name: str) -> None:
    await engine.open(name, spec_of(WINDOWS[2]))
    await engine.update(name, [line(n, 10.5) for n in range(4)])
    pieces = engine.generate(name, "Go on.", GenerateOptions(max_tokens=60, ignore_eos=True))
    await anext(pieces)
    await engine.update(name, [line(3, 30)], (UP,), rewind=1)
    reasons = [piece.finish_reason async for piece in pieces]
    assert reasons[-1] in ("length", "cancelled")
    assert "close 30" in (await engine.inspect(name)).text
