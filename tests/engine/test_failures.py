"""An update is atomic, and a session that fails leaves its neighbours alone (invariant 6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from flashfeed.engine import DecodeFailed, Engine, EngineSettings
from flashfeed.engine.context import Context
from flashfeed.models.errors import ConfigError, EngineError, Overloaded, Unavailable
from flashfeed.models.generation import GenerateOptions
from flashfeed.models.session import FlashQuery, SessionSpec

from .conftest import seat_of, tokens_of

pytestmark = pytest.mark.model

SPEC = SessionSpec(type="iot", prompt="Watch the pumps.")
OTHER = SessionSpec(type="iot", prompt="Watch the valves.")
YES = FlashQuery(id=1, query="Alert?", choices=("yes", "no"))
LONG = FlashQuery(id=2, query="Which colour?", choices=("red hot", "blue cold", "green"))
FREE = FlashQuery(id=3, query="Describe it.", max_tokens=6)
ALL = (YES, LONG, FREE)


@pytest_asyncio.fixture(scope="module")
async def shared(model_path: Path) -> AsyncIterator[Engine]:
    """Three sessions a context, few forks, small passes: everything is cut and shared."""
    one = Engine(
        EngineSettings(
            model_path=model_path,
            threads=1,  # threads that wait for one another cost more than they bring here
            context_tokens=300,
            sessions_per_context=3,
            sessions_max=4,
            batch_tokens=32,
            forks_max=16,
            outputs_max=3,
            generations_max=2,
        )
    )
    one.start()
    yield one
    await one.stop()


class Failing:
    """The decode after `after` good ones returns `code`; it has really run if `ran`."""

    def __init__(
        self, context: Context, monkeypatch: pytest.MonkeyPatch, after: int, code: int, ran: bool
    ) -> None:
        self.left, self.decode = after, context._decode
        self.failed = False

        def decode(batch: Any) -> int:
            self.left -= 1
            if self.left == -1:
                self.failed = True
                if ran:
                    assert self.decode(batch) == 0
                return code
            return self.decode(batch)

        monkeypatch.setattr(context, "_decode", decode)


@pytest.mark.parametrize(
    ("code", "ran", "after"),
    [(1, False, 0), (-1, False, 2), (2, True, 0), (-3, True, 1), (-3, True, 6)],
)
async def test_a_failed_pass_undoes_the_update_alone(
    shared: Engine, name: str, monkeypatch: pytest.MonkeyPatch, code: int, ran: bool, after: int
) -> None:
    neighbour = name + "-neighbour"
    lines = [f"pump {n} at {n}.5 bar" for n in range(4)]
    for one in (name, neighbour):
        await shared.open(one, SPEC)
        await shared.update(one, lines[:2], ALL)
    text = (await shared.inspect(name)).text
    group = seat_of(shared, name).group
    context, unused = group.context, len(group._ids)
    assert seat_of(shared, neighbour).group is group
    expected = await shared.update(neighbour, (), ALL)
    failing = Failing(context, monkeypatch, after, code, ran)
    with pytest.raises(DecodeFailed) as error:
        await shared.update(name, lines, ALL)
    monkeypatch.undo()
    assert failing.failed
    assert error.value.decode_code == code
    assert (await shared.inspect(name)).text == text
    assert len(group._ids) == unused
    held = [len(tokens_of(shared, one)) for one in (name, neighbour)]
    shared_prefix = len(shared._open_sessions()[name].prefix)
    assert context.cells_used == sum(held) - shared_prefix
    same = await shared.update(neighbour, (), ALL)
    for one, other in zip(same.answers, expected.answers, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=0.02)
    # The update can be done again, and is what it would have been.
    update = await shared.update(name, lines, ALL)
    twin = await shared.update(neighbour, lines, ALL)
    assert update.n_tokens == twin.n_tokens
    for one, other in zip(update.answers, twin.answers, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=0.03)
    await shared.close(name)
    await shared.close(neighbour)


async def test_a_failed_opening_and_a_failed_generation_leave_nothing(
    shared: Engine, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shared.open(name, SPEC)
    group = seat_of(shared, name).group
    unused = len(group._ids)
    Failing(group.context, monkeypatch, 0, -3, True)
    with pytest.raises(EngineError):
        await shared.open(name + "-other", OTHER)
    Failing(group.context, monkeypatch, 2, -3, True)
    with pytest.raises(EngineError):
        async for _ in shared.generate(name, "Go on.", GenerateOptions(max_tokens=9)):
            pass
    monkeypatch.undo()
    assert group.n_free == 2
    assert len(group._ids) == unused
    assert group.context.cells_used == (await shared.inspect(name)).n_tokens
    assert (await shared.update(name, ["still here"], (YES,))).answers
    await shared.close(name)


async def test_sessions_of_one_context_at_once_are_as_if_alone(shared: Engine, name: str) -> None:
    names = [f"{name}-{n}" for n in range(3)]
    await asyncio.gather(*(shared.open(one, SPEC) for one in names))
    assert len({id(seat_of(shared, one).group) for one in names}) == 1
    alone = {}
    for one in names:  # each in turn
        alone[one] = await shared.update(one, [f"{one} is at 4.5 bar"], ALL)
        await shared.close(one)
        await shared.open(one, SPEC)
    together = await asyncio.gather(
        *(shared.update(one, [f"{one} is at 4.5 bar"], ALL) for one in names)
    )
    for one, update in zip(names, together, strict=True):
        for mine, other in zip(update.answers, alone[one].answers, strict=True):
            assert mine.confidence == pytest.approx(other.confidence, abs=0.03)
    for one in names:
        assert f"{one} is at" in (await shared.inspect(one)).text
        await shared.close(one)


async def test_more_forks_than_there_are_take_several_rounds(shared: Engine, name: str) -> None:
    many = tuple(
        FlashQuery(id=n, query=f"Which colour is pump {n}?", choices=LONG.choices)
        for n in range(1, 13)
    )
    await shared.open(name, SPEC)
    update = await shared.update(name, ["pump 1 is red hot"], many)
    assert [answer.query_id for answer in update.answers] == list(range(1, 13))
    for query, answer in list(zip(many, update.answers, strict=True))[::4]:
        alone = (await shared.update(name, (), (query,))).answers[0]
        assert answer.confidence == pytest.approx(alone.confidence, abs=0.03)
    await shared.close(name)


async def test_limits_on_sessions(shared: Engine, name: str) -> None:
    names = [f"{name}-{n}" for n in range(4)]
    for one in names:
        await shared.open(one, SPEC)
    with pytest.raises(Overloaded):
        await shared.open(name, SPEC)
    for one in names:
        await shared.close(one)
    for group in shared._open_sessions()._groups:
        prefixes = sum(len(prefix.key.tokens) for prefix in group.prefixes.values())
        assert group.context.cells_used == prefixes  # kept for the next of its kind


async def test_stopping_fails_what_waits_and_nothing_hangs(model_path: Path) -> None:
    engine = Engine(EngineSettings(model_path=model_path, threads=1, context_tokens=256))
    with pytest.raises(Unavailable):
        await engine.open("s", SPEC)
    engine.start()
    await engine.open("s", SPEC)
    calls = [asyncio.ensure_future(engine.update("s", ["x"], (FREE,))) for _ in range(4)]
    running = engine.generate("s", "Go on.", GenerateOptions(max_tokens=50))
    await anext(running)
    await engine.stop()
    await engine.stop()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert any(isinstance(one, Unavailable) for one in results)
    with pytest.raises(Unavailable):
        async for _ in running:
            pass
    with pytest.raises(Unavailable):
        await engine.update("s", ["x"], ())


def test_settings_and_models_that_cannot_be(tmp_path: Path, model_path: Path) -> None:
    with pytest.raises(ConfigError, match="forks"):
        EngineSettings(model_path=model_path, forks_max=3)
    with pytest.raises(ConfigError, match="256"):
        EngineSettings(model_path=model_path, sessions_per_context=3, forks_max=200)
    with pytest.raises(ConfigError, match="batch_tokens"):
        EngineSettings(model_path=model_path, batch_tokens=0)
    with pytest.raises(ConfigError, match="No such file"):
        Engine(EngineSettings(model_path=tmp_path / "none.gguf")).start()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF but not really")
    with pytest.raises(ConfigError, match=r"broken\.gguf"):
        Engine(EngineSettings(model_path=broken)).start()
