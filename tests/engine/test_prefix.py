"""A frozen prefix is decoded once for a tenant, shared or copied, and never slides out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from flashfeed.engine import Engine, EngineSettings
from flashfeed.engine.context import Context, Decoded
from flashfeed.engine.model import Model
from flashfeed.engine.plan import Pass
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec

from .conftest import seat_of, tokens_of

pytestmark = pytest.mark.model

PROMPT = "You watch the pumps of a plant and say what is wrong with them, if anything is."
SPEC = SessionSpec(type="iot", prompt=PROMPT, window=WindowSpec("exact", 3))
UP = FlashQuery(id=1, query="Is it rising?", choices=("yes", "no"))


class Counter:
    """Tokens decoded by every context."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens = 0
        run = Context.run

        def counted(context: Context, one: Pass) -> Decoded:
            self.tokens += one.n_tokens
            return run(context, one)

        monkeypatch.setattr(Context, "run", counted)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    yield Counter(monkeypatch)


@pytest_asyncio.fixture(params=[1, 3])
async def plant(model_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    """One seat a context, so that prefixes are copied, and three, so that they are shared."""
    settings = EngineSettings(
        model_path=model_path, threads=1, context_tokens=512, sessions_per_context=request.param
    )
    async with Engine(settings) as engine:
        yield engine


def of_tenant(tenant: str) -> SessionSpec:
    return SessionSpec(type="iot", prompt=PROMPT, window=SPEC.window, tenant=tenant)


async def test_the_second_session_of_a_tenant_decodes_nothing(
    plant: Engine, counter: Counter
) -> None:
    prefix = await plant.open("a", SPEC)
    assert counter.tokens == prefix
    await plant.open("b", SPEC)
    assert counter.tokens == prefix
    await plant.open("c", of_tenant("other"))
    assert counter.tokens == 2 * prefix  # never across tenants
    for one in "abc":
        update = await plant.update(one, ["pump 1 at 4.5 bar"], (UP,))
        assert update.n_tokens == prefix + update.ingest_tokens
    texts = {(await plant.inspect(one)).text for one in "abc"}
    assert len(texts) == 1


async def test_seats_of_a_context_share_the_cells(plant: Engine) -> None:
    prefix = await plant.open("a", SPEC)
    await plant.open("b", SPEC)
    groups = {seat_of(plant, one).group for one in "ab"}
    assert sum(group.context.cells_used for group in groups) == prefix * len(groups)
    await plant.close("a")
    update = await plant.update("b", ["pump 1 at 4.5 bar"], (UP,))
    assert len(update.answers) == 1


async def test_instructions_that_are_marked_never_slide_out(
    plant: Engine, model: Model, counter: Counter
) -> None:
    await plant.open("a", SPEC)
    rules = ["Rule 1: above 9 bar is wrong.", "Rule 2: below 1 bar is wrong."]
    await plant.update("a", rules, ())
    frozen = await plant.mark_prefix("a")
    assert (await plant.inspect("a")).prefix_end == frozen == len(tokens_of(plant, "a"))
    for n in range(10):
        update = await plant.update("a", [f"pump {n} at 4.5 bar"], (UP,))
    text = (await plant.inspect("a")).text
    assert all(rule in text for rule in rules)
    assert "pump 5 " not in text
    assert "pump 6 " in text
    # Whoever comes with the same instructions finds them decoded.
    await plant.save("a")  # behind it, the next window is up to date
    before = counter.tokens
    assert await plant.open("b", SPEC, frozen=rules) == frozen
    assert counter.tokens == before
    await plant.open("c", of_tenant("other"), frozen=rules)
    assert counter.tokens == before + frozen
    assert update.answers


async def test_marking_again_goes_on_from_the_prefix(plant: Engine) -> None:
    await plant.open("a", SPEC)
    await plant.open("b", SPEC)
    for one in "ab":
        for n in range(3):
            await plant.update(one, [f"Rule {n}: as it was said before."], ())
            await plant.mark_prefix(one)
    held = {one: len(tokens_of(plant, one)) for one in "ab"}
    assert held["a"] == held["b"]
    groups = {seat_of(plant, one).group for one in "ab"}
    assert sum(group.context.cells_used for group in groups) == held["a"] * len(groups)
    for one in "ab":
        assert (await plant.update(one, ["pump 1 at 4.5 bar"], (UP,))).answers
        await plant.close(one)
    for group in groups:
        kept = sum(len(prefix.key.tokens) for prefix in group.prefixes.values())
        assert group.context.cells_used <= kept


async def test_a_kept_prefix_that_cannot_be_loaded_is_decoded(
    model_path: Path, counter: Counter
) -> None:
    settings = EngineSettings(model_path=model_path, threads=1, context_tokens=512)
    async with Engine(settings) as engine:
        prefix = await engine.open("a", SPEC)
        sessions = engine._open_sessions()
        key = sessions["a"].key
        state = sessions.prefixes.get(key)
        assert state is not None
        sessions.prefixes.keep(key, state[: len(state) // 2])
        assert await engine.open("b", SPEC) == prefix
        assert counter.tokens == 2 * prefix
        assert sessions.prefixes.get(key) == state
        assert (await engine.update("b", ["pump 1 at 4.5 bar"], (UP,))).answers
        await engine.open("c", SPEC)
        assert counter.tokens < 3 * prefix
