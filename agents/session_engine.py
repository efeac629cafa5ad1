"""One session's place in the engine: opened from its state, run step by step, shrunk
where its window's lines have no room.

What the engine holds is what the state says (invariant 5), whoever of the two changes:
a step that fails leaves both as they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import msgspec

from flashfeed.codecs import text_live
from flashfeed.codecs.registry import text_codec
from flashfeed.codecs.text_merged import merged_legend
from flashfeed.engine import Engine, Update
from flashfeed.models.errors import (
    ContextFull,
    EngineError,
    EngineFull,
    ModelUnavailable,
    Overloaded,
    SessionUnknown,
)
from flashfeed.models.session import SessionSpec, WindowSpec
from flashfeed.models.state import Head, Item
from flashfeed.models.window import halved, window_length

from .session_plan import plan_step
from .session_queue import Taken
from .session_step import SessionState, Step, Templates, shrunk

log = logging.getLogger(__name__)

ENGINE_TRIES = 3
BUSY_WAIT_S = 0.1
MODEL_WAIT_MAX_S = 30.0
NO_WORK = Update((), 0, 0, 0, 0, 0.0, 0.0, 0)


class SessionEngine:
    """The engine, for one session."""

    def __init__(self, session_id: str, engine: Engine, halved_window: Callable[[], None]) -> None:
        self.session_id = session_id
        self._engine = engine
        self._count_halved = halved_window

    async def restore(self, state: SessionState) -> SessionState:
        """Open the session as its state says; the state that it now has, which holds less
        where the engine has less room than it had. Raises FlashfeedError."""
        try:
            await self._open(state.head, state.items)
        except ContextFull:
            for smaller in _smaller_states(state):
                try:
                    await self._open(smaller.head, smaller.items)
                except ContextFull:
                    continue
                self._note_halved(state.head, smaller.head)
                return smaller
            raise
        return state

    async def run(self, step: Step) -> Update:
        """Do the step's work. An engine error is tried again: the engine puts the session
        back to its last committed position first. Raises FlashfeedError."""
        if step.deletes:
            return NO_WORK
        opened = attempt = 0
        absent_until_s = time.monotonic() + MODEL_WAIT_MAX_S
        while True:
            attempt += 1
            try:
                if step.creates and not opened:
                    opened = await self._open(step.head, ())
                if step.marks_prefix:
                    await self._engine.mark_prefix(self.session_id)
                if step.items or step.queries:
                    lines = [item.line for item in step.items]
                    return await self._engine.update(
                        self.session_id, lines, step.queries, rewind=step.rewind
                    )
                return replace(NO_WORK, n_tokens=opened or step.head.tokens)
            except (Overloaded, ModelUnavailable) as error:
                # All seats are busy, or a model cannot be had now: what came waits
                # (overflow "block"), a session's first records too. A model that cannot be had
                # is tried for so long alone: it may be that nobody ever gets it. Who asks for a
                # session is told, and so is a record where the engine has all that it may.
                lasts = not isinstance(error, Overloaded) and time.monotonic() > absent_until_s
                if step.creates and (step.asks or lasts or isinstance(error, EngineFull)):
                    raise
                attempt -= 1
                await asyncio.sleep(BUSY_WAIT_S)
            except EngineError:
                if attempt == ENGINE_TRIES:
                    raise
                log.exception(
                    "session %s: engine error, attempt %d", self.session_id, attempt,
                    extra={"session": self.session_id},
                )  # fmt: skip
                await asyncio.sleep(0.05 * attempt)

    async def run_smaller(
        self,
        state: SessionState | None,
        step: Step,
        taken: Taken,
        templates: Templates,
    ) -> tuple[SessionState | None, Step, Update] | None:
        """Do a step that had no room in a smaller window: halved until it fits, planned
        anew on what is then left of the state. None where it does not fit alone either,
        or brings no items; the session is then as it was."""
        if not step.items or halved(step.head.window) is None:
            return None
        tried = window_length(step.head.window, _count_after(step))
        window = halved(step.head.window)
        try:
            found = await self._halve(state, step, taken, templates, tried, window)
        except BaseException:
            # The engine holds again what the state says, whatever went wrong.
            await self.reopen(state)
            raise
        if found is None:
            await self.reopen(state)
        return found

    async def _halve(
        self,
        state: SessionState | None,
        step: Step,
        taken: Taken,
        templates: Templates,
        tried: int,
        window: WindowSpec | None,
    ) -> tuple[SessionState | None, Step, Update] | None:
        while window is not None:
            smaller = shrunk(state, window.items) if state is not None else None
            again = plan_step(
                self.session_id,
                smaller,
                taken.messages,
                templates,
                window.items,
                taken.relief,
                grave=step.grave,
            )
            length = window_length(window, _count_after(again))
            if length < tried:  # else it is the same lines once more
                tried = length
                try:
                    await self.close()
                    if smaller is not None:
                        await self._open(smaller.head, smaller.items)
                    update = await self.run(again)
                except ContextFull:
                    pass
                else:
                    self._note_halved(step.head, again.head)
                    return smaller, again, update
            window = halved(window)
        return None

    async def reopen(self, state: SessionState | None) -> None:
        """Hold again what the state says, whatever the engine held."""
        await self.close()
        if state is not None:
            await self._open(state.head, state.items)

    async def close(self, *, forget: bool = False, save: bool = True) -> None:
        """Give the session's place back; nothing where it has none. `forget`: for good,
        with its snapshot. `save`: keep it as a snapshot."""
        while True:
            try:
                with contextlib.suppress(SessionUnknown):  # it may never have come to be open
                    await self._engine.close(self.session_id, forget=forget, save=save)
                return
            except Overloaded:  # too many wait in the engine: a place is not forgotten for that
                await asyncio.sleep(BUSY_WAIT_S)

    def _note_halved(self, before: Head, after: Head) -> None:
        self._count_halved()
        log.warning(
            "session %s: its window of %d items has no room in the context; it is now %d",
            self.session_id,
            before.window.items,
            after.window.items,
            extra={"session": self.session_id},
        )

    async def _open(self, head: Head, items: Iterable[Item]) -> int:
        return await self._engine.open(
            self.session_id,
            engine_spec(head),
            lines=[item.line for item in items],
            count=head.count,
            frozen=head.frozen,
        )


def _count_after(step: Step) -> int:
    return step.head.count - step.rewind + len(step.items)


def engine_spec(head: Head) -> SessionSpec:
    """The spec as the engine opens it: the window as it is now, and the prompt with what
    the lines of its text codec mean, so that the model can read them."""
    spec = head.spec
    legend = text_codec(spec.text, spec.type).legend
    if spec.live:
        legend = f"{legend} {text_live.LEGEND}"
    if spec.overflow == "coalesce":
        legend = f"{legend} {merged_legend(spec.type)}"
    prompt = f"{spec.prompt}\n{legend}".strip()
    return msgspec.structs.replace(spec, prompt=prompt, window=head.window)


def _smaller_states(state: SessionState) -> Iterator[SessionState]:
    """The state with half its window, and half of that, as long as there is less in it."""
    window = halved(state.head.window)
    while window is not None:
        if window.items < len(state.items):
            state = shrunk(state, window.items)
            yield state
        window = halved(window)
