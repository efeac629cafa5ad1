"""A window bounded in tokens, and whose keys and values are there."""

from __future__ import annotations

import pytest

from flashfeed.engine import Engine
from flashfeed.models.errors import ContextFull
from flashfeed.models.session import NEXT_WORD, SessionSpec, WindowSpec

pytestmark = pytest.mark.model

SPEC = SessionSpec(type="event", window=WindowSpec("exact", 50), window_tokens=50)


async def test_data_over_its_bound_has_no_room_and_changes_nothing(
    engine: Engine, name: str
) -> None:
    prefix = await engine.open(name, SPEC)
    held = prefix
    with pytest.raises(ContextFull, match="50 tokens of data"):
        for number in range(50):
            update = await engine.update(name, [f"reading {number}"], ())
            held = update.n_tokens
            assert held - prefix <= SPEC.window_tokens
    assert held > prefix
    assert (await engine.inspect(name)).n_tokens == held
    await engine.close(name)


async def test_the_tokens_that_are_there_are_those_of_a_resident_session(
    engine: Engine, name: str
) -> None:
    assert engine.kv_tokens(name) == 0
    await engine.open(name, SPEC)
    update = await engine.update(name, ["one"], ())
    assert engine.kv_tokens(name) == update.n_tokens
    await engine.evict(name)
    assert engine.kv_tokens(name) == 0
    await engine.update(name, (), [NEXT_WORD])
    assert engine.kv_tokens(name) == update.n_tokens
    await engine.close(name)


async def test_the_next_word_is_the_first_of_what_a_generation_writes(
    engine: Engine, name: str
) -> None:
    await engine.open(name, SPEC)
    [answer] = (await engine.update(name, ["The sky is"], [NEXT_WORD])).answers
    pieces = [piece async for piece in engine.generate(name, "")]
    assert engine.count_tokens(pieces[0].text) >= 1
    assert answer.value == pieces[0].text.strip()
    assert answer.logit_gap == pytest.approx(pieces[0].logit_gap, abs=0.1)
    assert answer.first_token >= 0
    await engine.close(name)
