"""The comparison of sessions with fresh contexts finds what each of them got wrong."""

from __future__ import annotations

import pytest
from chaos_expected import expected_lines, unique
from chaos_feed import Candle
from chaos_readings import compare

from flashfeed.agents.session_engine import engine_spec
from flashfeed.cli.worker import engine_for
from flashfeed.models.config import Config
from flashfeed.models.state import Head

pytestmark = pytest.mark.model
NAMES = ("good", "lost", "swapped", "answered", "failed")
CANDLES = [Candle(number, 100 + 7 * number % 40) for number in range(10)]
HELD = {"lost": CANDLES[:-1], "swapped": [*CANDLES[:-1], CANDLES[-1]._replace(close=1)]}


async def test_each_way_of_being_wrong_is_found(config: Config) -> None:
    spec = config.templates["market"].spec()
    engine = engine_for(config)
    engine.start()
    states, last = {}, {}
    try:
        for name in NAMES:
            held = HELD.get(name, CANDLES)
            lines = expected_lines(held, name, spec)
            opened = engine_spec(Head("", spec))
            await engine.open(name, opened, lines, count=len(unique(held)))
            text = (await engine.inspect(name)).text
            states[name] = {"context_text": text, "failed": "no room" * (name == "failed")}
            [answer] = (await engine.update(name, [], spec.flash)).answers
            last[name] = dict(answer.probabilities)
    finally:
        await engine.stop()
    assert 0.001 < last["good"]["up"] < 0.999  # else it would be the same whatever it was asked
    up = last["answered"]["up"] * 0.7
    last["answered"] = {"up": up, "down": 1 - up}
    candles = dict.fromkeys((*NAMES, "gone"), CANDLES)
    found = await compare(config, candles, states, last, NAMES)
    assert found.answers == 2
    wrong = [why.split(":")[0] for why in found.wrong]
    assert wrong == ["answered", "failed", "gone", "lost", "swapped"]
    assert (await compare(config, {"good": CANDLES}, states, last, NAMES)).wrong == []
