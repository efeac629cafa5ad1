"""The engine as asyncio sees it; the work is done in the scheduler's thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from flashfeed.models.errors import Unavailable
from flashfeed.models.generation import GeneratedPiece, GenerateOptions
from flashfeed.models.session import FlashQuery, SessionSpec

from .generate import generate_steps
from .model import Model
from .model_hash import model_hash
from .scheduler import Job, Scheduler
from .sessions import Sessions
from .settings import EngineSettings
from .update import Steps, Update, open_steps, update_steps

T = TypeVar("T")


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

    def __init__(self, settings: EngineSettings) -> None:
        self.threads: Final = settings.threads or len(os.sched_getaffinity(0))
        self.settings: Final = replace(settings, threads=self.threads)
        self.model_hash = ""
        self.model_name = ""
        self._sessions: Sessions | None = None
        self._scheduler: Scheduler | None = None

    def start(self) -> None:
        """Loads the model (it blocks for as long as that takes) and starts the thread.

        Raises ConfigError where the model cannot be used.
        """
        if self._scheduler is not None:
            return
        model = Model.load(self.settings.model_path, self.settings.gpu_layers)
        self.model_hash = model_hash(self.settings.model_path)
        self.model_name = model.name
        self._sessions = sessions = Sessions(model, self.settings)

        def free() -> None:
            sessions.free()
            model.free()

        self._scheduler = Scheduler(self.settings.jobs_max, free)
        self._scheduler.start()

    async def stop(self) -> None:
        """Ends after the running pass and frees everything; what waits fails as Unavailable."""
        scheduler, self._scheduler, self._sessions = self._scheduler, None, None
        if scheduler is not None:
            await asyncio.to_thread(scheduler.stop)

    async def open(self, session_id: str, spec: SessionSpec) -> int:
        """Opens a session; the tokens of its prefix (system turn, open user turn).

        Raises SessionExists, ContextFull where the prompt has no room, Overloaded where
        `sessions_max` are open, RequestError for a window beyond the model's.
        """
        sessions = self._open_sessions()
        return await self._do(session_id, lambda: open_steps(sessions, session_id, spec))

    async def update(
        self, session_id: str, lines: Sequence[str], queries: Sequence[FlashQuery]
    ) -> Update:
        """Appends the lines and answers the questions over all that the session then holds.

        Atomic: on any error the session is as it was. A caller that is cancelled while
        it waits does not stop the update. Raises SessionUnknown, ContextFull,
        RequestError, EngineError.
        """
        sessions = self._open_sessions()
        started = time.perf_counter()
        lines, queries = tuple(lines), tuple(queries)
        return await self._do(
            session_id,
            lambda: update_steps(sessions, session_id, lines, queries, started),
        )

    async def generate(
        self, session_id: str, prompt: str, options: GenerateOptions
    ) -> AsyncGenerator[GeneratedPiece]:
        """Answers a prompt over what the session holds now, piece by piece, in a branch.

        Closing the iterator cancels. Raises SessionUnknown, ContextFull, Overloaded.
        """
        sessions = self._open_sessions()
        loop = asyncio.get_running_loop()
        # Bounded: a generation has max_tokens pieces and an end.
        pieces: asyncio.Queue[GeneratedPiece | BaseException | None] = asyncio.Queue()
        cancelled = False

        def emit(piece: GeneratedPiece) -> None:
            _call(loop, lambda: pieces.put_nowait(piece))

        def done(_: Any, error: BaseException | None) -> None:
            _call(loop, lambda: pieces.put_nowait(error))

        def start() -> Steps[None]:
            return generate_steps(sessions, session_id, prompt, options, emit, lambda: cancelled)

        self._running().submit(Job(start, done, None))
        try:
            while (piece := await pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            cancelled = True

    async def close(self, session_id: str) -> None:
        """Gives a session's cells back; its generations end as cancelled."""
        sessions = self._open_sessions()

        def close() -> Steps[None]:
            sessions.remove(sessions[session_id])
            return
            yield

        await self._do(session_id, close)

    async def inspect(self, session_id: str) -> Inspection:
        """What the session holds, after the jobs that wait for it."""
        sessions = self._open_sessions()

        def inspect() -> Steps[Inspection]:
            session = sessions[session_id]
            return Inspection(
                n_tokens=len(session.tokens),
                context_tokens=session.group.context_tokens,
                prefix_end=session.prefix_end,
                text=sessions.model.text(session.tokens),
            )
            yield

        return await self._do(session_id, inspect)

    def count_tokens(self, text: str) -> int:
        """The tokens of a text from outside, as a line would be tokenised."""
        return len(self._open_sessions().model.tokens(text))

    def _open_sessions(self) -> Sessions:
        if self._sessions is None:
            raise Unavailable("the engine is not running")
        return self._sessions

    def _running(self) -> Scheduler:
        if self._scheduler is None:
            raise Unavailable("the engine is not running")
        return self._scheduler

    async def _do(self, lane: str, start: Callable[[], Steps[T]]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def done(result: T, error: BaseException | None) -> None:
            _call(loop, lambda: _resolve(future, result, error))

        self._running().submit(Job(start, done, lane))
        return await future


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
