"""An engine beside a plain model of what its sessions hold: each operation does to the
model what it says it did to the session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import llama_cpp.llama_cpp as C
import pytest

from flashfeed.engine import Engine, EngineSettings
from flashfeed.engine.model import Model
from flashfeed.engine.sessions import Session
from flashfeed.models.chat import ChatRequest
from flashfeed.models.errors import ContextFull
from flashfeed.models.generation import GeneratedPiece, GenerateOptions
from flashfeed.models.session import FlashQuery, SessionSpec
from flashfeed.models.window import window_start

from . import asked
from .conftest import Fresh, Recorder, expect_agrees, seat_of


@dataclass
class Mirror:
    """What a session must hold: its frozen lines, then the items of its window."""

    spec: SessionSpec
    frozen: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)

    @property
    def start(self) -> int:
        """The first item of its window."""
        return window_start(self.spec.window, len(self.items))


class Mirrored:
    """The engine, its open sessions' mirrors, and those that were closed last (`left`)."""

    def __init__(self, settings: EngineSettings) -> None:
        self.engine: Final = Engine(settings)
        self.engine.start()
        self.model: Final[Model] = self.engine._open_sessions().model
        self.mirrors: Final[dict[str, Mirror]] = {}
        self.left: Final[dict[str, Mirror]] = {}
        vocab = self.model._vocab
        self._special: Final = frozenset(
            token for token in range(self.model.n_vocab) if C.llama_vocab_is_control(vocab, token)
        )
        self._fresh: Final = Fresh(self.model, self.engine.settings)

    async def stop(self) -> None:
        """Ends the engine."""
        self._fresh.context.free()
        await self.engine.stop()

    # -- operations -----------------------------------------------------------------

    async def open(
        self, name: str, spec: SessionSpec, frozen: list[str], items: list[str], count: int
    ) -> None:
        """`items` are the last of `count` that were ever applied."""
        await self.engine.open(name, spec, items, count, frozen)
        forgotten = ["?"] * (count - len(items))
        self.mirrors[name] = Mirror(spec, list(frozen), forgotten + items)

    async def update(
        self, name: str, lines: list[str], queries: list[FlashQuery], rewind: int = 0
    ) -> None:
        """Lines, in place of the last `rewind` ones, and questions; every question has its
        answer."""
        lines = [asked.whole(line) for line in lines]
        update = await self.engine.update(name, lines, queries, rewind=rewind)
        items = self.mirrors[name].items
        items[len(items) - rewind :] = lines
        assert [answer.query_id for answer in update.answers] == [one.id for one in queries]
        for answer, query in zip(update.answers, queries, strict=True):
            assert 0 <= answer.confidence <= 1
            assert not query.choices or answer.value in query.choices

    async def generate(
        self, name: str, prompt: str | ChatRequest, options: GenerateOptions, pieces_max: int
    ) -> None:
        """Reads a generation to its end, or stops reading after `pieces_max`."""
        pieces: list[GeneratedPiece] = []
        prompt = asked.whole(prompt) if isinstance(prompt, str) else prompt
        running = self.engine.generate(name, prompt, options)
        try:
            async for piece in running:
                pieces.append(piece)
                if len(pieces) >= pieces_max:
                    return
        finally:
            await running.aclose()
        assert [one.finish_reason for one in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert pieces[-1].finish_reason is not None
        assert pieces[-1].n_tokens <= options.max_tokens

    async def mark_prefix(self, name: str) -> None:
        """What it holds is frozen; its items count from 0 again."""
        mirror = self.mirrors[name]
        start = self._start(name)
        await self.engine.mark_prefix(name)
        mirror.frozen += mirror.items[start:]
        mirror.items = []

    async def close(self, name: str, forget: bool) -> None:
        """It can be opened again with the lines that it leaves."""
        await self.engine.close(name, forget=forget)
        self.left[name] = self.mirrors.pop(name)

    # -- what must be true ----------------------------------------------------------

    async def expect_mirrored(self) -> None:
        """Every session holds exactly its lines, none of whose tokens is a special one."""
        assert {session.id for session in self.engine._open_sessions()} == set(self.mirrors)
        for name, mirror in self.mirrors.items():
            session = self._session(name)
            assert session.count == len(mirror.items), name
            assert session.prefix == self._prefix(mirror), name
            held = session.tokens(self._start(name), session.count)
            assert held == self._tokens(mirror.items[self._start(name) :]), name
            assert not self._special.intersection(held)
            inspected = await self.engine.inspect(name)
            assert inspected.text == self.model.text(session.prefix + held)
            assert inspected.n_tokens == len(session.prefix) + len(held)

    async def expect_fresh(self) -> int:
        """Every session's next logits are a fresh context's (inv. 5), where its window is
        not an approximate one; how many were compared."""
        compared = 0
        for name, mirror in self.mirrors.items():
            if mirror.spec.window.mode == "shift":
                continue
            try:
                await self.engine.update(name, (), (asked.YES,))  # it is resident now
            except ContextFull:
                continue
            patch = pytest.MonkeyPatch()
            recorder = Recorder(seat_of(self.engine, name).group.context, patch)
            await self.engine.update(name, (), (asked.YES,))
            patch.undo()
            held = self._prefix(mirror) + self._tokens(mirror.items[mirror.start :])
            question = self.model.tokens(asked.YES.query) + self.model.tail
            expect_agrees(self._fresh.row(held + question), recorder.rows[0])
            compared += 1
        return compared

    def _session(self, name: str) -> Session:
        return self.engine._open_sessions()[name]

    def _start(self, name: str) -> int:
        session, mirror = self._session(name), self.mirrors[name]
        if mirror.spec.window.mode == "shift" and session.senior is not None:
            return session.senior.start  # what slid out before a failure is gone
        return mirror.start

    def _prefix(self, mirror: Mirror) -> tuple[int, ...]:
        model, prompt = self.model, mirror.spec.prompt
        written = model.tokens(prompt)
        assert not self._special.intersection(written)
        head, between = (model.chat.head, model.chat.between) if prompt else (model.chat.bare, "")
        opening = model.first_tokens + model.template_tokens(head) + written
        frozen = self._tokens(mirror.frozen)
        assert not self._special.intersection(frozen)
        return opening + model.template_tokens(between) + frozen

    def _tokens(self, lines: list[str]) -> tuple[int, ...]:
        return tuple(
            token for line in lines for token in self.model.tokens(line.removesuffix("\n") + "\n")
        )
