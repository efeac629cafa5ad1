"""The engine against itself and the bare passes: free answers, saturation, growth, eviction."""

from __future__ import annotations

import asyncio
import tempfile
import time
from itertools import islice, pairwise
from pathlib import Path
from statistics import median

from bare import DecodeMeter
from rig import QUIET_S, Report, Rig, endless_answers, ms, ratio, say, settle, timed
from work import (
    CANDLE_TOKENS,
    CHOICES,
    FREE,
    FREE_TOKENS,
    GROW,
    READING_TOKENS,
    candles,
    line_tokens,
    question_tokens,
    readings,
    session_spec,
)

from flashfeed.engine import Engine
from flashfeed.models.generation import GenerateOptions
from flashfeed.models.session import WindowSpec

GROWTH_ITEMS = 32


async def filled(engine: Engine, rig: Rig, session: str, n_tokens: int, seed: int = 0) -> int:
    """A session that grew to this history; how many tokens it holds."""
    held = await engine.open(session, session_spec(GROW))
    lines = islice(candles(rig.model, seed), (n_tokens - held) // CANDLE_TOKENS)
    return (await engine.update(session, list(lines), ())).n_tokens


async def free_answers(rig: Rig) -> Report:
    """`free_over_ideal`: 4 questions of 16 tokens, over one pass and 15 batched steps."""
    history, rounds = (500, 3) if rig.quick else (2000, 6)
    ideal, ours = [], []
    lines = candles(rig.model, 11)
    with endless_answers(), DecodeMeter() as meter, rig.bare(history + 1024) as bare:
        async with rig.engine(context_tokens=history + 1024) as engine:
            held = await filled(engine, rig, "free", history)
            for _ in range(rounds):
                new = list(islice(lines, 3))
                tokens = line_tokens(rig.model, new)
                bare.hold(held, rig.filler)
                await settle(meter)
                seconds = bare.decode([*tokens, *rig.questions], held, len(FREE))
                at = held + len(tokens) + len(question_tokens(rig.model)[0])
                bare.cut(at)
                bare.fork(len(FREE))
                for step in range(FREE_TOKENS - 1):
                    seconds += bare.step(tokens[: len(FREE)], at + step)
                bare.drop(len(FREE))
                ideal.append(seconds)
                await settle(meter)
                spent, update = await timed(engine, "free", new, FREE)
                held += len(tokens)
                assert update.generated_tokens == FREE_TOKENS * len(FREE), update
                ours.append(spent)
    return Report(
        figures={"free_over_ideal": ratio(ours, ideal)},
        rows=[(f"4 free answers of 16, {history} tokens", ms(ideal), ms(ours), "")],
    )


async def saturated(rig: Rig) -> Report:
    """`tokens_over_raw_prefill`: long appends to eight sessions at once, over the same
    batch sizes at the same positions; and over raw batches as large as they may be."""
    n_sessions, n_lines, rounds = (4, 20, 2) if rig.quick else (8, 36, 2)
    lines = candles(rig.model, 23)
    report = Report()
    same, largest, rates = [], [], []
    cells = rounds * n_lines * CANDLE_TOKENS + 512
    with DecodeMeter() as meter, rig.bare(cells) as bare:
        async with rig.engine(context_tokens=cells) as engine:
            for number in range(n_sessions):
                await engine.open(f"s{number}", session_spec(GROW))
                await engine.update(f"s{number}", list(islice(lines, 1)), ())
            for _ in range(rounds):
                work = [list(islice(lines, n_lines)) for _ in range(n_sessions)]
                await settle(meter)
                meter.take()
                began = time.perf_counter()
                await asyncio.gather(
                    *(engine.update(f"s{i}", new, ()) for i, new in enumerate(work))
                )
                ours = time.perf_counter() - began
                decodes = sorted(meter.take(), key=lambda one: one.position)
                n_tokens = n_sessions * n_lines * CANDLE_TOKENS
                assert sum(one.n_tokens for one in decodes) >= n_tokens, decodes
                await settle(meter)
                raw = 0.0
                for one in decodes:
                    bare.hold(one.position, rig.filler)
                    raw += bare.decode([rig.filler] * one.n_tokens, one.position, 0)
                start = decodes[0].position
                bare.hold(start, rig.filler)
                each = bare.feed([rig.filler] * (n_lines * CANDLE_TOKENS), start)
                same.append(raw / ours)
                largest.append(n_sessions * each / ours)
                rates.append(n_tokens / ours)
                report.rows.append(
                    (f"{n_sessions} appends of {n_tokens // n_sessions}", ms([raw]), ms([ours]), "")
                )
    report.figures = {
        "tokens_over_raw_prefill": median(same),
        "tokens_over_raw_largest_batch": median(largest),
        "tokens_per_second": median(rates),
    }
    return report


async def growth(rig: Rig) -> Report:
    """`growth`: single readings after 10,000 of them (on a GPU 100,000), over those after
    500; window 32.

    An old and a young session at the same place of the window's cycle take turns, for
    two cycles.
    """
    push = 250
    window = WindowSpec(mode="exact", items=GROWTH_ITEMS)
    lines = readings(rig.model)
    young, old = [], []
    with DecodeMeter() as meter:
        async with rig.engine(context_tokens=4096) as engine:
            long = 100_000 if engine.settings.on_gpu else 10_000  # a CPU takes too long for more
            old_count = 2000 if rig.quick else long
            young_count = 500 + (old_count - 500) % GROWTH_ITEMS
            for name, count in (("young", young_count), ("old", old_count)):
                await engine.open(name, session_spec(window))
                for at in range(0, count, push):
                    say(f"  {name}: {at} readings") if at % 2500 == 0 else None
                    await engine.update(name, list(islice(lines, min(push, count - at))), ())
            for _ in range(GROWTH_ITEMS if rig.quick else 2 * GROWTH_ITEMS):
                new = list(islice(lines, 1))
                for name, seconds in (("young", young), ("old", old)):
                    await settle(meter)
                    seconds.append((await timed(engine, name, new))[0])
    return Report(
        figures={"growth": ratio(old, young), "growth_worst_over_median": max(old) / median(old)},
        rows=[
            (f"a reading of {READING_TOKENS} tokens, after {young_count}", "", ms(young), ""),
            (f"a reading of {READING_TOKENS} tokens, after {old_count}", "", ms(old), ""),
        ],
    )


async def many_sessions(rig: Rig) -> Report:
    """`sessions_growth`: an update at 32 sessions over one at 1; one at a time, and all at
    once (seconds over their number); the worse of the two counts."""
    n_sessions, history, rounds = (8, 150, 2) if rig.quick else (32, 300, 3)
    lines = candles(rig.model, 31)
    lone, among, at_once, lone_then = [], [], [], []
    with DecodeMeter() as meter:
        async with (
            rig.engine(context_tokens=1024) as one,
            rig.engine(context_tokens=1024) as many,
        ):
            await filled(one, rig, "lone", history)
            for number in range(n_sessions):
                await filled(many, rig, f"s{number}", history, number + 1)
            for _ in range(rounds):
                for number in range(0, n_sessions, 4):
                    new = list(islice(lines, 1))
                    await settle(meter)
                    lone.append((await timed(one, "lone", new))[0])
                    await settle(meter)
                    among.append((await timed(many, f"s{number}", new))[0])
                new = list(islice(lines, 1))
                await settle(meter)
                lone_then.append((await timed(one, "lone", new))[0])
                await settle(meter)
                began = time.perf_counter()
                await asyncio.gather(
                    *(many.update(f"s{i}", new, CHOICES) for i in range(n_sessions))
                )
                at_once.append((time.perf_counter() - began) / n_sessions)
    turns, together = ratio(among, lone), ratio(at_once, lone_then)
    return Report(
        figures={
            "sessions_growth": max(turns, together),
            "sessions_growth_in_turn": turns,
            "sessions_growth_at_once": together,
        },
        rows=[
            ("an update, 1 session", "", ms(lone), ""),
            (f"an update, {n_sessions} sessions, in turn", "", ms(among), ""),
            (f"an update, {n_sessions} sessions, at once", "", ms(at_once), ""),
        ],
    )


async def restore(rig: Rig) -> Report:
    """`restore_over_prefill`: decoding a history over bringing it back from a snapshot."""
    history, rounds = (1000, 2) if rig.quick else (4000, 3)
    prefill, back = [], []
    cells = history + 512
    with (
        tempfile.TemporaryDirectory(prefix="flashfeed-bench-") as folder,
        DecodeMeter() as meter,
        rig.bare(cells) as bare,
    ):
        async with rig.engine(context_tokens=cells, snapshots=Path(folder)) as engine:
            held = await filled(engine, rig, "restored", history)
            await timed(engine, "restored", (), CHOICES[:1])
            for _ in range(rounds):
                await settle(meter)
                warm, _ = await timed(engine, "restored", (), CHOICES[:1])
                await engine.evict("restored")
                await settle(meter)
                meter.take()
                cold, _ = await timed(engine, "restored", (), CHOICES[:1])
                decoded = sum(one.n_tokens for one in meter.take())
                assert decoded < history / 2, f"rebuilt: {decoded} tokens decoded"
                # The question is answered both times: what is left is the restoring.
                back.append(max(cold - warm, 1e-4))
                await asyncio.sleep(QUIET_S)
                if len(prefill) < 2:
                    bare.cut(0)
                    prefill.append(bare.feed([rig.filler] * held, 0))
    return Report(
        figures={"restore_over_prefill": median(prefill) / median(back)},
        rows=[(f"restore of {held} tokens, against decoding", ms(prefill), ms(back), "")],
    )


async def foreground(rig: Rig) -> Report:
    """`foreground_wait`: p99 of the time between two tokens while all sessions ingest,
    over the same while none does."""
    n_sessions, n_tokens, rounds = (4, 40, 1) if rig.quick else (8, 120, 3)
    lines = candles(rig.model, 41)
    idle, busy = [], []
    ingested = 0

    async def gaps() -> list[float]:
        options = GenerateOptions(max_tokens=n_tokens)
        moments = []
        async for _ in engine.generate("s0", "What happened?", options):
            moments.append(time.perf_counter())
        assert len(moments) >= n_tokens, f"{len(moments)} pieces, expected {n_tokens}"
        return [b - a for a, b in pairwise(moments)]

    async def ingest(session: str, ended: asyncio.Event) -> None:
        nonlocal ingested
        while not ended.is_set():
            update = await engine.update(session, list(islice(lines, 20)), ())
            ingested += update.ingest_tokens

    with endless_answers(), DecodeMeter() as meter:
        async with rig.engine(context_tokens=6144) as engine:
            for number in range(n_sessions):
                await filled(engine, rig, f"s{number}", 300, number)
            for _ in range(rounds):
                await settle(meter)
                idle += await gaps()
                ended = asyncio.Event()
                began = time.perf_counter()
                load = [asyncio.create_task(ingest(f"s{i}", ended)) for i in range(n_sessions)]
                await asyncio.sleep(0.5)
                busy += await gaps()
                ended.set()
                await asyncio.gather(*load)
                say(f"  {ingested} tokens ingested in {time.perf_counter() - began:.1f} s")
                ingested = 0
    return Report(
        figures={
            "foreground_wait": p99(busy) / p99(idle),
            "foreground_wait_median": median(busy) / median(idle),
        },
        rows=[
            ("between two tokens, idle: median", "", ms(idle), ""),
            ("between two tokens, idle: p99", "", ms([p99(idle)]), ""),
            ("between two tokens, all ingesting: median", "", ms(busy), ""),
            ("between two tokens, all ingesting: p99", "", ms([p99(busy)]), ""),
        ],
    )


def p99(seconds: list[float]) -> float:
    """The 99th percentile, of the values themselves."""
    return sorted(seconds)[min(len(seconds) - 1, round(0.99 * len(seconds)))]
