"""Append-only sessions against llama-server, starting over, and the bare pass.

Eight sessions, updates of 1, 3 and 10 candles at histories of 500, 2,000 and 4,000 tokens.
For each update the sides take turns: one bare llama_decode of as many tokens at the
same position, Engine.update(), llama-server. All of them then hold the same tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import median

from bare import Bare, DecodeMeter
from llama_server import LlamaServer
from rig import QUIET_S, Report, Rig, ms, ratio, say, settle, timed
from server_setup import MEASURED_UPDATE, questions
from work import (
    CANDLE_TOKENS,
    CHOICES,
    GROW,
    candles,
    line_tokens,
    prefix_tokens,
    question_tokens,
    session_spec,
)

from flashfeed.engine import Engine, Update

HISTORIES = (500, 2000, 4000)
UPDATES = (1, 3, 10)
ROOM = 1024
BURSTS = 3
MAIN_HISTORY = BURST_HISTORY = 2000


@dataclass
class Cell:
    """Seconds by side, for one history and size of update."""

    ideal: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)


class Sides:
    """The same sessions on every side."""

    def __init__(
        self,
        rig: Rig,
        engine: Engine,
        server: LlamaServer | None,
        best: LlamaServer | None,
        bare: Bare,
    ) -> None:
        self.rig, self.engine, self.bare = rig, engine, bare
        self.server, self.best = server, best
        self.asked = questions(rig)
        self.held: list[list[int]] = []
        self.lines = candles(rig.model)
        self.answers = self.agreed = 0

    async def open(self, n_sessions: int) -> None:
        """Opens the sessions; checks that they begin as the server's prompts will."""
        prefix = prefix_tokens(self.rig.model)
        spec = session_spec(GROW)
        for number in range(n_sessions):
            n = await self.engine.open(f"s{number}", spec)
            assert n == len(prefix), f"a session begins with {n} tokens, expected {len(prefix)}"
            self.held.append(list(prefix))

    async def grow(self, n_tokens: int) -> None:
        """Brings every session to this history, on all sides."""
        for number, held in enumerate(self.held):
            lines = list(islice(self.lines, max(0, (n_tokens - len(held)) // CANDLE_TOKENS)))
            await self.engine.update(f"s{number}", lines, ())
            held.extend(line_tokens(self.rig.model, lines))
            for peer in (self.server, self.best):
                if peer:
                    peer.feed(number, held)

    async def update(self, number: int, size: int, cell: Cell, meter: DecodeMeter) -> None:
        """One update on every side in turn."""
        held, lines = self.held[number], list(islice(self.lines, size))
        new = line_tokens(self.rig.model, lines)
        self.bare.hold(len(held), self.rig.filler)
        await settle(meter)
        cell.ideal.append(self.bare.decode([*new, *self.rig.questions], len(held), len(CHOICES)))
        await settle(meter)
        seconds, update = await timed(self.engine, f"s{number}", lines)
        cell.ours.append(seconds)
        await settle(meter)
        held += new
        assert update.n_tokens == len(held), (update.n_tokens, len(held))
        for peer, spent in ((self.server, cell.server), (self.best, cell.best)):
            if peer is None or (peer is self.best and size != MEASURED_UPDATE):
                continue
            began = time.perf_counter()
            ask = peer.ask_in_one if self.rig.in_one_request else peer.ask
            found = ask(number, held, self.asked)
            spent.append(time.perf_counter() - began)
            self._compare(update, found)
            await asyncio.sleep(QUIET_S)

    def _compare(self, update: Update, found: list[dict[int, float]]) -> None:
        for answer, query, probabilities, tokens in zip(
            update.answers, CHOICES, found, self.rig.first_choices, strict=True
        ):
            best = max(tokens, key=lambda token: probabilities.get(token, 0.0))
            self.answers += 1
            self.agreed += query.choices[tokens.index(best)] == answer.value


async def append_only(rig: Rig) -> Report:
    """Every cell; `server_over_us`, `scratch_over_us` and `us_over_ideal` among them."""
    report = Report()
    histories = HISTORIES[:2] if rig.quick else HISTORIES
    n_sessions = 3 if rig.quick else 8
    cells = histories[-1] + ROOM
    setup = rig.server and replace(rig.server, slots=n_sessions, context_tokens=cells)
    async with contextlib.AsyncExitStack() as stack:
        meter = stack.enter_context(DecodeMeter())
        bare = stack.enter_context(rig.bare(cells))
        engine = await stack.enter_async_context(rig.engine(context_tokens=cells))
        server = stack.enter_context(LlamaServer(setup)) if setup else None
        best = rig.best and replace(rig.best, slots=n_sessions, context_tokens=cells)
        other = stack.enter_context(LlamaServer(best)) if best else None
        sides = Sides(rig, engine, server, other, bare)
        await sides.open(n_sessions)
        for history in histories:
            say(f"  {n_sessions} sessions of {history} tokens")
            await sides.grow(history)
            for size in UPDATES:
                cell = Cell()
                for number in range(n_sessions):
                    await sides.update(number, size, cell, meter)
                _report_cell(report, history, size, cell)
                if size == MEASURED_UPDATE:
                    await settle(meter)
                    _report_scratch(report, rig, bare, history, cell)
            if history == BURST_HISTORY and server:
                await _report_burst(report, sides, server)
    if sides.answers:
        report.figures["answers_equal_to_server"] = sides.agreed / sides.answers
    return report


def _report_cell(report: Report, history: int, size: int, cell: Cell) -> None:
    name = f"append, {history} tokens, {size} candles"
    report.rows.append((name, ms(cell.ideal), ms(cell.ours), ms(cell.server)))
    figures = {"us_over_ideal": ratio(cell.ours, cell.ideal)}
    if cell.server:
        figures["server_over_us"] = ratio(cell.server, cell.ours)
        figures["server_over_ideal"] = ratio(cell.server, cell.ideal)
    if cell.best:
        figures["best_server_over_us"] = ratio(cell.best, cell.ours)
        figures["best_server_over_ideal"] = ratio(cell.best, cell.ideal)
        report.rows.append((f"{name}: the server at its best", "", "", ms(cell.best)))
    for kind, value in figures.items():
        report.figures[f"{kind}_{history}_{size}"] = value
        if size == MEASURED_UPDATE:
            report.figures[kind if history == MAIN_HISTORY else f"{kind}_{history}"] = value


def _report_scratch(report: Report, rig: Rig, bare: Bare, history: int, cell: Cell) -> None:
    """Each question decodes everything again: one of the four is measured, times four."""
    asked = question_tokens(rig.model)[0]
    bare.cut(0)
    whole = history + MEASURED_UPDATE * CANDLE_TOKENS + len(asked)
    seconds = len(CHOICES) * bare.feed([rig.filler] * whole, 0)
    report.rows.append((f"from scratch, {history} tokens", "", ms(cell.ours), ms([seconds])))
    name = "scratch_over_us" if history == MAIN_HISTORY else f"scratch_over_us_{history}"
    report.figures[name] = seconds / median(cell.ours)


async def _report_burst(report: Report, sides: Sides, server: LlamaServer) -> None:
    """All sessions get an update at once: seconds until the last answer."""
    ours, theirs = [], []
    n = len(sides.held)
    ask = server.ask_in_one if sides.rig.in_one_request else server.ask
    for _ in range(BURSTS):
        lines = [list(islice(sides.lines, MEASURED_UPDATE)) for _ in range(n)]
        for held, new in zip(sides.held, lines, strict=True):
            held.extend(line_tokens(sides.rig.model, new))
        began = time.perf_counter()
        updates = (sides.engine.update(f"s{i}", lines[i], CHOICES) for i in range(n))
        await asyncio.gather(*updates)
        ours.append(time.perf_counter() - began)
        await asyncio.sleep(QUIET_S)
        began = time.perf_counter()
        with ThreadPoolExecutor(n) as pool:
            list(pool.map(lambda i: ask(i, sides.held[i], sides.asked), range(n)))
        theirs.append(time.perf_counter() - began)
        await asyncio.sleep(QUIET_S)
    report.rows.append((f"append, {n} updates at once", "", ms(ours), ms(theirs)))
    report.figures["server_over_us_burst"] = ratio(theirs, ours)
