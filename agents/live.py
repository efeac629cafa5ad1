"""The session service over Kafka and the engine (the contract is in service.py).

Every change is written to `flashfeed.records` and comes back through the owner, so
what is done over HTTP has the same history, and survives the same crashes, as what a
feed brings.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from flashfeed.engine import Engine
from flashfeed.models.chat import ChatRequest
from flashfeed.models.config import Config
from flashfeed.models.errors import (
    Overloaded,
    RequestError,
    SessionExists,
    SessionUnknown,
    Unavailable,
    WriteUncertain,
)
from flashfeed.models.generation import GeneratedPiece, GenerateOptions, PlainPrompt
from flashfeed.models.messages import (
    AddQuery,
    Append,
    Create,
    Delete,
    MarkPrefix,
    Records,
    RemoveQuery,
)
from flashfeed.models.outcomes import OutcomeReport, outcome_message
from flashfeed.models.probe_session import refuse_probe
from flashfeed.models.session import Answer, FlashQuery, SessionSpec
from flashfeed.models.tenant import check_session_id, scope_of
from flashfeed.models.trace_context import Followed
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

from .documents import Log, Shelf, TenantDocuments
from .everywhere import Everywhere
from .history import History
from .kafka_writer import KafkaWriter
from .metrics import Metrics
from .metrics_text import text_of
from .owners import Owners
from .partitions import Partitions
from .placement import Placement
from .pushes import check_push, displaced, packed_records
from .service import Allowance, Documents, Peers, SessionService
from .session_outputs import standing_events
from .session_owner import SessionOwner
from .session_queue import queue_capacity
from .spec_room import check_room
from .subscribers import Subscribers
from .talks import Talks, placed
from .tenancy import TenantSessions

if TYPE_CHECKING:
    from .tracing import Tracing

REST_MAX_S = 2.0  # so long a look at a session waits for its step's end


class LiveSessions:
    """Sessions of this worker, for the bridge."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        writer: KafkaWriter,
        partitions: Partitions,
        partition_count: int,
        owners: Owners,
        documents: tuple[Shelf, Log],
        peers: Peers | None,
        metrics: Metrics,
        tracing: Tracing | None = None,
    ) -> None:
        self._config = config
        self._engine = engine
        self._partitions = partitions
        self._history = History(writer, config.topics.records, partition_count)
        self._metrics = metrics
        self._tracing = tracing
        self._subscribers = Subscribers()
        self._documents = documents
        self._talks = Talks(config, engine, self._history, metrics)
        self._placement = Placement(
            owners, partitions, partition_count, passes_on=peers is not None
        )
        self.everywhere = Everywhere(self._placement, partitions, peers, self._view)
        partitions.on_settled(self._history.settled)
        partitions.on_revoked(self._on_revoked)

    # -- what is known ------------------------------------------------------------

    @property
    def model_id(self) -> str:
        """The model's name."""
        return self._engine.model_name

    @property
    def ready(self) -> bool:
        """Whether a request for any session of this worker's is answered."""
        return self._placement.ready

    @property
    def sessions_max(self) -> int:
        """The engine's bound."""
        return self._config.engine.sessions_max

    @property
    def documents(self) -> Documents:
        """What the dialects keep beside the sessions."""
        return self.documents_of("")

    def documents_of(self, tenant: str) -> Documents:
        """What the dialects keep for one tenant."""
        return TenantDocuments(*self._documents, tenant)

    def of(self, tenant: str, allowance: Allowance | None = None) -> SessionService:
        """This service as one tenant may use it."""
        return TenantSessions(self, tenant, allowance) if tenant else self

    def models(self) -> list[ModelView]:
        """The models that a request may name, the default one first."""
        named = self._config.model
        default = ModelView(
            self.model_id,
            True,
            self._config.engine.context_tokens,
            aliases=(self._config.engine.model,),
        )
        return [default] + [
            ModelView(name, False, model.context_tokens or self._config.engine.context_tokens)
            for name, model in named.items()
            if name != self._config.engine.model
        ]

    def get(self, session_id: str) -> SessionView:
        """The session now."""
        view = self._view(self._owner(session_id, touch=False))
        self._owner(session_id)
        return view

    def sessions(self) -> list[SessionView]:
        """Every live session."""
        return self.sessions_of("")

    def sessions_of(self, *scopes: str) -> list[SessionView]:
        """The live sessions whose keys begin with one of these."""
        live = self._partitions.live()
        return [self._view(owner) for owner in live if owner.session_id.startswith(scopes)]

    async def all_sessions(self) -> list[SessionView]:
        """Every live session of every worker."""
        return await self.everywhere.all_sessions()

    def items(self, session_id: str) -> list[Fields]:
        """The records in the session's context."""
        state = self._owner(session_id).state
        return [item.fields for item in (state.items if state else []) if item.fields is not None]

    def queries(self, session_id: str) -> list[QueryView]:
        """The standing questions with their latest answers."""
        state = self._owner(session_id).state
        assert state is not None
        head = state.head
        answers = {answer.query_id: answer for answer in head.answers}
        return [
            QueryView(
                query=query,
                n_tokens=self._engine.count_tokens(query.query, session_id),
                answer=answers.get(query.id),
                data_version=head.version if query.id in answers else 0,
                evaluated_ms=head.evaluated_ms if query.id in answers else 0,
            )
            for query in head.spec.flash
        ]

    async def inspect(self, session_id: str) -> Inspection:
        """The session with its context as text, both of one version: during a step the engine
        is ahead of what is written. Where a step takes long (Kafka is away) they may differ."""
        owner = self._owner(session_id)
        await owner.rest(REST_MAX_S)
        view = self._view(owner)
        if view.failed and owner.state is not None and owner.state.head.quarantined:
            return Inspection(view, "")
        with placed(owner):
            held = await self._engine.inspect(session_id)
        return Inspection(view, held.text)

    async def metrics(self) -> bytes:
        """The worker's metrics. Read here, where what they read is not moving; written as text
        in a thread, since that takes most of the time."""
        return await asyncio.to_thread(text_of, self._metrics.collect())

    def new_id(self, scope: str = "") -> str:
        """A session id that is free, in a partition that this worker serves."""
        return self._placement.new_id(scope)

    # -- what changes a session ---------------------------------------------------

    async def create(self, spec: SessionSpec, session_id: str | None = None) -> SessionView:
        """A new session, applied by its owner when this returns."""
        check_room(spec, self._config.engine.context_tokens)
        if session_id is None:
            session_id = self.new_id()
        check_session_id(session_id.removeprefix(scope_of(spec.tenant)))
        refuse_probe(session_id)
        self._check_learns(*spec.flash)
        if self._find(session_id) is not None:
            raise SessionExists(f"session {session_id} exists already")
        bound = self.sessions_max  # counted one by one only where there may be as many
        if self._partitions.sessions >= bound and len(self._partitions.live()) >= bound:
            raise Overloaded(f"this worker keeps at most {self.sessions_max} sessions")
        created_ms = int(time.time() * 1000)
        await self._history.apply(session_id, Create(spec=spec, created_ms=created_ms))
        return self._applied(session_id)

    async def delete(self, session_id: str) -> None:
        """End the session."""
        self._owner(session_id)
        await self._history.apply(session_id, Delete())

    async def push(
        self, session_id: str, records: Sequence[Fields | str], idempotency_key: str = ""
    ) -> PushAck:
        """Write records and texts; returns at Kafka's acknowledgement."""
        owner = self._owner(session_id)
        view = self._view(owner)
        check_push(view, records, lambda text: self._engine.count_tokens(text, session_id))
        if records:
            packed = packed_records(records, int(time.time() * 1000))
            message = Records(
                type=view.spec.type,
                records=packed,
                idempotency_key=idempotency_key,
                traces=self._followed(),
            )
            try:
                await self._history.push(session_id, message, len(records))
            except WriteUncertain as error:
                if idempotency_key:  # the same key again writes nothing twice
                    raise Unavailable(str(error)) from error
                raise
        # A key that was seen before moves nothing: what it brought is in the version now.
        repeated = bool(idempotency_key) and view.version > 0 and self._seen(owner, idempotency_key)
        after = self._view(owner)
        dropped = displaced(after, len(records))
        return PushAck(len(records), after, view.version - repeated, dropped)

    async def append(self, session_id: str, text: str) -> AppendAck:
        """Add text to the context."""
        self._owner(session_id)
        await self._history.apply(session_id, Append(text=text))
        view = self._applied(session_id)
        # Not the difference in tokens: the window may have slid, and others append too.
        return AppendAck(self._engine.count_tokens(text + "\n", session_id), view)

    async def mark_prefix(self, session_id: str) -> SessionView:
        """Make what the session holds now its frozen prefix."""
        self._owner(session_id)
        await self._history.apply(session_id, MarkPrefix())
        return self._applied(session_id)

    async def add_query(self, session_id: str, query: FlashQuery) -> QueryView:
        """Add a standing question, answered at once over what is there."""
        self._owner(session_id)
        self._check_learns(query)
        await self._history.apply(session_id, AddQuery(query=query))
        self._applied(session_id)
        return next(view for view in self.queries(session_id) if view.query.query == query.query)

    async def remove_query(self, session_id: str, query_id: int) -> int:
        """Remove a standing question; returns how many remain."""
        self._owner(session_id)
        await self._history.apply(session_id, RemoveQuery(query_id=query_id))
        self._applied(session_id)
        return len(self.queries(session_id))

    async def outcome(self, session_id: str, report: OutcomeReport) -> None:
        """What an answer's true answer turned out to be, applied once."""
        self._owner(session_id)
        await self._history.apply(session_id, outcome_message(report))

    # -- what does not (talks.py) ---------------------------------------------------

    def generate(
        self, session_id: str, asked: str | ChatRequest, options: GenerateOptions
    ) -> AsyncGenerator[GeneratedPiece]:
        """Generate over the session's data in a fork."""
        return self._talks.generate(partial(self._owner, session_id), asked, options)

    async def warm(self, session_id: str, asked: ChatRequest) -> Warmed:
        """Decode a conversation over the session's data ahead of its next turn."""
        return await self._talks.warm(self._owner(session_id), asked, self._view)

    def chat(
        self, asked: PlainPrompt, options: GenerateOptions, model: str = ""
    ) -> AsyncGenerator[GeneratedPiece]:
        """Answer a conversation, or go on with a text, without any session's data."""
        return self.chat_of("", asked, options, model)

    def chat_of(
        self, tenant: str, asked: PlainPrompt, options: GenerateOptions, model: str
    ) -> AsyncGenerator[GeneratedPiece]:
        """A chat of one tenant; its KV is shared with no other."""
        return self._talks.chat_of(tenant, asked, options, model)

    async def count_prompt(self, asked: PlainPrompt, model: str = "") -> int:
        """How many tokens `chat` would read of it."""
        return await self._talks.count_prompt(asked, model)

    async def embed(self, texts: Sequence[str], model: str = "") -> Embeddings:
        """Texts as vectors."""
        return await self.embed_of("", texts, model)

    async def embed_of(self, tenant: str, texts: Sequence[str], model: str = "") -> Embeddings:
        """Texts of one tenant as vectors."""
        return await self._talks.embed(tenant, texts, model)

    async def answer(
        self, session_id: str, prompt: str, choices: Sequence[str], gap_threshold: float = 0.0
    ) -> Answer | None:
        """Score the choices over the session's data; None where none is clearly ahead."""
        return await self._talks.answer(self._owner(session_id), prompt, choices, gap_threshold)

    def count_tokens(self, session_id: str, text: str) -> int:
        """The tokens of a text, as the session's model would read it."""
        self._owner(session_id)
        return self._engine.count_tokens(text, session_id)

    @asynccontextmanager
    async def events(self, session_id: str) -> AsyncIterator[AsyncIterator[SessionEvent]]:
        """Subscribe to the session's events from now on."""
        self._owner(session_id)
        with self._subscribers.reader(session_id) as events:
            yield events

    def standing(self, session_id: str) -> list[SessionEvent]:
        """The events of the version that stands."""
        state = self._owner(session_id).state
        return standing_events(state.head) if state is not None and state.head.version else []

    def publish(self, event: SessionEvent) -> None:
        """An event went out to Kafka: pass it to who listens here."""
        self._metrics.subscribers_dropped(self._subscribers.publish(event))

    def ended(self, session_id: str) -> None:
        """A session was deleted, whoever wrote that: who listens to it hears no more."""
        self._subscribers.end(lambda one: one == session_id)

    # -- inside -------------------------------------------------------------------

    def _followed(self) -> tuple[Followed, ...]:
        """The trace of the request that is served here, where it has one."""
        context = self._tracing.current() if self._tracing is not None else None
        return (Followed(0, context),) if context is not None else ()

    def _check_learns(self, *queries: FlashQuery) -> None:
        if not self._config.learns and any(query.learn for query in queries):
            raise RequestError(
                "learn: this worker's questions do not learn; its operator can set "
                "learning.enabled = true"
            )

    def _find(self, session_id: str) -> SessionOwner | None:
        return self._partitions.find(self._placement.here(session_id), session_id)

    def _applied(self, session_id: str) -> SessionView:
        """The session after a change to it. Where it moved at that very moment it must not
        seem as if nothing was written: whoever tries again would do it twice."""
        try:
            return self.get(session_id)
        except Unavailable as moved:
            raise WriteUncertain(
                f"written and applied, but then the session moved to another worker: {moved}"
            ) from moved

    def _owner(self, session_id: str, touch: bool = True) -> SessionOwner:
        owner = self._find(session_id)
        if owner is None:
            raise SessionUnknown(f"no session {session_id}")
        if touch:
            owner.last_used_ms = int(time.time() * 1000)
        return owner

    @staticmethod
    def _seen(owner: SessionOwner, idempotency_key: str) -> bool:
        return owner.state is not None and idempotency_key in owner.state.head.idempotency_keys

    def _view(self, owner: SessionOwner) -> SessionView:
        state = owner.state
        if state is None:
            raise SessionUnknown(f"no session {owner.session_id}")
        head = state.head
        waiting, waiting_bytes = self._queue(owner)
        return SessionView(
            session_id=head.session_id,
            spec=head.spec,
            version=head.version,
            n_tokens=head.tokens,
            context_tokens=head.spec.context or self._config.engine.context_tokens,
            prefix_tokens=head.prefix_tokens,
            data_count=head.records,
            queue_size=waiting,
            queue_capacity=queue_capacity(head.spec, self._config.bridge.queue_records_max),
            counters=head.counters,
            answers=head.answers,
            evaluated_ms=head.evaluated_ms,
            created_ms=head.created_ms,
            last_used_ms=owner.last_used_ms or head.created_ms,
            in_use=owner.busy or self._talks.generating(owner.session_id),
            failed=head.failed,
            model=head.spec.model or self.model_id,
            kv_tokens=self._engine.kv_tokens(owner.session_id),
            evicted=head.evicted,
            queue_bytes=waiting_bytes,
            turns=owner.turns,
            ready=head.ready,
        )

    def _queue(self, owner: SessionOwner) -> tuple[int, int]:
        """Records written and not applied, and their messages' bytes: those that wait at the
        owner, and pushes of ours that have not come back from Kafka yet."""
        records, n_bytes = self._history.on_the_way(owner.session_id, owner.waiting_offsets)
        return owner.queued + records, owner.queued_bytes + n_bytes

    def _on_revoked(self, number: int) -> None:
        """What this worker knew of the partition's sessions is another's to know."""
        self._history.revoked(number)
        self._subscribers.end(lambda one: self._history.partition_of(one) == number)
