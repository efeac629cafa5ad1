"""A session service in memory, for what the real one cannot show on demand.

It applies a push when it is told to (at once by default), and its knobs make it
refuse, fail, or be slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from flashfeed.agents.documents import MemoryDocuments, TenantDocuments
from flashfeed.agents.service import Allowance, SessionService
from flashfeed.agents.tenancy import TenantSessions
from flashfeed.bridge.app import create_app
from flashfeed.bridge.server import BridgeServer
from flashfeed.bridge.settings import BridgeSettings
from flashfeed.models.chat import ChatRequest
from flashfeed.models.errors import (
    FlashfeedError,
    ModelUnknown,
    RequestError,
    SessionExists,
    SessionUnknown,
    ValidationFault,
)
from flashfeed.models.events import AnsweredBy, DataUpdated, FlashReady, iso_time
from flashfeed.models.generation import GeneratedPiece, GenerateOptions, PlainPrompt
from flashfeed.models.outcomes import OutcomeReport
from flashfeed.models.records import make_record, record_fields
from flashfeed.models.session import Answer, FlashQuery, SessionSpec, with_query_ids
from flashfeed.models.state import Counters
from flashfeed.models.views import (
    AppendAck,
    Fields,
    Inspection,
    ModelView,
    PushAck,
    QueryView,
    SessionEvent,
    SessionView,
    Warmed,
)

QUEUE_CAPACITY = 100


class MemorySession:
    """One session: its records, its text, its subscribers."""

    def __init__(self, session_id: str, spec: SessionSpec) -> None:
        self.id = session_id
        self.queries = list(spec.flash)
        self.spec = spec
        self.next_query_id = len(spec.flash) + 1
        self.text = [spec.prompt]
        self.records: list[Fields] = []
        self.waiting: list[Fields] = []
        self.answers: dict[int, Answer] = {}
        self.version = 0
        self.processed = 0
        self.batches = 0
        self.prefix = 0
        self.keys: dict[str, int] = {}
        self.subscribers: list[asyncio.Queue[SessionEvent | None]] = []

    @property
    def n_tokens(self) -> int:
        return sum(len(text.split()) for text in self.text)


class MemoryService:
    """The session service's contract over dictionaries."""

    model_id = "memory"
    sessions_max = 8

    def __init__(self) -> None:
        self.ready = True
        self.held: dict[str, MemorySession] = {}
        self.apply_at_once = True
        self.push_error: Exception | None = None
        self.mark_error: FlashfeedError | None = None
        self.pieces: tuple[str, ...] = ("The", " trend", " is", " \u2028up")
        self.piece_gate: asyncio.Event | None = None
        self.fails_after: int | None = None
        self.answers_at: int | None = None
        self.generating = 0
        self.prompts: list[tuple[str | PlainPrompt, GenerateOptions]] = []
        self.kept = MemoryDocuments()

    def _at(self, session_id: str) -> MemorySession:
        try:
            return self.held[session_id]
        except KeyError:
            raise SessionUnknown(f"no session {session_id}") from None

    async def create(self, spec: SessionSpec, session_id: str | None = None) -> SessionView:
        session_id = session_id or self.new_id()
        self.held[session_id] = MemorySession(session_id, with_query_ids(spec))
        return self.get(session_id)

    def get(self, session_id: str) -> SessionView:
        s = self._at(session_id)
        return SessionView(
            session_id=s.id,
            spec=s.spec,
            version=s.version,
            n_tokens=s.n_tokens,
            context_tokens=2048,
            prefix_tokens=s.prefix,
            data_count=len(s.records),
            queue_size=len(s.waiting),
            queue_capacity=QUEUE_CAPACITY,
            counters=Counters(processed=s.processed, batches=s.batches, process_us=10 * s.batches),
            answers=tuple(s.answers.values()),
            evaluated_ms=1_700_000_000_000,
            created_ms=1_700_000_000_000,
            last_used_ms=1_700_000_000_000,
            in_use=False,
        )

    def sessions(self) -> list[SessionView]:
        return [self.get(session_id) for session_id in self.held]

    async def all_sessions(self) -> list[SessionView]:
        return self.sessions()

    async def inspect(self, session_id: str) -> Inspection:
        return Inspection(self.get(session_id), "\n".join(self._at(session_id).text))

    async def outcome(self, session_id: str, report: OutcomeReport) -> None:
        learns = {query.label for query in self._at(session_id).spec.flash if query.learn}
        if report.query not in learns:
            raise RequestError(f"query: expected one that learns, got {report.query!r}")

    async def delete(self, session_id: str) -> None:
        for subscriber in self._at(session_id).subscribers:
            subscriber.put_nowait(None)
        del self.held[session_id]

    async def push(
        self, session_id: str, records: Sequence[Fields | str], idempotency_key: str = ""
    ) -> PushAck:
        s = self._at(session_id)
        version = s.version
        if self.push_error is not None:
            raise self.push_error
        fields = []
        for place, record in enumerate(records):
            if isinstance(record, str):
                raise ValidationFault("this one takes no texts", f"$.data[{place}]")
            try:
                fields.append(record_fields(make_record(s.spec.type, record)))
            except ValidationFault as fault:
                path = f"$.data[{place}]{fault.path.removeprefix('$')}"
                raise ValidationFault(f"{fault} at {path}", path) from None
        if not idempotency_key or idempotency_key not in s.keys:
            s.waiting += fields
            if idempotency_key:
                s.keys[idempotency_key] = len(fields)
            if self.apply_at_once:
                self.apply(session_id)
                await asyncio.sleep(0.005)  # the events are out before the acknowledgement
        return PushAck(len(fields), self.get(session_id), version)

    def apply(self, session_id: str) -> None:
        """Apply what waits, answer the questions, and send the events."""
        s = self._at(session_id)
        s.records += s.waiting
        s.text += [f"data {record}" for record in s.waiting]
        s.processed += len(s.waiting)
        s.batches += 1
        s.version += 1
        s.waiting = []
        now = iso_time(1_700_000_000.123) or ""
        events: list[SessionEvent] = [
            DataUpdated(
                session_id=session_id,
                type=s.spec.type,
                data_version=s.version,
                data_count=len(s.records),
                tokens=5,
                decoded_tokens=9,
                n_tokens=s.n_tokens,
                update_ms=1.5,
                pending=0,
                event_time=None,
                updated_at=now,
                origins=(),
                records_first=0,
                records_last=0,
            )
        ]
        for query in s.queries:
            answer = Answer(query.id, "bullish", 0.75, 1.5)
            s.answers[query.id] = answer
            events.append(
                FlashReady(
                    session_id=session_id,
                    type=s.spec.type,
                    id=query.id,
                    name=query.name,
                    query=query.query,
                    value=answer.value,
                    confidence=answer.confidence,
                    logit_gap=answer.logit_gap,
                    probabilities={},
                    previous=None,
                    changed=True,
                    data_version=s.version,
                    event_time=None,
                    evaluated_at=now,
                    origins=(),
                    records_first=0,
                    records_last=0,
                    answered_by=AnsweredBy("model", "spec"),
                )
            )
        for subscriber in s.subscribers:
            for event in events:
                subscriber.put_nowait(event)

    async def append(self, session_id: str, text: str) -> AppendAck:
        self._at(session_id).text.append(text)
        return AppendAck(len(text.split()), self.get(session_id))

    async def mark_prefix(self, session_id: str) -> SessionView:
        s = self._at(session_id)
        if self.mark_error is not None:
            raise self.mark_error
        s.prefix = s.n_tokens
        return self.get(session_id)

    async def add_query(self, session_id: str, query: FlashQuery) -> QueryView:
        s = self._at(session_id)
        if any(other.query == query.query for other in s.queries):
            raise SessionExists(f"{query.query!r} is asked already")
        numbered = FlashQuery(
            query.query, query.name, query.choices, query.max_tokens, s.next_query_id
        )
        s.next_query_id += 1
        s.queries.append(numbered)
        return self.queries(session_id)[-1]

    def queries(self, session_id: str) -> list[QueryView]:
        s = self._at(session_id)
        version = s.version if self.answers_at is None else self.answers_at
        return [QueryView(q, 7, s.answers.get(q.id), version, 1_700_000_000_123) for q in s.queries]

    async def remove_query(self, session_id: str, query_id: int) -> int:
        s = self._at(session_id)
        s.queries = [q for q in s.queries if q.id != query_id]
        return len(s.queries)

    def items(self, session_id: str) -> list[Fields]:
        return self._at(session_id).records

    def models(self) -> list[ModelView]:
        return [ModelView(self.model_id, True, 2048)]

    def of(self, tenant: str, allowance: Allowance | None = None) -> SessionService:
        return TenantSessions(self, tenant, allowance) if tenant else self

    def new_id(self, scope: str = "") -> str:
        return f"{scope}s{len(self.held) + 1}"

    def sessions_of(self, *scopes: str) -> list[SessionView]:
        return [self.get(key) for key in self.held if key.startswith(scopes)]

    def documents_of(self, tenant: str) -> TenantDocuments:
        return self.kept.of(tenant)

    def chat_of(
        self, tenant: str, asked: PlainPrompt, options: GenerateOptions, model: str
    ) -> AsyncGenerator[GeneratedPiece]:
        return self.chat(asked, options, model)

    @property
    def documents(self) -> TenantDocuments:
        return self.kept.of("")

    def count_tokens(self, session_id: str, text: str) -> int:
        self._at(session_id)
        return len(text.split())

    async def count_prompt(self, asked: PlainPrompt, model: str = "") -> int:
        return len(str(asked).split())

    async def chat(
        self, asked: PlainPrompt, options: GenerateOptions, model: str = ""
    ) -> AsyncGenerator[GeneratedPiece]:
        if model not in ("", self.model_id):
            raise ModelUnknown(f"no model {model}; known: {self.model_id}")
        async for piece in self._pieces(asked, options):
            yield piece

    async def generate(
        self, session_id: str, asked: str | ChatRequest, options: GenerateOptions
    ) -> AsyncGenerator[GeneratedPiece]:
        self._at(session_id)
        async for piece in self._pieces(asked, options):
            yield piece
        if not options.clear_after:
            self._at(session_id).text.append(f"{asked} {''.join(self.pieces)}")

    async def _pieces(
        self, asked: str | PlainPrompt, options: GenerateOptions
    ) -> AsyncGenerator[GeneratedPiece]:
        self.prompts.append((asked, options))
        self.generating += 1
        try:
            for place, text in enumerate(self.pieces, start=1):
                if self.piece_gate is not None:
                    await self.piece_gate.wait()
                if place == self.fails_after:
                    raise FlashfeedError("the engine is gone")
                last = place == len(self.pieces)
                yield GeneratedPiece(text, 10 + place, place, 0.5, "stop" if last else None)
        finally:
            self.generating -= 1

    async def warm(self, session_id: str, asked: ChatRequest) -> Warmed:
        return Warmed("warmed", 9, 4, self.get(session_id))

    async def answer(
        self, session_id: str, prompt: str, choices: Sequence[str], gap_threshold: float = 0.0
    ) -> Answer | None:
        self._at(session_id)
        return Answer(0, choices[0], 0.75, 1.5)

    @asynccontextmanager
    async def events(self, session_id: str) -> AsyncIterator[AsyncIterator[SessionEvent]]:
        s = self._at(session_id)
        queue: asyncio.Queue[SessionEvent | None] = asyncio.Queue()
        s.subscribers.append(queue)

        async def read() -> AsyncIterator[SessionEvent]:
            while (event := await queue.get()) is not None:
                yield event

        try:
            yield read()
        finally:
            s.subscribers.remove(queue)

    def standing(self, session_id: str) -> list[SessionEvent]:
        self._at(session_id)
        return []

    async def metrics(self) -> bytes:
        return b"flashfeed_up 1\n"


@pytest.fixture
def memory() -> MemoryService:
    return MemoryService()


@pytest_asyncio.fixture
async def serve(memory: MemoryService):  # type: ignore[no-untyped-def]
    """Serve the service in memory with these settings; gives the running server."""
    servers: list[BridgeServer] = []

    async def start(settings: BridgeSettings | None = None) -> BridgeServer:
        server = BridgeServer(create_app(memory, settings), "127.0.0.1", 0)
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest_asyncio.fixture
async def bridge(serve) -> str:  # type: ignore[no-untyped-def]
    """The URL of a bridge over the service in memory."""
    return f"http://127.0.0.1:{(await serve()).port}"
