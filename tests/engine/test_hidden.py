"""The hidden states are llama.cpp's own, bit by bit, and are there only where asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import llama_cpp.llama_cpp as C
import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from flashfeed.engine import Engine
from flashfeed.engine.batch import Batch
from flashfeed.engine.context import Context
from flashfeed.engine.hidden import HiddenStates, state_bytes
from flashfeed.engine.model import Model
from flashfeed.engine.plan import Pass, Run
from flashfeed.models.session import FlashQuery, SessionSpec

from .conftest import seat_of, tokens_of

pytestmark = pytest.mark.model

SPEC = SessionSpec(type="ohlcv", prompt="You watch a market.")
UP = FlashQuery(id=1, query="Is the price going up or down?", choices=("up", "down"))
LONG = FlashQuery(id=2, query="Which sector?", choices=("oil and gas", "consumer goods"))
FREE = FlashQuery(id=3, query="Describe the trend.", max_tokens=3)


@pytest_asyncio.fixture(scope="module")
async def reading(engine: Engine) -> AsyncIterator[Engine]:
    """An engine that reads hidden states."""
    one = Engine(replace(engine.settings, hidden_states=True))
    one.start()
    yield one
    await one.stop()


def reference(
    model: Model, engine: Engine, runs: tuple[Run, ...], outputs: list[int]
) -> list[NDArray[np.float32]]:
    """What llama_get_embeddings_ith gives after the same tokens, by the flag that costs."""
    context = Context(model, replace(engine.settings, hidden_states=False), 512)
    C.llama_set_embeddings(context._handle, True)
    assert context._decode(Batch(context.limits.batch_tokens).filled(Pass(runs))) == 0
    rows = [C.llama_get_embeddings_ith(context._handle, place) for place in outputs]
    kept = [np.ctypeslib.as_array(row, shape=(model.n_embd,)).copy() for row in rows]
    context.free()
    return kept


@pytest.mark.parametrize("ubatch", [0, 32])
def test_they_are_bit_by_bit_what_llama_cpp_gives(
    engine: Engine, model: Model, ubatch: int
) -> None:
    """Also where a pass is computed in parts, some of them without an output."""
    tokens = model.tokens("150.70 up 1.2% volume high\n" * 9)[:100]
    settings = replace(engine.settings, hidden_states=True, ubatch_tokens=ubatch)
    context = Context(model, settings, 512)
    everywhere = (Run(tokens, 0, (0,), tuple(range(100))),)
    some = (4, 5, 80, 99)
    runs = (Run(tokens, 0, (0,), some),)
    expected = reference(model, Engine(settings), everywhere, list(range(100)))
    try:
        whole = context.run(Pass(everywhere)).hidden
        assert whole.tobytes() == np.array(expected).tobytes()
        context.clear()
        decoded = context.run(Pass(runs))
        assert decoded.hidden.shape == (4, model.n_embd)
        for row, place in zip(decoded.hidden, some, strict=True):
            # Fewer rows are other multiplications on some processors.
            assert row == pytest.approx(expected[place], abs=1e-4)
        plain = Context(model, replace(settings, hidden_states=False), 512)
        assert plain.run(Pass(runs)).rows.tobytes() == decoded.rows.tobytes()
        plain.free()
        more = context.run(Pass((Run(tokens[:3], 100, (0,)),)))
        assert more.hidden.shape[0] == 0
        again = context.run(Pass((Run(tokens[:3], 103, (0,), (2,)),)))
        assert again.hidden.shape == (1, model.n_embd)
    finally:
        context.free()


async def test_an_update_gives_the_state_of_each_answer_with_choices(
    reading: Engine, model: Model, name: str
) -> None:
    await reading.open(name, SPEC)
    lines = ["150.70 up 1.2%", "149.10 down 1.1%"]
    update = await reading.update(name, lines, (UP, FREE, LONG))
    assert [len(one) for one in update.hidden] == [2 * model.n_embd, 0, 2 * model.n_embd]
    for query, state in ((UP, update.hidden[0]), (LONG, update.hidden[2])):
        own = reading._open_sessions().model
        tokens = (*tokens_of(reading, name), *own.tokens(query.query), *own.tail)
        runs = (Run(tuple(tokens), 0, (0,), (len(tokens) - 1,)),)
        [row] = reference(own, reading, runs, [len(tokens) - 1])
        # The update's tokens were decoded in other batches than these.
        assert np.frombuffer(state, "<f2") == pytest.approx(
            row, abs=0.02 * float(np.abs(row).max())
        )
    other = np.frombuffer(update.hidden[2], "<f2").astype(np.float32)
    assert float(np.abs(other - np.frombuffer(update.hidden[0], "<f2")).max()) > 1


async def test_many_questions_in_several_passes_each_get_their_own(
    reading: Engine, name: str
) -> None:
    await reading.open(name, SPEC)
    await reading.update(name, ["150.70 up 1.2%"], ())
    many = [
        FlashQuery(id=n, query=f"Is {n} near the price?", choices=UP.choices) for n in range(1, 19)
    ]
    together = await reading.update(name, (), many)
    rows = np.array([np.frombuffer(one, "<f2") for one in together.hidden], np.float32)
    for place, query in enumerate(many):
        alone = await reading.update(name, (), (query,))
        own = np.frombuffer(alone.hidden[0], "<f2").astype(np.float32)
        assert int(np.abs(rows - own).max(axis=1).argmin()) == place


async def test_nobody_asks_nobody_reads(engine: Engine, name: str) -> None:
    await engine.open(name, SPEC)
    update = await engine.update(name, ["150.70 up 1.2%"], (UP, FREE))
    assert update.hidden == (b"", b"")
    assert seat_of(engine, name).group.context._hidden is None


def test_a_graph_without_the_node_gives_none_and_is_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    states = HiddenStates(8)
    for _ in range(2):
        states.begin(3)
        assert states.take().shape == (3, 0)
    assert len(caplog.records) == 1
    assert state_bytes(states.take()[0]) == b""


def test_a_state_beyond_float16_stays_finite() -> None:
    state = np.array([1.0, -1e9, 1e9], np.float32)
    assert np.isfinite(np.frombuffer(state_bytes(state), "<f2")).all()
