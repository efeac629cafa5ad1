"""What is said over a session's data, and without any: generations, chats, scores, vectors.

Nothing here changes a session but a generation that is to stay, which goes through the
session's history as everything does.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Final, Literal

import msgspec

from flashfeed.engine import Engine
from flashfeed.models.chat import ChatRequest
from flashfeed.models.config import Config
from flashfeed.models.errors import (
    ModelRefused,
    RequestError,
    SessionBusy,
    SessionFailed,
    SessionUnknown,
    Unavailable,
)
from flashfeed.models.generation import GeneratedPiece, GenerateOptions, PlainPrompt
from flashfeed.models.messages import Append
from flashfeed.models.session import Answer, FlashQuery
from flashfeed.models.views import Embeddings, SessionView, Warmed

from .embedding_models import embedding_models
from .history import History
from .metrics import Metrics
from .session_owner import SessionOwner
from .warm_turns import WarmTurns

ENDED_REASONS: Final = ("stop", "length", "tool_calls")
KEPT_REASONS: Final = ("stop", "length")  # a generation that was cancelled leaves nothing


class Talks:
    """A worker's generations."""

    def __init__(self, config: Config, engine: Engine, history: History, metrics: Metrics) -> None:
        self._config = config
        self._engine = engine
        self._history = history
        self._metrics = metrics
        self._warm = WarmTurns()
        self._generating: defaultdict[str, int] = defaultdict(int)

    def generating(self, session_id: str) -> bool:
        """Whether a generation over the session is under way."""
        return session_id in self._generating

    async def generate(
        self, find: Callable[[], SessionOwner], asked: str | ChatRequest, options: GenerateOptions
    ) -> AsyncGenerator[GeneratedPiece]:
        """Generate over the data of the session that `find` finds, in a fork; what is to
        stay comes back through the session's history as an append."""
        owner = find()
        session_id = owner.session_id
        _check_takes(owner, asked, options)
        self._warm.take_over(session_id)
        self._generating[session_id] += 1
        pieces = self._engine.generate(session_id, asked, options)
        clock = TokenClock(self._metrics)
        tokens = 0
        texts: list[str] = []
        try:
            with placed(owner):
                async for piece in pieces:
                    clock.count(piece.n_tokens)
                    tokens = piece.n_tokens
                    texts.append(piece.text)
                    owner.turns += piece.finish_reason in ENDED_REASONS
                    ended = piece.finish_reason in KEPT_REASONS
                    if ended and any(texts) and not options.clear_after:
                        assert isinstance(asked, str)  # or it was refused
                        kept = Append.of_generation(asked, "".join(texts))
                        await self._history.apply(session_id, kept)
                    yield piece
        finally:
            await pieces.aclose()
            owner.last_used_ms = int(time.time() * 1000)
            self._metrics.generated(tokens)
            self._generating[session_id] -= 1
            if not self._generating[session_id]:
                del self._generating[session_id]

    async def warm(
        self,
        owner: SessionOwner,
        asked: ChatRequest,
        view_of: Callable[[SessionOwner], SessionView],
    ) -> Warmed:
        """Decode a conversation over the session's data ahead of its next turn."""
        session_id = owner.session_id
        if session_id in self._generating:
            raise SessionBusy(f"session {session_id} is answering; warm it when that has ended")
        before = view_of(owner)
        with placed(owner):
            length = before.n_tokens + await self._engine.count_turn(session_id, asked)
            one_token = GenerateOptions(max_tokens=1)
            pieces = self._engine.generate(session_id, asked, one_token)
            last = await self._warm.run(session_id, pieces)
        view = view_of(owner)
        if last is None or last.finish_reason == "cancelled":
            return Warmed("cancelled", length, before.n_tokens, view)
        # The last token of a prompt is always decoded: its logits are asked for.
        covered = last.cached_tokens >= last.prompt_tokens - 1
        reason: Literal["warmed", "covered"] = "covered" if covered else "warmed"
        return Warmed(reason, last.prompt_tokens, last.cached_tokens, view)

    async def chat_of(
        self, tenant: str, asked: PlainPrompt, options: GenerateOptions, model: str
    ) -> AsyncGenerator[GeneratedPiece]:
        """A chat of one tenant; its KV is shared with no other."""
        clock = TokenClock(self._metrics)
        tokens = 0
        try:
            async with aclosing(
                self._engine.chat(asked, options, tenant, self._reference(model))
            ) as pieces:
                async for piece in pieces:
                    clock.count(piece.n_tokens)
                    tokens = piece.n_tokens
                    yield piece
        finally:
            self._metrics.generated(tokens)

    async def count_prompt(self, asked: PlainPrompt, model: str = "") -> int:
        """How many tokens `chat` would read of it."""
        return await self._engine.count_prompt(asked, self._reference(model))

    async def embed(self, tenant: str, texts: Sequence[str], model: str = "") -> Embeddings:
        """Texts of one tenant as vectors."""
        known = await asyncio.to_thread(embedding_models, self._config)
        named = model or next(iter(known), "")
        try:
            rows, n_tokens = await self._engine.embed(texts, self._reference(named), tenant)
        except ModelRefused as refused:
            names = ", ".join(known) or "none; give one a [model.NAME] table"
            raise ModelRefused(f"{refused}; configured for embeddings: {names}") from refused
        vectors = tuple(tuple(row) for row in rows.tolist())
        return Embeddings(named or self._engine.model_name, vectors, n_tokens)

    async def answer(
        self, owner: SessionOwner, prompt: str, choices: Sequence[str], gap_threshold: float = 0.0
    ) -> Answer | None:
        """Score the choices over the session's data; None where none is clearly ahead."""
        asked = {"query": prompt, "choices": list(choices), "calibrate": False}
        try:
            query = msgspec.convert(asked, FlashQuery)
        except msgspec.ValidationError as error:
            raise RequestError(f"prompt and choices: {error}") from None
        if not query.choices:
            raise RequestError("choices: expected 2 or more, got none")
        with placed(owner):
            update = await self._engine.update(owner.session_id, (), [query])
        if owner.state is not None:
            self._metrics.asked(owner.state.head.spec, owner.feed, update)
        [answer] = update.answers
        return answer if answer.logit_gap >= gap_threshold else None

    def _reference(self, model: str) -> str:
        """A model's name as the engine takes it: the default one has none."""
        return "" if model in (self._engine.model_name, self._config.engine.model) else model


class TokenClock:
    """Times a generation's tokens, from the call on."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._last_s = time.perf_counter()
        self._tokens = 0

    def count(self, tokens: int) -> None:
        """So many tokens are written now."""
        if tokens <= self._tokens:
            return
        now = time.perf_counter()
        note = self._metrics.next_token if self._tokens else self._metrics.first_token
        note(now - self._last_s)
        self._last_s, self._tokens = now, tokens


@contextmanager
def placed(owner: SessionOwner) -> Iterator[None]:
    """Where the engine does not know a session that is ours, says why."""
    try:
        yield
    except SessionUnknown as unknown:
        if owner.state is None:
            raise
        if failed := owner.state.head.failed:
            raise SessionFailed(f"session {owner.session_id} failed: {failed}") from unknown
        raise Unavailable(
            f"session {owner.session_id} is being opened: it may wait for room, or for its model"
        ) from unknown


def _check_takes(owner: SessionOwner, asked: str | ChatRequest, options: GenerateOptions) -> None:
    """A generation that is to stay needs a session that takes items: said at once,
    not when the text is written."""
    if not options.clear_after and not isinstance(asked, str):
        raise RequestError(
            "clear_after: a chat cannot stay in the session's window; ask with a prompt"
        )
    failed = owner.state.head.failed if owner.state is not None else ""
    if failed and not options.clear_after:
        raise SessionFailed(f"session {owner.session_id} keeps nothing more: {failed}")
