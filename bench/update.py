"""What does an update cost, against starting over and against the bare forward pass?

A session with 2,000 tokens of history gets 40 new tokens and answers 4 questions.

scratch       history, update and question decoded afresh for each question
single pass   Engine.update() as a user sees it: wall time, Python and threads included
ideal         one bare llama_decode of as many tokens at the same position

and the same for free answers of 16 tokens, whose ideal is one pass and 15 bare steps of
4 tokens. The sides take turns; the times are medians of `ROUNDS`. The logits of the
update are compared with those from scratch, over the whole vocabulary.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from statistics import median

import numpy as np
from bare import Bare
from numpy.typing import NDArray
from work import (
    CHOICES,
    FREE,
    FREE_TOKENS,
    GROW,
    line_of,
    line_tokens,
    prefix_tokens,
    session_spec,
)

from flashfeed.engine import Engine, EngineSettings, fastest_form, find_packaged_model
from flashfeed.engine.context import Context, Decoded
from flashfeed.engine.plan import Pass

HISTORY_TOKENS = 2000
UPDATE_TOKENS = 40
ROUNDS = 9
FREE_ROUNDS = 5
NEAR_TIE = 0.2


class Recorder:
    """Keeps the rows of logits of every pass that is run while it is entered."""

    def __init__(self) -> None:
        self.rows = list[NDArray[np.float32]]()

    def __enter__(self) -> Recorder:
        self._run = run = Context.run

        def recorded(context: Context, one: Pass) -> Decoded:
            decoded = run(context, one)
            self.rows.extend(row.copy() for row in decoded.rows)
            return decoded

        Context.run = recorded  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Context.run = self._run  # type: ignore[method-assign]


def bare_context(engine: Engine) -> Bare:
    """A context as large as a session's, over the same weights."""
    settings = engine.settings
    return Bare(
        engine._open_sessions().model.handle,
        cells=settings.context_tokens,
        batch_tokens=settings.batch_tokens,
        threads=engine.threads,
    )


async def main() -> None:
    say = lambda text: print(text, file=sys.stderr)  # noqa: E731
    path = fastest_form(find_packaged_model(), progress=say)
    settings = EngineSettings(model_path=path)
    engine = Engine(settings)
    engine.start()
    model = engine._open_sessions().model
    prefix = await engine.open("bench", session_spec(GROW))
    history = []
    n = prefix
    while n < HISTORY_TOKENS:
        size = min(UPDATE_TOKENS, HISTORY_TOKENS - n)
        if HISTORY_TOKENS - n - size < 25:
            size = HISTORY_TOKENS - n
        history.append(line_of(model, size, len(history)))
        n += size
    await engine.update("bench", history, ())
    held = [*prefix_tokens(model), *line_tokens(model, history)]
    assert len(held) == n, f"expected {n} tokens, got {len(held)}"
    bare = bare_context(engine)
    bare.feed(held, 0)

    asked = [model.tokens(query.query) + model.tail for query in CHOICES]
    question = [token for tokens in asked for token in tokens]
    first = line_of(model, UPDATE_TOKENS, 900)
    await engine.update("bench", (), CHOICES)  # tokenises the questions

    with Recorder() as recorder:
        await engine.update("bench", [first], CHOICES)
    held += line_tokens(model, [first])
    scratch_s, differences, equal, near_ties = 0.0, [], True, 0
    fresh = bare_context(engine)
    for tokens, row in zip(asked, recorder.rows, strict=True):
        fresh.cut(0)
        scratch_s += fresh.feed([*held, *tokens], 0)
        reference = fresh.last_row(model.n_vocab)
        differences.append(float(np.abs(reference - row).max()))
        best, second = np.sort(reference)[-2:][::-1]
        if best - second <= NEAR_TIE:
            near_ties += 1
        elif reference.argmax() != row.argmax():
            equal = False
    fresh.free()

    bare.feed(held[bare.held :], bare.held)
    single, ideal, free, free_ideal = [], [], [], []
    python = []
    for number in range(ROUNDS):
        line = line_of(model, UPDATE_TOKENS, number)
        new = line_tokens(model, [line])
        position = len(held)
        ideal.append(bare.decode([*new, *question], position, len(CHOICES)))
        bare.cut(position + len(new))
        started = time.perf_counter()
        update = await engine.update("bench", [line], CHOICES)
        single.append(time.perf_counter() - started)
        python.append(single[-1] - update.decode_s)
        assert update.decodes == 1, update
        held += new
    ends, model.ends = model.ends, frozenset()  # no answer ends before its 16 tokens
    for number in range(FREE_ROUNDS):
        line = line_of(model, UPDATE_TOKENS, 100 + number)
        new = line_tokens(model, [line])
        position = len(held)
        seconds = bare.decode([*new, *question], position, len(FREE))
        end = position + len(new) + len(asked[0])
        bare.cut(end)
        bare.fork(len(FREE))
        for step in range(FREE_TOKENS - 1):
            seconds += bare.step(new[: len(FREE)], end + step)
        bare.drop(len(FREE))
        bare.cut(position + len(new))
        free_ideal.append(seconds)
        started = time.perf_counter()
        update = await engine.update("bench", [line], FREE)
        free.append(time.perf_counter() - started)
        assert update.generated_tokens == FREE_TOKENS * len(FREE), update
        assert update.decodes == FREE_TOKENS, update
        held += new
    model.ends = ends
    bare.free()
    await engine.stop()

    n_question = len(question)
    print(f"model {path.name}, {engine.threads} threads, history {HISTORY_TOKENS} tokens,")
    print(f"update {UPDATE_TOKENS} tokens, 4 questions of {n_question} tokens together")
    print(f"{'':34}{'ms':>10}")
    for label, value in (
        ("from scratch, 4 questions", scratch_s),
        ("update, single pass (wall)", median(single)),
        ("  of it outside llama_decode", median(python)),
        ("ideal: one bare llama_decode", median(ideal)),
        ("update, 4 free answers of 16", median(free)),
        ("ideal: a pass and 15 bare steps", median(free_ideal)),
    ):
        print(f"{label:34}{value * 1000:10.1f}")
    figures = {
        "bench": "update",
        "scratch_over_single_pass": round(scratch_s / median(single), 1),
        "single_pass_over_ideal": round(median(single) / median(ideal), 3),
        "free_over_ideal": round(median(free) / median(free_ideal), 3),
        "argmax_equal": equal,
        "near_ties": near_ties,
        "logit_diff_max": round(max(differences), 4),
        "outside_decode_ms": round(median(python) * 1000, 2),
        "single_pass_ms": round(median(single) * 1000, 1),
        "model": path.name,
        "threads": engine.threads,
    }
    figures["pass"] = (
        figures["scratch_over_single_pass"] >= 40
        and figures["single_pass_over_ideal"] <= 1.15
        and figures["free_over_ideal"] <= 1.2
        and figures["logit_diff_max"] <= 0.1
        and equal
    )
    print(json.dumps(figures))
    sys.exit(not figures["pass"])


if __name__ == "__main__":
    asyncio.run(main())
