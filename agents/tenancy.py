"""The session service as one tenant sees it.

Every id is turned into the tenant's session key on the way in and back on the way out
(models/tenant.py), so another tenant's session is not refused: there is none of that
key, as of any unknown one. What the tenant takes is held against its allowance.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Final, Protocol

import msgspec
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from flashfeed.models.chat import ChatRequest
from flashfeed.models.errors import FlashfeedError, RequestError
from flashfeed.models.generation import GeneratedPiece, GenerateOptions, PlainPrompt
from flashfeed.models.outcomes import OutcomeReport
from flashfeed.models.session import Answer, FlashQuery, SessionSpec
from flashfeed.models.tenant import check_session_id, scope_of
from flashfeed.models.views import (
    AppendAck,
    Embeddings,
    Fields,
    Inspection,
    ModelView,
    PushAck,
    QueryView,
    SessionEvent,
    SessionView,
    Warmed,
)

from .service import Allowance, Documents, SessionService

BYTES_PER_TOKEN: Final = 4
"""About what a token of English takes: for what nobody counted."""

PART_SEPARATOR: Final = "."
"""Between a tenant and a part of it; no tenant's own name has one."""


class WorkerSessions(SessionService, Protocol):
    """The service of all tenants, and what a single tenant's is made from."""

    def new_id(self, scope: str = "") -> str:
        """A key that is free, with the scope before it."""

    def sessions_of(self, *scopes: str) -> list[SessionView]:
        """The live sessions whose keys begin with one of these; others take no time."""

    def documents_of(self, tenant: str) -> Documents:
        """What the dialects keep for one tenant."""

    def chat_of(
        self, tenant: str, asked: PlainPrompt, options: GenerateOptions, model: str
    ) -> AsyncGenerator[GeneratedPiece]:
        """A chat of one tenant; its KV is shared with no other."""

    async def embed_of(self, tenant: str, texts: Sequence[str], model: str = "") -> Embeddings:
        """Texts of one tenant as vectors."""


class TenantSessions:
    """One tenant's sessions: a SessionService."""

    def __init__(
        self, worker: WorkerSessions, tenant: str, allowance: Allowance | None = None
    ) -> None:
        self._worker = worker
        self._tenant = tenant
        self._scope = scope_of(tenant)
        self._allowance = allowance

    # -- what is known ------------------------------------------------------------

    @property
    def model_id(self) -> str:
        """The model's name."""
        return self._worker.model_id

    @property
    def ready(self) -> bool:
        """Whether the worker serves its sessions."""
        return self._worker.ready

    @property
    def sessions_max(self) -> int:
        """The worker's bound."""
        return self._worker.sessions_max

    @property
    def documents(self) -> Documents:
        """What the dialects keep for the tenant."""
        return self._worker.documents_of(self._tenant)

    def of(self, tenant: str, allowance: Allowance | None = None) -> SessionService:
        """A part of the tenant, with sessions of its own within the tenant's allowance."""
        if not tenant:
            return self
        part = f"{self._tenant}{PART_SEPARATOR}{tenant}"
        return TenantSessions(self._worker, part, allowance or self._allowance)

    def models(self) -> list[ModelView]:
        """The models that a request may name."""
        return self._worker.models()

    def get(self, session_id: str) -> SessionView:
        """The session now."""
        with self._own_words():
            return self._own(self._worker.get(self._key(session_id)))

    def sessions(self) -> list[SessionView]:
        """The tenant's live sessions."""
        return [self._own(view) for view in self._worker.sessions_of(self._scope)]

    async def all_sessions(self) -> list[SessionView]:
        """The tenant's live sessions at every worker."""
        views = await self._worker.all_sessions()
        return [self._own(view) for view in views if view.session_id.startswith(self._scope)]

    def items(self, session_id: str) -> list[Fields]:
        """The records in the session's context."""
        with self._own_words():
            return self._worker.items(self._key(session_id))

    def queries(self, session_id: str) -> list[QueryView]:
        """The standing questions with their latest answers."""
        with self._own_words():
            return self._worker.queries(self._key(session_id))

    async def inspect(self, session_id: str) -> Inspection:
        """The session with its context as text."""
        with self._own_words():
            held = await self._worker.inspect(self._key(session_id))
        return Inspection(self._own(held.view), held.text)

    async def metrics(self) -> bytes:
        """The tenant's own figures; the worker's are its operator's."""
        views = self.sessions()
        registry = CollectorRegistry()
        for name, what, value in (
            ("flashfeed_sessions", "Live sessions.", len(views)),
            ("flashfeed_session_tokens", "Tokens held.", sum(one.n_tokens for one in views)),
            ("flashfeed_queued_records", "Records waiting.", sum(one.queue_size for one in views)),
        ):
            Gauge(name, what, registry=registry).set(value)
        return generate_latest(registry)

    # -- what changes a session ---------------------------------------------------

    async def create(self, spec: SessionSpec, session_id: str | None = None) -> SessionView:
        """A new session of the tenant's."""
        if session_id is not None:
            check_session_id(session_id)
        if spec.overflow == "block":
            # Others' sessions would wait with it.
            raise RequestError(
                "overflow: expected drop_oldest or coalesce, got block, which would hold back "
                "other tenants' sessions"
            )
        own = msgspec.structs.replace(spec, tenant=self._tenant)
        with self._own_words(), self._room():
            key = self._worker.new_id(self._scope) if session_id is None else self._key(session_id)
            return self._own(await self._worker.create(own, key))

    async def delete(self, session_id: str) -> None:
        """End the session."""
        with self._own_words():
            await self._worker.delete(self._key(session_id))

    async def push(
        self, session_id: str, records: Sequence[Fields | str], idempotency_key: str = ""
    ) -> PushAck:
        """Write records and texts for the session."""
        with self._own_words():
            ack = await self._worker.push(self._key(session_id), records, idempotency_key)
        return msgspec.structs.replace(ack, view=self._own(ack.view))

    async def append(self, session_id: str, text: str) -> AppendAck:
        """Add text to the context."""
        self._check_tokens()
        with self._own_words():
            ack = await self._worker.append(self._key(session_id), text)
        self._spend(ack.added_tokens)
        return AppendAck(ack.added_tokens, self._own(ack.view))

    async def mark_prefix(self, session_id: str) -> SessionView:
        """Make what the session holds now its frozen prefix."""
        with self._own_words():
            return self._own(await self._worker.mark_prefix(self._key(session_id)))

    async def add_query(self, session_id: str, query: FlashQuery) -> QueryView:
        """Add a standing question."""
        self._check_tokens()
        with self._own_words():
            view = await self._worker.add_query(self._key(session_id), query)
        self._spend(view.n_tokens)
        return view

    async def remove_query(self, session_id: str, query_id: int) -> int:
        """Remove a standing question; returns how many remain."""
        with self._own_words():
            return await self._worker.remove_query(self._key(session_id), query_id)

    async def outcome(self, session_id: str, report: OutcomeReport) -> None:
        """What an answer's true answer turned out to be."""
        with self._own_words():
            await self._worker.outcome(self._key(session_id), report)

    # -- what does not ------------------------------------------------------------

    async def generate(
        self, session_id: str, asked: str | ChatRequest, options: GenerateOptions
    ) -> AsyncGenerator[GeneratedPiece]:
        """Generate over the session's data."""
        with self._own_words():
            pieces = self._worker.generate(self._key(session_id), asked, options)
            async with aclosing(self._counted(pieces, asked)) as counted:
                async for piece in counted:
                    yield piece

    async def chat(
        self, asked: PlainPrompt, options: GenerateOptions, model: str = ""
    ) -> AsyncGenerator[GeneratedPiece]:
        """Answer a conversation, or go on with a text, without any session's data."""
        pieces = self._worker.chat_of(self._tenant, asked, options, model)
        async with aclosing(self._counted(pieces, asked)) as counted:
            async for piece in counted:
                yield piece

    async def count_prompt(self, asked: PlainPrompt, model: str = "") -> int:
        """How many tokens `chat` would read of it."""
        return await self._worker.count_prompt(asked, model)

    async def embed(self, texts: Sequence[str], model: str = "") -> Embeddings:
        """Texts as vectors."""
        self._check_tokens()
        embedded = await self._worker.embed_of(self._tenant, texts, model)
        self._spend(embedded.n_tokens)
        return embedded

    async def warm(self, session_id: str, asked: ChatRequest) -> Warmed:
        """Decode a conversation over the session's data ahead of its next turn."""
        self._check_tokens()
        with self._own_words():
            warmed = await self._worker.warm(self._key(session_id), asked)
        self._spend(warmed.prompt_tokens - warmed.cached_tokens)
        return msgspec.structs.replace(warmed, view=self._own(warmed.view))

    def count_tokens(self, session_id: str, text: str) -> int:
        """The tokens of a text, as the session's model would read it."""
        with self._own_words():
            return self._worker.count_tokens(self._key(session_id), text)

    async def answer(
        self, session_id: str, prompt: str, choices: Sequence[str], gap_threshold: float = 0.0
    ) -> Answer | None:
        """Score the choices over the session's data."""
        self._check_tokens()
        with self._own_words():
            key = self._key(session_id)
            given = await self._worker.answer(key, prompt, choices, gap_threshold)
        self._spend(_estimated([prompt, *choices]))
        return given

    @asynccontextmanager
    async def events(self, session_id: str) -> AsyncIterator[AsyncIterator[SessionEvent]]:
        """Subscribe to the session's events from now on."""
        with self._own_words():
            async with self._worker.events(self._key(session_id)) as events:
                yield self._own_events(events)

    def standing(self, session_id: str) -> list[SessionEvent]:
        """The events of the version that stands."""
        with self._own_words():
            return [self._own_event(one) for one in self._worker.standing(self._key(session_id))]

    # -- inside -------------------------------------------------------------------

    def _key(self, session_id: str) -> str:
        return self._scope + session_id

    def _own(self, view: SessionView) -> SessionView:
        own_id = view.session_id.removeprefix(self._scope)
        return msgspec.structs.replace(view, session_id=own_id)

    async def _own_events(self, events: AsyncIterator[SessionEvent]) -> AsyncIterator[SessionEvent]:
        async for event in events:
            yield self._own_event(event)

    def _own_event(self, event: SessionEvent) -> SessionEvent:
        own_id = event.session_id.removeprefix(self._scope)
        return msgspec.structs.replace(event, session_id=own_id)

    @contextmanager
    def _own_words(self) -> Iterator[None]:
        """An error speaks of the tenant's session by the tenant's id. Nothing else in a
        message looks like the scope: it ends in a character that no text of ours has."""
        try:
            yield
        except FlashfeedError as error:
            error.args = tuple(
                part.replace(self._scope, "") if isinstance(part, str) else part
                for part in error.args
            )
            raise

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Room for one more session."""
        if self._allowance is None:
            yield
            return
        # A part's sessions are the tenant's too, and those of its other parts.
        whole = self._tenant.partition(PART_SEPARATOR)[0]
        scopes = (scope_of(whole), f"{whole}{PART_SEPARATOR}")
        with self._allowance.session(len(self._worker.sessions_of(*scopes))):
            yield

    def _check_tokens(self) -> None:
        if self._allowance is not None:
            self._allowance.check_tokens()

    def _spend(self, tokens: int) -> None:
        if self._allowance is not None:
            self._allowance.spend_tokens(tokens)

    async def _counted(
        self, pieces: AsyncGenerator[GeneratedPiece], asked: str | PlainPrompt
    ) -> AsyncGenerator[GeneratedPiece]:
        """The pieces, each counted as it comes; the prompt at the end, which knows its cost.
        Of a generation that was left before, the prompt's cost is estimated."""
        async with aclosing(pieces):
            self._check_tokens()
            written, read = 0, _estimated(asked)
            try:
                async for piece in pieces:
                    self._spend(piece.n_tokens - written)
                    written = piece.n_tokens
                    if piece.finish_reason is not None:
                        read = piece.prompt_tokens - piece.cached_tokens
                    yield piece
            finally:
                self._spend(read)


def _estimated(asked: str | PlainPrompt | list[str]) -> int:
    return len(msgspec.json.encode(asked)) // BYTES_PER_TOKEN
