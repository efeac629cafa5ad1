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
from collections.abc import Sequence
from statistics import median
from typing import Any

import llama_cpp.llama_cpp as C
import numpy as np
from numpy.typing import NDArray

from flashfeed.engine import Engine, EngineSettings, fastest_form, find_packaged_model
from flashfeed.engine.context import Context, Decoded
from flashfeed.engine.model import Model
from flashfeed.engine.plan import Pass
from flashfeed.models.session import FlashQuery, SessionSpec

HISTORY_TOKENS = 2000
UPDATE_TOKENS = 40
FREE_TOKENS = 16
ROUNDS = 9
FREE_ROUNDS = 5
NEAR_TIE = 0.2

CHOICES = (
    FlashQuery(id=1, query="Is the price going up or down?", choices=("up", "down")),
    FlashQuery(id=2, query="Is the volume high or low?", choices=("high", "low")),
    FlashQuery(id=3, query="Should an alert be raised?", choices=("yes", "no")),
    FlashQuery(id=4, query="Is the trend strong or weak?", choices=("strong", "weak")),
)
FREE = tuple(
    FlashQuery(id=query.id, query=query.query, max_tokens=FREE_TOKENS) for query in CHOICES
)
SPEC = SessionSpec(type="ohlcv", prompt="You watch a market. Answer in one word.")


class Bare:
    """llama.cpp with nothing around it: a context of its own, and batches of ready arrays."""

    def __init__(self, context: Context) -> None:
        self.handle, self.memory = context._handle, context._memory
        self.context = context

    def decode(self, tokens: Sequence[int], position: int, n_outputs: int) -> float:
        """Seconds of one llama_decode in sequence 0 with the last outputs wanted."""
        batch = C.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place] = token, position + place
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            batch.logits[place] = place >= len(tokens) - n_outputs
        return self._timed(batch)

    def step(self, tokens: Sequence[int], position: int) -> float:
        """Seconds of one llama_decode of one token in each of the sequences 1, 2, ..."""
        batch = C.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place] = token, position
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, place + 1
            batch.logits[place] = 1
        return self._timed(batch)

    def fork(self, n: int) -> None:
        """Sequences 1 to n become sequence 0."""
        for sequence in range(1, n + 1):
            C.llama_memory_seq_cp(self.memory, 0, sequence, -1, -1)

    def drop(self, n: int) -> None:
        """Sequences 1 to n are gone."""
        for sequence in range(1, n + 1):
            C.llama_memory_seq_rm(self.memory, sequence, -1, -1)

    def cut(self, position: int) -> None:
        """Sequence 0 keeps its first tokens alone."""
        C.llama_memory_seq_rm(self.memory, 0, position, -1)

    def last_row(self, n_vocab: int) -> NDArray[np.float32]:
        """The logits of the last output."""
        pointer = C.llama_get_logits_ith(self.handle, -1)
        return np.ctypeslib.as_array(pointer, shape=(n_vocab,)).copy()

    def feed(self, tokens: Sequence[int], position: int) -> float:
        """Seconds for tokens of any number, the last one's logits wanted."""
        size = self.context.limits.batch_tokens
        parts = [tokens[at : at + size] for at in range(0, len(tokens), size)]
        seconds = 0.0
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            seconds += self.decode(part, position, 1 if last else 0)
            position += len(part)
        return seconds

    def _timed(self, batch: Any) -> float:
        started = time.perf_counter()
        code = C.llama_decode(self.handle, batch)
        C.llama_synchronize(self.handle)
        seconds = time.perf_counter() - started
        C.llama_batch_free(batch)
        assert code == 0, code
        return seconds


class Recorder:
    """Keeps the rows of logits of every pass that a context runs while it is entered."""

    def __init__(self, context: Context) -> None:
        self.context, self.rows = context, list[NDArray[np.float32]]()

    def __enter__(self) -> Recorder:
        run = self.context.run

        def recorded(one: Pass) -> Decoded:
            decoded = run(one)
            self.rows.extend(row.copy() for row in decoded.rows)
            return decoded

        self.context.run = recorded  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        del self.context.run


def line_of(model: Model, n_tokens: int, seed: int) -> str:
    """A line that is exactly so many tokens long, its end included."""
    text = f"AAPL close 1{seed % 90 + 10}.5 volume "
    while len(model.tokens(text + "\n")) < n_tokens:
        text += str(seed % 10)
        seed = seed * 7 + 3
    assert len(model.tokens(text + "\n")) == n_tokens, text
    return text


async def main() -> None:
    say = lambda text: print(text, file=sys.stderr)  # noqa: E731
    path = fastest_form(find_packaged_model(), progress=say)
    settings = EngineSettings(model_path=path)
    engine = Engine(settings)
    engine.start()
    model = engine._open_sessions().model
    prefix = await engine.open("bench", SPEC)
    history = []
    n = prefix
    while n < HISTORY_TOKENS:
        size = min(UPDATE_TOKENS, HISTORY_TOKENS - n)
        if HISTORY_TOKENS - n - size < 25:
            size = HISTORY_TOKENS - n
        history.append(line_of(model, size, len(history)))
        n += size
    await engine.update("bench", history, ())
    session = engine._open_sessions()["bench"]
    bare = Bare(Context(model, engine.settings, settings.context_tokens))
    bare.feed(list(session.tokens), 0)

    asked = [model.tokens(query.query) + model.tail for query in CHOICES]
    question = [token for tokens in asked for token in tokens]
    first = line_of(model, UPDATE_TOKENS, 900)
    await engine.update("bench", (), CHOICES)  # tokenises the questions

    with Recorder(session.group.context) as recorder:
        before = list(session.tokens)
        await engine.update("bench", [first], CHOICES)
    new = list(model.tokens(first + "\n"))
    scratch_s, differences, equal, near_ties = 0.0, [], True, 0
    fresh = Bare(Context(model, engine.settings, settings.context_tokens))
    for tokens, row in zip(asked, recorder.rows, strict=True):
        fresh.cut(0)
        scratch_s += fresh.feed([*before, *new, *tokens], 0)
        reference = fresh.last_row(model.n_vocab)
        differences.append(float(np.abs(reference - row).max()))
        best, second = np.sort(reference)[-2:][::-1]
        if best - second <= NEAR_TIE:
            near_ties += 1
        elif reference.argmax() != row.argmax():
            equal = False
    fresh.context.free()

    bare.feed(new, len(before))
    single, ideal, free, free_ideal = [], [], [], []
    python = []
    for number in range(ROUNDS):
        line = line_of(model, UPDATE_TOKENS, number)
        new = list(model.tokens(line + "\n"))
        position = len(session.tokens)
        ideal.append(bare.decode([*new, *question], position, len(CHOICES)))
        bare.cut(position + len(new))
        started = time.perf_counter()
        update = await engine.update("bench", [line], CHOICES)
        single.append(time.perf_counter() - started)
        python.append(single[-1] - update.decode_s)
        assert update.decodes == 1, update
    ends, model.ends = model.ends, frozenset()  # no answer ends before its 16 tokens
    for number in range(FREE_ROUNDS):
        line = line_of(model, UPDATE_TOKENS, 100 + number)
        new = list(model.tokens(line + "\n"))
        position = len(session.tokens)
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
    model.ends = ends
    bare.context.free()
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
