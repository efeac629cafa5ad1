"""The engine as asyncio sees it; the work is done in the scheduler's thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from flashfeed.models.chat import ChatRequest
from flashfeed.models.errors import SessionUnknown, Unavailable
from flashfeed.models.generation import (
    Continuation,
    GeneratedPiece,
    GenerateOptions,
    PlainPrompt,
)
from flashfeed.models.session import FlashQuery, SessionSpec

from .chat_turns import system_text
from .chores import junior_job, rebuild_job, saving_jobs
from .embed import Vectors
from .embedding_queue import EmbeddingQueue
from .generate import NotResident, Talk, generate_steps
from .home_loads import HomeLoads
from .homes import Homes, Locate, no_others
from .machine import devices, free_memory_bytes, llama_cpp_build
from .model import Model
from .opening import item_tokens, mark_prefix_steps, open_steps, prefix_tokens
from .plain_chats import PlainChats
from .pool import Sessions
from .prompt import Prompt, make_plain_prompt, make_prompt
from .residency import resident_steps
from .scheduler import Job, Scheduler, Watch
from .seats import Kind
from .settings import EngineSettings
from .stats import OF_PRIORITY, EngineStats, LoadedModel
from .steps import Steps
from .turns import Priority, Turns
from .update import Update, update_steps

T = TypeVar("T")
_log: Final = logging.getLogger(__name__)
_LONG_TEXT: Final = 10_000
"""Characters that are tokenised in a thread of their own."""


@dataclass(frozen=True)
class Inspection:
    """What a session holds: tokens, its window, where its prefix ends, and all its text."""

    n_tokens: int
    context_tokens: int
    prefix_end: int
    text: str


class Engine:
    """Resident sessions over one model. Its methods may be called from any event loop.

    Between `start` and `stop` only: else Unavailable. Errors of llama.cpp are
    EngineError; the session is then back where it was before the call.
    """

    def __init__(
        self,
        settings: EngineSettings,
        locate: Locate = no_others,
        models_bytes_max: int = 0,
        idle_unload_s: float = 600.0,
    ) -> None:
        self._locate: Final = locate
        self._models_bytes_max: Final = models_bytes_max
        self._idle_unload_s: Final = idle_unload_s
        self._homes: Homes | None = None
        self._loads: HomeLoads | None = None
        self.threads: Final = settings.threads or len(os.sched_getaffinity(0))
        self.settings: Final = replace(settings, threads=self.threads)
        self.model_hash = ""
        self.model_name = ""
        self._sessions: Sessions | None = None
        self._scheduler: Scheduler | None = None
        self._embeddings: Final = EmbeddingQueue(self.threads)
        self._devices: tuple[str, ...] = ()
        self._llama_cpp = ""
        self._plain = self._no_places()

    def start(self) -> None:
        """Loads the model (it blocks for as long as that takes) and starts the thread.

        Raises ConfigError where the model cannot be used, or not one context of it fits into
        `kv_bytes_max`.
        """
        if self._scheduler is not None:
            return
        homes = Homes(self.settings, self._locate, self._models_bytes_max, self._idle_unload_s)
        home = homes.acquire()
        model = home.model
        self._devices, self._llama_cpp = devices(), llama_cpp_build()[0]
        self.model_hash = model.hash
        self.model_name = model.name
        settings = self.settings
        if not settings.kv_bytes_max:
            # One context at least, however little is free: llama.cpp says whether it is there.
            one = Kind(home, settings.context_tokens).n_bytes
            half = free_memory_bytes(settings.gpu_layers) // 2
            settings = replace(settings, kv_bytes_max=max(half, one))
        try:
            sessions = Sessions(homes, home, settings)
        except BaseException:
            homes.release(home)
            homes.close()
            raise
        self._homes, self._loads, self._sessions = homes, HomeLoads(homes), sessions

        def free() -> None:
            sessions.free()
            homes.release(home)
            homes.close()

        turns = Turns(settings.step, settings.chunk)
        watch = Watch(sessions.came, sessions.went, lambda now: saving_jobs(sessions, now), free)
        self._scheduler = Scheduler(settings.jobs_max, turns, watch)
        self._scheduler.start()

    async def stop(self) -> None:
        """Ends after the running pass and frees everything; what waits fails as Unavailable."""
        scheduler, self._scheduler, self._sessions = self._scheduler, None, None
        self._plain = self._no_places()
        if scheduler is not None:
            await asyncio.to_thread(scheduler.stop)

    async def open(
        self,
        session_id: str,
        spec: SessionSpec,
        lines: Sequence[str] = (),
        count: int | None = None,
        frozen: Sequence[str] = (),
    ) -> int:
        """Opens a session; the tokens of its context.

        `frozen` are lines that belong to its frozen prefix. `lines` bring a session back:
        its window's lines, of the `count` items that were ever applied to it; they are
        decoded, or restored from a snapshot, in the background where a seat is free, else
        when it is first used. Raises SessionExists,
        ContextFull where the context has no room, Overloaded where `sessions_max` are
        open or no seat is free, RequestError for what the model cannot do.
        """
        lines, frozen = tuple(lines), tuple(frozen)
        return await self._open(session_id, spec, lines, count, frozen)

    async def _open(
        self,
        session_id: str,
        spec: SessionSpec,
        lines: tuple[str, ...] = (),
        count: int | None = None,
        frozen: tuple[str, ...] = (),
        plain: PlainPrompt | None = None,
    ) -> int:
        n = len(lines) if count is None else count
        sessions = self._open_sessions()
        homes = self._open_homes()
        home = await self._open_loads().acquire(spec.model)
        return await self._do(
            session_id,
            lambda: open_steps(sessions, home, session_id, spec, frozen, lines, n, plain),
            tenant=spec.tenant,
            follow_up=lambda: rebuild_job(sessions, session_id),
            # Not in a `finally` here: the job runs on though its caller is cancelled.
            at_end=lambda: homes.release(home),
        )

    async def __aenter__(self) -> Engine:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def update(
        self,
        session_id: str,
        lines: Sequence[str] = (),
        queries: Sequence[FlashQuery] | None = None,
        rewind: int = 0,
    ) -> Update:
        """Appends the lines and answers the questions over all that the session then holds.

        `queries` None asks the standing questions of the session's spec. The last `rewind`
        items go first: the lines, as many at least, take their place.

        Atomic: on any error the session is as it was. A caller that is cancelled while
        it waits does not stop the update. Raises SessionUnknown, ContextFull,
        RequestError, EngineError; Overloaded where the session was evicted and no seat
        is free.
        """
        sessions = self._open_sessions()
        started = time.perf_counter()
        session = sessions[session_id]
        asked = session.spec.flash if queries is None else tuple(queries)
        with self._open_homes().using(session.home):
            if sum(map(len, lines)) > _LONG_TEXT:  # neither loop nor engine waits for it
                new = await asyncio.to_thread(item_tokens, session, tuple(lines))
            else:
                new = item_tokens(session, lines)
        return await self._do(
            session_id,
            lambda: update_steps(sessions, session_id, new, asked, started, rewind),
            kind=Priority.FLASH if asked else Priority.INGEST,
            follow_up=lambda: junior_job(sessions, session_id),
        )

    async def mark_prefix(self, session_id: str) -> int:
        """Makes what the session holds now its frozen prefix; its length in tokens."""
        sessions = self._open_sessions()
        return await self._do(session_id, lambda: mark_prefix_steps(sessions, session_id))

    def generate(
        self,
        session_id: str,
        asked: str | ChatRequest,
        options: GenerateOptions = GenerateOptions(),  # noqa: B008 (frozen)
    ) -> AsyncGenerator[GeneratedPiece]:
        """Answers a prompt, or goes on with a chat, over what the session holds now.

        Piece by piece, in a branch: the data is not touched. Closing the iterator cancels.
        Raises SessionUnknown, ContextFull, Overloaded, RequestError.
        """
        return self._write(session_id, lambda model, key: make_prompt(model, asked, options, key))

    async def chat(
        self,
        asked: PlainPrompt,
        options: GenerateOptions = GenerateOptions(),  # noqa: B008 (frozen)
        tenant: str = "",
        model: str = "",
    ) -> AsyncGenerator[GeneratedPiece]:
        """Answers a conversation, or goes on with a text, that no session's data stands
        before. What is asked again with more messages is decoded from where it differs.

        Raises what `generate` raises, and what a `model` by name raises.
        """
        async with self._plain.place(asked, tenant, model) as session_id:
            pieces = self._write(
                session_id, lambda one, key: make_plain_prompt(one, asked, options, key)
            )
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    yield piece

    async def count_prompt(self, asked: PlainPrompt, model: str = "") -> int:
        """How many tokens `chat` would read; nothing is decoded. Raises RequestError, and
        what a `model` by name raises."""
        homes = self._open_homes()
        home = await self._open_loads().acquire(model)
        try:
            return await asyncio.to_thread(_prompt_length, home.model, asked)
        finally:
            homes.release(home)

    async def embed(
        self, texts: Sequence[str], model: str = "", tenant: str = ""
    ) -> tuple[Vectors, int]:
        """A vector of length 1 for each text, and how many tokens they were.

        Requests run one after the other, beside the sessions. Raises Overloaded where too
        many wait, RequestError for a text that is empty or too long, ModelRefused where
        the model gives no embeddings, and what a `model` by name raises.
        """
        return await self._embeddings.embed(self._open_homes(), texts, model, tenant)

    async def count_turn(self, session_id: str, asked: ChatRequest) -> int:
        """How many tokens `generate` would read after what the session holds; nothing is
        decoded. Raises SessionUnknown, RequestError."""
        session = self._open_sessions()[session_id]
        with self._open_homes().using(session.home) as home:
            prompt = await asyncio.to_thread(make_prompt, home.model, asked, GenerateOptions(), "")
        return len(prompt.tokens)

    async def _write(
        self, session_id: str, make: Callable[[Model, str], Prompt]
    ) -> AsyncGenerator[GeneratedPiece]:
        sessions = self._open_sessions()
        session = sessions[session_id]
        key = uuid.uuid4().hex
        # A long text or a large grammar takes a while; neither loop nor engine waits for it.
        home = session.home
        with self._open_homes().using(home):
            prompt = await asyncio.to_thread(make, home.model, key)
        loop = asyncio.get_running_loop()
        talk = Talk()
        # Bounded: a generation has max_tokens pieces and an end.
        pieces: asyncio.Queue[GeneratedPiece | BaseException | None] = asyncio.Queue()

        def emit(piece: GeneratedPiece) -> None:
            _call(loop, lambda: pieces.put_nowait(piece))

        def done(_: Any, error: BaseException | None) -> None:
            _call(loop, lambda: pieces.put_nowait(error))

        def start() -> Steps[None]:
            if sessions[session_id].home is not home:
                raise SessionUnknown(f"session {session_id!r} is another one now")
            return generate_steps(sessions, session_id, prompt, emit, talk)

        job = Job(
            start=start,
            done=done,
            lane=False,
            session=session_id,
            tenant=session.spec.tenant,
            void=lambda: talk.stale,
        )
        try:
            while True:
                self._running().submit(replace(job))
                piece = await pieces.get()
                if not isinstance(piece, NotResident):
                    break
                await self._do(
                    session_id,
                    lambda: resident_steps(sessions, sessions[session_id], Priority.FOREGROUND),
                    kind=Priority.FOREGROUND,
                )
            while piece is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
                piece = await pieces.get()
        finally:
            talk.cancelled = True

    async def close(self, session_id: str, *, forget: bool = False, save: bool = True) -> None:
        """Gives a session's cells back; its generations end as cancelled. `forget`: it has
        ended for good, and its snapshot goes too; else it is saved for whoever opens it
        next, unless `save` says that it holds what nobody will know of."""
        sessions = self._open_sessions()

        def close() -> Steps[None]:
            session = sessions[session_id]
            if save and not forget:
                sessions.snapshots.save(session)
            sessions.remove(session, forget)
            return
            yield

        await self._do(session_id, close, kind=Priority.FLASH)

    async def save(self, session_id: str) -> None:
        """Saves the session's snapshot now; nothing happens where it did not change."""
        sessions = self._open_sessions()

        def save() -> Steps[None]:
            sessions.snapshots.save(sessions[session_id])
            return
            yield

        await self._do(session_id, save)

    async def evict(self, session_id: str) -> None:
        """Saves the session as a snapshot and takes its seats; it comes back when used.
        Nothing happens while jobs of it wait."""
        sessions = self._open_sessions()

        def evict() -> Steps[None]:
            session = sessions[session_id]
            if sessions.idle(session, jobs=1):  # this one
                sessions.evict(session)
            return
            yield

        await self._do(session_id, evict)

    async def inspect(self, session_id: str) -> Inspection:
        """What the session holds now, whatever is under way."""
        sessions = self._open_sessions()

        def inspect() -> Steps[Inspection]:
            session = sessions[session_id]
            start = session.start if session.senior is None else session.senior.start
            tokens = session.prefix + session.tokens(max(start, session.first), session.count)
            return Inspection(
                n_tokens=len(tokens),
                context_tokens=session.context_tokens,
                prefix_end=len(session.prefix),
                text=session.model.text(tokens),
            )
            yield

        return await self._do(session_id, inspect, lane=False)

    def count_tokens(self, text: str, session_id: str = "") -> int:
        """The tokens of a text from outside, as a line of that session would be tokenised."""
        sessions = self._open_sessions()
        session = sessions.get(session_id)
        with self._open_homes().using(session.home if session else sessions.home) as home:
            return len(home.model.tokens(text))

    def kv_tokens(self, session_id: str) -> int:
        """The session's tokens whose keys and values are there now: none where it waits to
        be decoded, or to be brought back."""
        session = self._open_sessions().get(session_id)
        senior = session.senior if session is not None else None
        return senior.length if senior is not None else 0

    def model_hash_of(self, session_id: str) -> str:
        """The hash of the model that a session lives on; the default's where it is not open."""
        session = self._open_sessions().get(session_id)
        return session.model.hash if session is not None else self.model_hash

    @property
    def failure(self) -> BaseException | None:
        """Why the engine's thread ended by itself; None while it runs."""
        return self._scheduler.failure if self._scheduler is not None else None

    def stats(self) -> EngineStats:
        """The engine in numbers, at this moment; nothing waits for it. Raises Unavailable."""
        meters, homes = self._running().meters, self._open_homes()
        hashes = homes.hashes()
        return replace(
            self._open_sessions().stats(),
            spent={
                **meters.spent,
                **{(tenant, "embed"): one for tenant, one in self._embeddings.spent.copy().items()},
            },
            jobs={OF_PRIORITY[one]: n for one, n in meters.jobs.items()},
            steps={OF_PRIORITY[one]: buckets for one, buckets in meters.steps.items()},
            waits={OF_PRIORITY[one]: buckets for one, buckets in meters.waits.items()},
            models=tuple(
                LoadedModel(
                    one.name or self.model_name, hashes.get(one.name, ""), one.weights, one.kv
                )
                for one in homes.residents()
            ),
            devices=self._devices,
            llama_cpp=self._llama_cpp,
        )

    def _no_places(self) -> PlainChats:
        return PlainChats(
            self.settings.chats_max,
            lambda session_id, spec, asked: self._open(session_id, spec, plain=asked),
            lambda session_id: self.close(session_id, forget=True),
        )

    def _open_homes(self) -> Homes:
        if self._homes is None:
            raise Unavailable("the engine is not running")
        return self._homes

    def _open_loads(self) -> HomeLoads:
        if self._loads is None:
            raise Unavailable("the engine is not running")
        return self._loads

    def _open_sessions(self) -> Sessions:
        if self._sessions is None:
            raise Unavailable("the engine is not running")
        return self._sessions

    def _running(self) -> Scheduler:
        if self._scheduler is None:
            raise Unavailable("the engine is not running")
        return self._scheduler

    async def _do(
        self,
        session_id: str,
        start: Callable[[], Steps[T]],
        *,
        tenant: str | None = None,
        lane: bool = True,
        kind: Priority = Priority.INGEST,
        follow_up: Callable[[], Job | None] = lambda: None,
        at_end: Callable[[], None] = lambda: None,
    ) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def done(result: T, error: BaseException | None) -> None:
            at_end()
            _call(loop, lambda: _resolve(future, result, error))

        job = Job(
            start=start,
            done=done,
            session=session_id,
            tenant=self._open_sessions().tenant(session_id) if tenant is None else tenant,
            lane=lane,
            kind=kind,
            follow_up=follow_up,
        )
        try:
            self._running().submit(job)
        except BaseException:
            at_end()
            raise
        return await future


def _prompt_length(model: Model, asked: PlainPrompt) -> int:
    prompt = make_plain_prompt(model, asked, GenerateOptions(), "")
    if isinstance(asked, Continuation):
        return len(model.first_tokens) + len(prompt.tokens)
    return len(prefix_tokens(model, system_text(asked.messages))) + len(prompt.tokens)


def _call(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the caller's loop is closed: nobody waits
        loop.call_soon_threadsafe(what)


def _resolve(future: asyncio.Future[T], result: T, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
