"""The session service: all that the outside can ask of sessions.

The contract between the bridge (which speaks dialects) and the owner of the sessions
(which speaks Kafka). Whatever changes a session is written to `flashfeed.records` and
answered after Kafka's acknowledgement; `create`, `append`, `add_query`,
`remove_query`, `mark_prefix` and `delete` also wait until the owner has applied it.
Errors are those of models/errors.py.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Protocol

from flashfeed.models.chat import ChatRequest
from flashfeed.models.errors import SessionElsewhere
from flashfeed.models.generation import GeneratedPiece, GenerateOptions, PlainPrompt
from flashfeed.models.outcomes import OutcomeReport
from flashfeed.models.ownership import OwnedSessions, Owner
from flashfeed.models.session import Answer, FlashQuery, SessionSpec
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

PUSH_RECORDS_MAX: Final = 1000
"""Records and texts of one push."""

PUSH_TEXT_CHARS_MAX: Final = 100_000
"""Characters of a text that is pushed."""


@dataclass(slots=True)
class Noted:
    """What the service noted while it served one request: that another worker owns the
    session asked for, and whether anything was written before that came out."""

    elsewhere: SessionElsewhere | None = None
    wrote: bool = False


NOTED: Final[ContextVar[Noted | None]] = ContextVar("NOTED", default=None)
"""Where the service notes it, for a bridge that passes requests on: a dialect turns the
error into words of its own, in which nobody can read it any more."""


class Ownership(Protocol):
    """Who owns which session, as a bridge needs it to pass requests on."""

    @property
    def worker(self) -> str:
        """This worker's name, another one with each start."""

    def accept(self, partition: int, epoch: int) -> None:
        """Raises Unavailable where this worker does not serve the partition in that epoch."""

    async def moved(self, owner: Owner) -> None:
        """Returns when another worker takes the owner's partition: what the owner still
        says of it counts no more."""

    def owned_sessions(self) -> OwnedSessions:
        """The sessions that this worker serves."""


class Peers(Protocol):
    """The other workers, as the service may ask them."""

    async def sessions_of(self, owner: Owner) -> OwnedSessions:
        """The sessions that another worker serves. Raises Unavailable."""


class Documents(Protocol):
    """JSON documents of one tenant, by kind and id: what a dialect must remember (agents,
    conversations, responses). Bounded: of a kind the least lately written go first. Kept
    on `flashfeed.documents`, and so known to every worker."""

    async def put(self, kind: str, document_id: str, body: dict[str, Any]) -> None:
        """Write a document; returns when it is kept. Raises RequestError where it is too
        large, Unavailable."""

    async def change(
        self, kind: str, document_id: str, change: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> dict[str, Any] | None:
        """Write what `change` makes of the document as it is then; None where there is none.
        Changes of one document follow one another here: of those made at two workers at one
        moment the last counts. Raises what `put` and `change` raise."""

    def get(self, kind: str, document_id: str) -> dict[str, Any] | None:
        """The document, None where there is none."""

    def list(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        """Every document of a kind with its id, oldest first."""

    async def delete(self, kind: str, document_id: str) -> bool:
        """Remove a document; whether there was one."""


class Allowance(Protocol):
    """What a tenant may take. Each method raises LimitReached where it is too much."""

    def session(self, held: int) -> AbstractContextManager[None]:
        """Room for one session beside the `held` ones, while it is being made."""

    def check_tokens(self) -> None:
        """Whether the model may read and write for the tenant now."""

    def spend_tokens(self, tokens: int) -> None:
        """It did so many; never refuses, what is too much is waited for."""


class SessionService(Protocol):
    """What a bridge may call. All methods run on the worker's event loop. What is asked of
    a session that another worker owns raises SessionElsewhere, and is noted."""

    @property
    def model_id(self) -> str:
        """The model's name, as clients see it."""

    def models(self) -> list[ModelView]:
        """The models that a request may name, the default one first."""

    def of(self, tenant: str, allowance: Allowance | None = None) -> SessionService:
        """This service as one tenant may use it: its own sessions and no others, within
        the allowance. "" is whoever runs the worker, and sees all. Of a tenant's service
        it gives a part, which shares the allowance and nothing else."""

    @property
    def documents(self) -> Documents:
        """What the dialects keep beside the sessions: agents, turns, responses."""

    @property
    def ready(self) -> bool:
        """Whether the worker owns its partitions and has rebuilt their sessions."""

    @property
    def sessions_max(self) -> int:
        """How many sessions each worker takes."""

    async def create(self, spec: SessionSpec, session_id: str | None = None) -> SessionView:
        """A new session. Raises SessionExists, RequestError, Overloaded, Unavailable."""

    def get(self, session_id: str) -> SessionView:
        """The session now. Raises SessionUnknown; Unavailable while it is rebuilt."""

    def sessions(self) -> list[SessionView]:
        """Every live session of this worker."""

    async def all_sessions(self) -> list[SessionView]:
        """Every live session, this worker's and all others'. Raises Unavailable where one
        of them does not say: never a list that is short."""

    async def inspect(self, session_id: str) -> Inspection:
        """The session with its context as text."""

    async def delete(self, session_id: str) -> None:
        """End the session, and forget it."""

    async def push(
        self, session_id: str, records: Sequence[Fields | str], idempotency_key: str = ""
    ) -> PushAck:
        """Write records (plain fields of the session's type) and texts for a session.

        All or nothing: RecordError, with the path `$.data[2].c`, before anything is
        written where one is wrong; ContextFull where a text is longer than its window.
        A repeated idempotency key is acknowledged again and applied once. Overloaded where
        the queue has no room.
        """

    async def append(self, session_id: str, text: str) -> AppendAck:
        """Add text to the context."""

    async def mark_prefix(self, session_id: str) -> SessionView:
        """Make what the session holds now its frozen prefix; its window is empty then."""

    async def add_query(self, session_id: str, query: FlashQuery) -> QueryView:
        """Add a standing question; it is answered at once over what is there."""

    def queries(self, session_id: str) -> list[QueryView]:
        """The standing questions with their latest answers."""

    async def remove_query(self, session_id: str, query_id: int) -> int:
        """Remove a standing question; returns how many remain."""

    async def outcome(self, session_id: str, report: OutcomeReport) -> None:
        """What an answer's true answer turned out to be; returns when it is applied, or was
        before. Raises RequestError where there is no such question that learns, or choice;
        OutcomeLate, OutcomeContradicts."""

    def items(self, session_id: str) -> list[Fields]:
        """The records in the session's context, oldest first, for statistics."""

    def generate(
        self, session_id: str, asked: str | ChatRequest, options: GenerateOptions
    ) -> AsyncGenerator[GeneratedPiece]:
        """Answer a prompt, or go on with a chat, over the session's data in a fork; closing
        the iterator cancels. A chat's next turn decodes only what is new in it.

        With `clear_after` off the last piece comes when prompt and text have become an
        item of the window; of a generation that did not end nothing stays. Of a chat
        nothing can be kept so: RequestError.
        """

    def chat(
        self, asked: PlainPrompt, options: GenerateOptions, model: str = ""
    ) -> AsyncGenerator[GeneratedPiece]:
        """Answer a conversation, or go on with a text, without any session's data. `model`
        "" is the worker's default. Raises ModelUnknown, and Overloaded where too many run.
        """

    async def count_prompt(self, asked: PlainPrompt, model: str = "") -> int:
        """How many tokens `chat` would read of it."""

    async def embed(self, texts: Sequence[str], model: str = "") -> Embeddings:
        """Texts as vectors. `model` "" is the first configured one that gives embeddings.
        Raises ModelUnknown; ModelRefused, which names those that do; RequestError, which
        names a text by its place (`input.2`); Overloaded.
        """

    async def warm(self, session_id: str, asked: ChatRequest) -> Warmed:
        """Decode a conversation over the session's data ahead of its next turn, which then
        goes on from there. A turn, or a newer warm one, takes over. Raises SessionBusy
        while a turn is under way, and what `generate` raises.
        """

    def count_tokens(self, session_id: str, text: str) -> int:
        """The tokens of a text, as the session's model would read it."""

    async def answer(
        self, session_id: str, prompt: str, choices: Sequence[str], gap_threshold: float = 0.0
    ) -> Answer | None:
        """Which of the choices the model gives the prompt over the session's data; nothing
        stays. As the model says it, without a prior. None where the best choice's score is
        less than `gap_threshold` (a difference of log-probabilities) above the second: who
        asks may then generate. RequestError where the prompt or the choices are not a
        flash query's.
        """

    def events(self, session_id: str) -> AbstractAsyncContextManager[AsyncIterator[SessionEvent]]:
        """Subscribe to the session's events from now on, in order, bounded: a reader that
        falls too far behind gets StopAsyncIteration and may subscribe again."""

    def standing(self, session_id: str) -> list[SessionEvent]:
        """The events of the version that stands, of answers that were no news too: for a
        subscriber who must not miss the newest answers. Call it inside `events`."""

    async def metrics(self) -> bytes:
        """The worker's metrics in Prometheus' text format."""
