"""How llama-server is asked, and which set-up would make it the fastest peer.

The peer is llama-server as it comes (flash attention "auto", which it takes to mean on),
since that is what people run; its best set-up here is measured beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from statistics import median

from llama_server import LlamaServer, PeerFailed, Question
from rig import QUIET_S, Rig
from work import CANDLE_TOKENS, candles, line_tokens, prefix_tokens, question_tokens

MEASURED_UPDATE = 3


def questions(rig: Rig) -> list[Question]:
    """The four questions as llama-server is asked them."""
    return [
        Question(tuple(tokens), tuple(choices))
        for tokens, choices in zip(question_tokens(rig.model), rig.first_choices, strict=True)
    ]


def choose_server(rig: Rig) -> str:
    """Finds the way of asking and the set-up that are fastest for llama-server here
    (`rig.in_one_request`, `rig.best`), and says what was tried.

    Separate KV for each slot always: unified, three slots of 2,000 tokens took 1.8 times
    as long an update (2 CPU cores, 2026-11), since each then attends over all of them.
    """
    if rig.server is None:
        raise PeerFailed("no llama-server was built: run `make peers`")
    asked, history = questions(rig), 500 if rig.quick else 1000
    lines = candles(rig.model, 77)
    tried: dict[tuple[bool, str], float] = {}
    for flash in (False, True):
        settings = replace(rig.server, slots=4, context_tokens=2048, flash_attention=flash)
        with LlamaServer(settings) as server:
            tokens = prefix_tokens(rig.model)
            tokens += line_tokens(rig.model, list(islice(lines, history // CANDLE_TOKENS)))
            for slot in range(4):
                server.feed(slot, tokens)
            ways: dict[str, Callable[[list[int]], object]] = {
                "one after another": lambda tokens, to=server: to.ask(0, tokens, asked),
                "in one request": lambda tokens, to=server: to.ask_in_one(0, tokens, asked),
                "a slot each": lambda tokens, to=server: to.ask_parallel(range(4), tokens, asked),
            }
            spent: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(4):
                for way, ask in ways.items():
                    if way == "a slot each":  # the others hold what the first has seen
                        for slot in range(4):
                            server.feed(slot, tokens)
                    tokens += line_tokens(rig.model, list(islice(lines, MEASURED_UPDATE)))
                    began = time.perf_counter()
                    ask(tokens)
                    spent[way].append(time.perf_counter() - began)
                    time.sleep(QUIET_S)
            tried |= {(flash, way): median(seconds[1:]) for way, seconds in spent.items()}
    # One slot a session: the parallel way is measured, and not taken.
    best = min((s, way, flash) for (flash, way), s in tried.items() if way != "a slot each")
    rig.best = replace(rig.server, flash_attention=best[2])
    rig.in_one_request = best[1] == "in one request"
    figures = ", ".join(
        f"{way}, flash attention {'on' if flash else 'off'}: {seconds * 1000:.0f} ms"
        for (flash, way), seconds in tried.items()
    )
    return f"llama-server at {history} tokens, 4 questions: {figures}"
