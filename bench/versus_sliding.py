"""Sliding windows against llama-server, and what two generations cost.

Ours is `exact`: 1 to 2 windows of N items, one and a half in the mean. The server's window
is as long as our mean and drops as many candles as come, so that its cache holds nothing
of the new prompt but the prefix; with cache-reuse it shifts the rest, approximately.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import median

import numpy as np
from bare import Bare, DecodeMeter
from llama_server import LlamaServer
from numpy.typing import NDArray
from rig import Report, Rig, ms, ratio, say, settle, timed
from server_setup import MEASURED_UPDATE, questions
from versus_append import UPDATES
from work import (
    CANDLE_TOKENS,
    CHOICES,
    candles,
    line_tokens,
    prefix_tokens,
    question_tokens,
    session_spec,
)

from flashfeed.engine import Engine
from flashfeed.engine.score import log_normaliser
from flashfeed.models.session import WindowSpec
from flashfeed.models.window import junior_start, window_start

MEAN_HISTORY, OTHER_HISTORIES = 2000, (500, 4000)
"""Tokens of a window in the mean: what the figures are of, and what is reported beside them."""
SESSIONS, OTHER_SESSIONS = 8, 3
ROOM = 256
REUSE_TOKENS = 64
REUSED_UPDATES = 10
ROUNDS = 3
"""Updates of each session that `exact_cost` is the median of: 8 were too few on a noisy machine."""


@dataclass
class Cell:
    """Seconds by side, for one size of update. `device` is llama_decode's share of ours;
    `ideal` is of both generations, `answering` of the senior's pass alone."""

    answering: list[float] = field(default_factory=list)
    ideal: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    with_junior: list[float] = field(default_factory=list)
    device: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)


class Sides:
    """The same sessions on every side; the bare one has a context for each generation."""

    def __init__(self, rig: Rig, engine: Engine, server: LlamaServer | None, mean: int) -> None:
        self.rig, self.engine, self.server = rig, engine, server
        self.prefix = prefix_tokens(rig.model)
        self.window = window_of(rig, mean)
        self.held: list[list[str]] = []
        self.lines = candles(rig.model, 5)

    async def open(self, n_sessions: int) -> None:
        """Opens sessions spread over the window's cycle: their mean is that of a life."""
        items = self.window.items
        for number in range(n_sessions):
            count = items + round(items * (number + 0.5) / n_sessions)
            held = list(islice(self.lines, count))
            self.held.append(held)
            await self.engine.open(f"s{number}", session_spec(self.window))
            for at in range(0, count, items):
                await self.engine.update(f"s{number}", held[at : at + items], ())

    def position(self, items: int) -> int:
        """Where the next token goes after so many items."""
        return len(self.prefix) + items * CANDLE_TOKENS

    def server_prompt(self, number: int) -> list[int]:
        """The server's window: the last items, as many as we hold in the mean."""
        last = self.held[number][-round(1.5 * self.window.items) :]
        return [*self.prefix, *line_tokens(self.rig.model, last)]

    async def update(
        self, number: int, size: int, cell: Cell, bares: tuple[Bare, Bare], meter: DecodeMeter
    ) -> None:
        """One update, bare and ours."""
        new, count = list(islice(self.lines, size)), len(self.held[number])
        tokens, (senior, junior) = line_tokens(self.rig.model, new), bares
        at = self.position(count - window_start(self.window, count))
        await settle(meter)
        senior.hold(at, self.rig.filler)
        ideal = senior.decode([*tokens, *self.rig.questions], at, len(CHOICES))
        cell.answering.append(ideal)
        if (begun := junior_start(self.window, count)) is not None:
            at = self.position(count - begun)
            junior.hold(at, self.rig.filler)
            ideal += junior.decode(tokens, at, 0)
        cell.ideal.append(ideal)
        await settle(meter)
        meter.take()
        began = time.perf_counter()
        seconds, _ = await timed(self.engine, f"s{number}", new)
        await settle(meter)
        decodes = meter.take()
        cell.ours.append(seconds)
        cell.with_junior.append(decodes[-1].began + decodes[-1].seconds - began)
        cell.device.append(sum(one.seconds for one in decodes))
        self.held[number] += new

    def ask_server(self, number: int, reuse: int = 0) -> float:
        """Seconds of llama-server for the session as it is now."""
        assert self.server
        prompt, asked = self.server_prompt(number), questions(self.rig)
        began = time.perf_counter()
        if self.rig.in_one_request and not reuse:
            self.server.ask_in_one(number, prompt, asked)
        else:
            self.server.ask(number, prompt, asked, reuse)
        return time.perf_counter() - began


def window_of(rig: Rig, mean: int) -> WindowSpec:
    """The exact window whose mean length, one and a half times N, is so many tokens."""
    items = round((mean - len(prefix_tokens(rig.model))) / CANDLE_TOKENS / 1.5)
    return WindowSpec(mode="exact", items=items)


async def sliding(rig: Rig) -> Report:
    """`server_over_us_sliding`, `exact_cost`, and cache-reuse with its error beside them; and
    an update of 3 candles in shorter and longer windows, once for each of a few sessions."""
    report = Report()
    if rig.quick:
        await _measure(rig, report, 500, OTHER_SESSIONS)
        return report
    await _measure(rig, report, MEAN_HISTORY, SESSIONS)
    for mean in OTHER_HISTORIES:
        await _measure_other(rig, report, mean)
    return report


async def _measure(rig: Rig, report: Report, mean: int, n_sessions: int) -> None:
    async with _sides(rig, mean, n_sessions) as (sides, bares, meter):
        for size in UPDATES:
            # The server's seconds do not depend on the size: all of its window is new.
            rounds = ROUNDS if size == MEASURED_UPDATE else 1
            cell = await _cell(sides, size, rounds, bares, meter)
            _report_rows(report, mean, size, cell)
            _report_figures(report, size, cell)
            if sides.server and size == MEASURED_UPDATE:
                _report_reuse(report, sides, bares[0], median(cell.ours))


async def _measure_other(rig: Rig, report: Report, mean: int) -> None:
    async with _sides(rig, mean, OTHER_SESSIONS) as (sides, bares, meter):
        cell = await _cell(sides, MEASURED_UPDATE, 1, bares, meter)
        _report_rows(report, mean, MEASURED_UPDATE, cell)
        report.figures[f"exact_cost_{mean}_tokens"] = ratio(cell.device, cell.ideal)
        if cell.server:
            name = f"server_over_us_sliding_{mean}_tokens"
            report.figures[name] = ratio(cell.server, cell.ours)


async def _cell(
    sides: Sides, size: int, rounds: int, bares: tuple[Bare, Bare], meter: DecodeMeter
) -> Cell:
    cell = Cell()
    for turn in range(rounds):
        for number in range(len(sides.held)):
            await sides.update(number, size, cell, bares, meter)
            if sides.server and size == MEASURED_UPDATE and not turn:
                cell.server.append(sides.ask_server(number))
    return cell


@contextlib.asynccontextmanager
async def _sides(
    rig: Rig, mean: int, n_sessions: int
) -> AsyncIterator[tuple[Sides, tuple[Bare, Bare], DecodeMeter]]:
    window = window_of(rig, mean)
    cells = (2 * window.items + max(UPDATES)) * CANDLE_TOKENS + ROOM
    setup = rig.server and replace(rig.server, slots=n_sessions, context_tokens=cells)
    async with contextlib.AsyncExitStack() as stack:
        meter = stack.enter_context(DecodeMeter())
        bares = stack.enter_context(rig.bare(cells)), stack.enter_context(rig.bare(cells))
        engine = await stack.enter_async_context(rig.engine(context_tokens=cells))
        server = stack.enter_context(LlamaServer(setup)) if setup else None
        sides = Sides(rig, engine, server, mean)
        say(f"  {n_sessions} sessions of {mean} tokens in the mean, window {window.items} items")
        await sides.open(n_sessions)
        yield sides, bares, meter


def _report_rows(report: Report, mean: int, size: int, cell: Cell) -> None:
    name = f"exact, mean {mean} tokens, {size} candles"
    report.rows.append((name, ms(cell.answering), ms(cell.ours), ms(cell.server)))
    both = ("  to the end of the junior's copy", ms(cell.ideal), ms(cell.with_junior), "")
    report.rows.append(both)


def _report_figures(report: Report, size: int, cell: Cell) -> None:
    report.figures[f"exact_cost_{size}"] = ratio(cell.device, cell.ideal)
    if size == MEASURED_UPDATE:
        report.figures["exact_cost"] = ratio(cell.device, cell.ideal)
        report.figures["us_over_ideal_sliding"] = ratio(cell.ours, cell.answering)
        if n := len(cell.server):
            report.figures["server_over_us_sliding"] = ratio(cell.server, cell.ours[:n])
            report.figures["server_over_us_sliding_with_junior"] = ratio(
                cell.server, cell.with_junior[:n]
            )


def _report_reuse(report: Report, sides: Sides, bare: Bare, ours: float) -> None:
    """The server with cache-reuse on session 0, and its error against a fresh context.

    The error is the largest difference of a token's log-probability over the vocabulary.
    """
    assert sides.server
    n_vocab, seconds, errors, plain = sides.rig.model.n_vocab, [], [], 0.0
    question = question_tokens(sides.rig.model)[0]
    for number in range(1, REUSED_UPDATES + 1):
        # The prompts alone slide on: the engine's session stays where it is.
        sides.held[0] += islice(sides.lines, MEASURED_UPDATE)
        seconds.append(sides.ask_server(0, REUSE_TOKENS))
        if number not in (1, REUSED_UPDATES):
            continue
        tokens = [*sides.server_prompt(0), *question]
        bare.cut(0)
        bare.feed(tokens, 0)
        fresh = bare.last_row(n_vocab)
        fresh = fresh - log_normaliser(fresh)
        reused = sides.server.log_probabilities(0, tokens, n_vocab, REUSE_TOKENS)
        errors.append(_difference(reused, fresh))
        sides.server.feed(1, tokens[:1])
        plain = _difference(sides.server.log_probabilities(1, tokens, n_vocab), fresh)
    report.rows.append(("  llama-server with cache-reuse", "", "", ms(seconds)))
    report.figures["server_reuse_over_us_sliding"] = median(seconds) / ours
    report.figures["server_reuse_logit_error"] = max(errors)
    report.figures["server_reuse_logit_error_first"] = errors[0]
    report.figures["server_logit_error"] = plain


def _difference(found: dict[int, float], row: NDArray[np.float32]) -> float:
    return max(abs(value - float(row[token])) for token, value in found.items())
