"""One session of this worker: applies what waits, one version after the other.

REBUILDING -> LIVE     the engine has its window, the last version is published again; where it
                       has no room, or the model cannot be had now, messages wait
LIVE       -> GONE     deleted, or its partition was taken away

LIVE    the engine's context holds exactly the changelog's window (invariant 5), decoded
        already or on its first use
GONE    nothing is applied any more

A session at rest has no task and no event: of a hundred thousand most are at rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from flashfeed.engine import Engine, Update
from flashfeed.models.errors import (
    ContextFull,
    Fenced,
    FlashfeedError,
    ModelUnavailable,
    Overloaded,
    RequestError,
    Unavailable,
)
from flashfeed.models.events import FlashReady
from flashfeed.models.messages import Delete
from flashfeed.models.session import WindowSpec
from flashfeed.models.state import Head
from flashfeed.models.views import SessionEvent

from .graves import Graves, grave_erasures
from .metrics import Metrics
from .session_engine import NO_WORK, SessionEngine
from .session_learning import FindHead
from .session_outputs import OutputTopics, event_writes, step_outputs, version_events
from .session_plan import failed_step, plan_step, unplanned
from .session_queue import Take, Taken, take_waiting
from .session_settle import Ran, next_state, settle_step
from .session_step import (
    Admit,
    SessionState,
    Step,
    Templates,
    Waiting,
)
from .step_size import StepCost, fits_within, step_cost
from .step_writer import StepWriter

if TYPE_CHECKING:
    from .step_trace import StepTrace
    from .tracing import Tracing

log = logging.getLogger(__name__)

OPEN_AGAIN_S, OPEN_AGAIN_MAX_S = 0.5, 10.0


@dataclass(frozen=True, slots=True)
class OwnerParts:
    """What every session of a worker shares. `tracing`: None where nothing is followed;
    `step_s`: how long a step may take of the engine (step_size.py); `take` says what a step
    takes of what waits; `heads`: None where nothing learns; `updated` gets what the engine gave
    for a step, before the events of it are published."""

    engine: Engine
    steps: StepWriter
    metrics: Metrics
    templates: Templates
    admit: Admit
    queue_records_max: int
    topics: OutputTopics
    publish: Callable[[SessionEvent], None]
    ended: Callable[[str], None]
    settled: Callable[[int, int, FlashfeedError | None], None]
    fatal: Callable[[BaseException], None]
    may_step: asyncio.Event
    tracing: Tracing | None = None
    step_s: float = math.inf
    take: Take = take_waiting
    heads: FindHead | None = None
    updated: Callable[[str, Update], None] | None = None


class _Done(NamedTuple):
    """A step that was run: the state it was planned on, itself, and what the engine did."""

    state: SessionState | None
    step: Step
    update: Update


class SessionOwner:
    """Owns one session: its waiting messages, its state, its place in the engine."""

    def __init__(
        self, session_id: str, partition: int, parts: OwnerParts, graves: Graves | None = None
    ) -> None:
        self.session_id = session_id
        self.partition = partition
        self.state: SessionState | None = None
        self.last_used_ms = 0
        self.arrived_ms = int(time.time() * 1000)
        self.making = ""
        self.turns = 0
        self.gone = False
        self._parts = parts
        self._graves = graves if graves is not None else Graves()
        self._engine = SessionEngine(session_id, parts.engine, parts.metrics.window_halved)
        self._waiting: list[Waiting] = []
        self._unsettled: set[int] = set()
        self._cost: StepCost | None = None
        self._applies = False
        self._not_open: FlashfeedError | None = None
        self._open_again_s = OPEN_AGAIN_S
        self._rested: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def feed(self) -> str:
        """The feed that made the session by itself, or is about to; "" for none."""
        return self.state.head.feed if self.state is not None else self.making

    @property
    def queued(self) -> int:
        """Records that wait to be applied; a message read again after a crash does not."""
        applied = self._applied
        return sum(one.records for one in self._waiting if one.offset > applied)

    @property
    def queued_bytes(self) -> int:
        """What the messages that wait with records take on Kafka."""
        applied = self._applied
        return sum(one.n_bytes for one in self._waiting if one.records and one.offset > applied)

    @property
    def _applied(self) -> int:
        """The offset of the last message that was applied, in this life or the one before."""
        if self.state is not None:
            return self.state.head.records_offset
        grave = self._graves.of(self.session_id)
        return grave.records_offset if grave is not None else -1

    @property
    def waiting_offsets(self) -> set[int]:
        """Offsets of the messages that wait to be applied."""
        return {one.offset for one in self._waiting}

    @property
    def busy(self) -> bool:
        """Whether a step is under way."""
        return self._rested is not None

    async def rest(self, timeout_s: float) -> None:
        """Wait until no step is under way, for that long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._rested is not None:
                    await self._rested.wait()

    def start(self) -> None:
        """Begin to apply what is put."""
        self._applies = True
        self._go()

    def _go(self) -> None:
        """Apply what waits, where nothing does so already."""
        if self._applies and self._task is None and (self._waiting or self._not_open):
            self._task = asyncio.create_task(self._run(), name=f"session {self.session_id}")

    def cancel(self) -> None:
        """Apply nothing more; a step under way is abandoned."""
        self._applies = False
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Stop applying, and free the engine's place, which saves its snapshot. The engine
        finishes what it has begun first; a step that was abandoned is in no changelog, and a
        snapshot with it would be refused: the one before it stays."""
        self.cancel()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        await self._engine.close(save=not self.busy)

    def put(self, one: Waiting) -> None:
        """Hand over a message, in offset order. One that waits already (a rebalance had it read
        again) waits once, however many rebalances there are: its place is bounded, and what
        is too much is not told by repeats (invariant 7)."""
        if one.offset in self._unsettled:
            return
        self._unsettled.add(one.offset)
        self.arrived_ms = int(time.time() * 1000)
        if self._parts.tracing is not None:
            one = one._replace(arrived_ns=time.time_ns())
        self._waiting.append(one)
        self._go()

    # -- recovery ---------------------------------------------------------------

    async def rebuild(self, state: SessionState) -> None:
        """Give the engine the window, line by line as it was, to be decoded when it is
        used, and where steps are not atomic publish the last version again: its events may
        not have gone out before the crash."""
        self.state = state
        if state.head.quarantined:
            return
        if not await self._open():
            log.warning(
                "session %s waits to be rebuilt: %s", self.session_id, self._not_open,
                extra=self._where(),
            )  # fmt: skip
        state = self.state
        if state.head.version and not self._parts.steps.atomic:
            events = event_writes(version_events(state.head), self._parts.topics, state.head.trace)
            await self._parts.steps.publish(self.partition, [], [], events)

    async def _open(self) -> bool:
        """Have the engine hold the state, as far as it can ever; False where it may later."""
        assert self.state is not None
        try:
            self.state = await self._engine.restore(self.state)
        except (Overloaded, ModelUnavailable) as error:  # another worker may come, or the model
            self._not_open = error
            return False
        except FlashfeedError as error:  # this session's trouble, and no other's (invariant 6)
            _raise_if_gone(error)
            await self._engine.close()
            log.error(
                "session %s cannot be rebuilt: %s", self.session_id, error, extra=self._where()
            )
            self._parts.metrics.session_failed(error.reason)
            failed = f"cannot be rebuilt: {error}"
            self.state.head = msgspec.structs.replace(self.state.head, failed=failed)
        self._not_open = None
        return True

    async def _may_take(self) -> bool:
        """Whether what waits can be taken: not by a session that the engine has no room for, or
        no model, but for who deletes it."""
        if self._not_open is None or await self._open():
            return True
        # An end for idleness is none where records came before it, and those wait.
        ends = [one.message for one in self._waiting if isinstance(one.message, Delete)]
        if any(one.idle_since is None or one is self._waiting[0].message for one in ends):
            return True
        await asyncio.sleep(self._open_again_s)
        self._open_again_s = min(2 * self._open_again_s, OPEN_AGAIN_MAX_S)
        return False

    # -- the step ---------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while self._waiting or self._not_open is not None:
                await self._parts.may_step.wait()
                if not await self._may_take() or not self._waiting:
                    continue
                self._rested = asyncio.Event()
                taken = self._take()
                applied = await self._apply(taken)
                del self._waiting[:applied]
                self._rested.set()
                self._rested = None
                if self.state is None and not self._waiting:
                    self.gone = True
                    self._applies = False
                    return
                await asyncio.sleep(0)  # who waits in `rest` goes first
            self._task = None
        except asyncio.CancelledError:
            raise
        except Fenced:  # another worker goes on with it
            self._applies = False
        except BaseException as error:
            self._applies = False
            self._parts.fatal(error)

    def _take(self) -> Taken:
        head = self.state.head if self.state is not None else None
        spec = head.spec if head is not None else None
        window, count = (head.window, head.count) if head is not None else (WindowSpec(), 0)
        fits = fits_within(self._cost, self._parts.step_s, window, count)
        bound = self._parts.queue_records_max
        return self._parts.take(self._waiting, spec, bound, self._applied, fits)

    async def _apply(self, taken: Taken) -> int:
        """Do one step, followed where something in it is; returns how many messages it took."""
        tracing = self._parts.tracing
        trace = tracing.step(self.partition, taken.messages) if tracing is not None else None
        if trace is None:
            return await self._step(taken, None)
        with trace:
            return await self._step(taken, trace)

    async def _step(self, taken: Taken, trace: StepTrace | None) -> int:
        """Plan, run and settle one step; returns how many messages it took."""
        began = time.monotonic()
        done = await self._work(taken, trace)
        if done is None:
            return await self._apply(taken.first())  # what waits together may fit one by one
        self._learn(done)
        head = self._settled(done, began, taken, trace)
        try:
            await self._publish(done, head, trace)
        except RequestError as error:
            # One of its records is larger than Kafka takes, and would be so again.
            await self._engine.reopen(self.state)
            if len(taken.messages) > 1:
                return await self._apply(taken.first())
            done = _Done(self.state, self._fail(done.step, error), NO_WORK)
            await self._publish(done, self._settled(done, began, taken, trace), trace)
        self.making = ""
        return len(taken.messages)

    def _learn(self, done: _Done) -> None:
        """Note what the step cost: the next is sized by it."""
        step = done.step
        count = (done.state.head.count if done.state is not None else 0) - step.rewind
        window, items = step.head.window, len(step.items)
        self._cost = step_cost(done.update, items, window, count, self._cost)

    def _settled(self, done: _Done, began: float, taken: Taken, trace: StepTrace | None) -> Head:
        step, update = done.step, done.update
        if trace is not None:
            trace.decoded()
        ran = Ran(
            answers=update.answers,
            tokens=update.n_tokens or step.head.tokens,
            ingest_tokens=update.ingest_tokens,
            decoded_tokens=update.ingest_tokens + sum(update.query_tokens),
            process_us=int((time.monotonic() - began) * 1e6),
            evaluated_ms=int(time.time() * 1000),
            pending=max(0, self.queued - sum(one.records for one in taken.messages)),
            model=self._parts.engine.model_hash_of(self.session_id),
            trace=trace.context if trace is not None else None,
            hidden=update.hidden,
            heads=self._parts.heads,
        )
        return settle_step(step, done.state, ran)

    async def _work(self, taken: Taken, trace: StepTrace | None) -> _Done | None:
        """Plan the step and do its work. None: it has no room, but is of several messages."""
        parts = self._parts
        try:
            step = plan_step(
                self.session_id,
                self.state,
                taken.messages,
                parts.templates,
                relief=taken.relief,
                admit=parts.admit,
                grave=self._graves.of(self.session_id),
            )
        except Exception as error:  # ours to mend; the worker's other sessions go on
            log.exception("session %s: no step can be planned", self.session_id)
            if len(taken.messages) > 1:
                return None
            fault = FlashfeedError(f"flashfeed cannot use it: {error!r}")
            step = unplanned(self.session_id, self.state, taken.messages, fault)
            parts.metrics.session_failed(fault.reason)
            return _Done(self.state, step, NO_WORK)
        self.making = step.head.feed * step.creates  # counts before it is there
        if trace is not None:
            trace.planned(step)
        try:
            return _Done(self.state, step, await self._engine.run(step))
        except FlashfeedError as error:
            _raise_if_gone(error)
            if isinstance(error, ContextFull):
                if len(taken.messages) > 1:
                    if step.creates:
                        await self._engine.close()
                    return None
                if smaller := await self._work_smaller(taken, step):
                    return smaller
            if step.creates:
                await self._engine.close()
            return _Done(self.state, self._fail(step, error), NO_WORK)

    async def _work_smaller(self, taken: Taken, step: Step) -> _Done | None:
        """The step's work in a smaller window; None where it has no room there either."""
        try:
            ran = await self._engine.run_smaller(self.state, step, taken, self._parts.templates)
        except FlashfeedError as error:
            _raise_if_gone(error)
            what = "session %s: its window could not be made smaller"
            log.exception(what, self.session_id, extra=self._where(step))
            return None
        return _Done(*ran) if ran is not None else None

    def _where(self, step: Step | None = None) -> dict[str, Any]:
        """What a line of the log concerns: the session, and where a step's messages begin."""
        offset = step.messages[0].offset if step is not None and step.messages else None
        return {"session": self.session_id, "partition": self.partition, "offset": offset}

    def _fail(self, step: Step, error: FlashfeedError) -> Step:
        failed = failed_step(step, self.state, error)
        if failed.head.failed:
            log.error("session %s failed: %s", self.session_id, error, extra=self._where(step))
            self._parts.metrics.session_failed(error.reason)
        return failed

    async def _publish(self, done: _Done, head: Head, trace: StepTrace | None) -> None:
        parts, step = self._parts, done.step
        out = step_outputs(step, done.state, head, self.partition, parts.topics)
        erased = self._graves.erased() if out.changelog else []
        erasures = grave_erasures(parts.topics.changelog, self.partition, erased)
        # Raises RequestError where the changelog takes no such entry, and then has none.
        await parts.steps.publish(
            self.partition, out.refused, out.changelog + erasures, out.published
        )
        await self._committed(done, head)
        parts.metrics.dead_letters(out.letters)
        self._count(step, done.update, out.answers)
        if parts.updated is not None:
            parts.updated(self.session_id, done.update)
        for event in out.events:
            parts.publish(event)
        parts.metrics.dead_letters(out.control)
        if trace is not None:
            ours = (parts.topics.flash_ready, parts.topics.data_updated)
            topics = [one.topic for one in out.published if one.topic in ours]
            trace.published(step, done.update, topics)
        for one in step.messages:
            self._unsettled.discard(one.offset)
            parts.settled(self.partition, one.offset, step.outcomes.get(one.offset))

    async def _committed(self, done: _Done, head: Head) -> None:
        """The step is durable: make it the state."""
        if done.step.deletes:
            if done.step.grave is not None:
                self._graves.bury(done.step.grave)
            await self._engine.close(forget=True)
            self.state, self._not_open = None, None
            self._parts.ended(self.session_id)
        elif done.state is not None or done.step.creates:
            self.state = next_state(done.step, done.state, head)
            self.last_used_ms = max(self.last_used_ms, head.evaluated_ms or head.created_ms)

    def _count(self, step: Step, update: Update, answers: Sequence[FlashReady]) -> None:
        self._parts.metrics.sessions.stepped(step, update, answers, time.time() * 1000)
        self._parts.metrics.learning.outcomes(step.learning.counts)


def _raise_if_gone(error: FlashfeedError) -> None:
    """Where the engine is gone, the worker is too: that is no session's fault."""
    if isinstance(error, Unavailable) and not isinstance(error, ModelUnavailable):
        raise error
