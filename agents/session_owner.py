"""One session of this worker: applies what waits, one version after the other.

REBUILDING -> LIVE     the window is decoded again, the last version published again
LIVE       -> GONE     deleted, or its partition was taken away

LIVE    the engine's context holds exactly the changelog's window (invariant 5)
GONE    nothing is applied any more
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from flashfeed.engine import Engine, Update
from flashfeed.models.errors import (
    ContextFull,
    EngineError,
    FlashfeedError,
    SessionUnknown,
    Unavailable,
)
from flashfeed.models.events import FlashReady, cloud_event
from flashfeed.models.state import Head
from flashfeed.models.views import SessionEvent

from .changelog import entry_write, tombstones
from .dead_letters import DeadLetter
from .kafka_writer import Write
from .metrics import Metrics
from .session_events import flash_events, updated_event
from .session_step import (
    Refused,
    SessionState,
    Step,
    Templates,
    Waiting,
    failed_step,
    plan_step,
    settle_step,
    take_waiting,
    with_legend,
)
from .step_writer import StepWriter

log = logging.getLogger(__name__)

ENGINE_TRIES = 3
REBUILD_LINES = 64
NO_WORK = Update((), 0, 0, 0, 0, 0.0, 0.0, 0)


@dataclass(frozen=True, slots=True)
class OwnerParts:
    """What every session of a worker shares."""

    engine: Engine
    steps: StepWriter
    metrics: Metrics
    templates: Templates
    source: str
    changelog: str
    dead_letters: str
    flash_ready: str
    data_updated: str
    answers: str
    publish: Callable[[SessionEvent], None]
    settled: Callable[[int, int, FlashfeedError | None], None]
    fatal: Callable[[BaseException], None]
    may_step: asyncio.Event


class SessionOwner:
    """Owns one session: its waiting messages, its state, its place in the engine."""

    def __init__(self, session_id: str, partition: int, parts: OwnerParts) -> None:
        self.session_id = session_id
        self.partition = partition
        self.state: SessionState | None = None
        self.last_used_ms = 0
        self.busy = False
        self.gone = False
        self._parts = parts
        self._waiting: deque[Waiting] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def queued(self) -> int:
        """Records that wait to be applied; a message read again after a crash does not."""
        applied = self.state.head.records_offset if self.state else -1
        return sum(one.records for one in self._waiting if one.offset > applied)

    @property
    def waiting_offsets(self) -> set[int]:
        """Offsets of the messages that wait to be applied."""
        return {one.offset for one in self._waiting}

    def start(self) -> None:
        """Begin to apply what is put."""
        self._task = asyncio.create_task(self._run(), name=f"session {self.session_id}")

    async def stop(self) -> None:
        """Stop applying; a step under way is abandoned, and free the engine's place."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._close()

    def put(self, one: Waiting) -> None:
        """Hand over a message, in offset order."""
        self._waiting.append(one)
        self._wake.set()

    # -- recovery ---------------------------------------------------------------

    async def rebuild(self, state: SessionState) -> None:
        """Decode the window again, line by line as it was, and publish the last version
        again: its events may not have gone out before the crash."""
        try:
            await self._parts.engine.open(self.session_id, with_legend(state.head.spec))
            lines = [item.line for item in state.items]
            for at in range(0, len(lines), REBUILD_LINES):
                await self._parts.engine.update(self.session_id, lines[at : at + REBUILD_LINES], ())
        except Unavailable:
            raise
        except FlashfeedError as error:  # this session's trouble, and no other's (invariant 6)
            await self._close()
            log.error("session %s cannot be rebuilt: %s", self.session_id, error)
            self._parts.metrics.session_failed(error.reason)
            failed = f"cannot be rebuilt: {error}"
            state.head = msgspec.structs.replace(state.head, failed=failed)
        self.state = state
        if state.head.version:
            await self._parts.steps.publish([], [], self._event_writes(state.head))

    # -- the step ---------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while True:
                while not self._waiting:
                    self._wake.clear()
                    await self._wake.wait()
                await self._parts.may_step.wait()
                self.busy = True
                taken = take_waiting(self._waiting)
                applied = await self._apply(taken)
                for _ in range(applied):
                    self._waiting.popleft()
                self.busy = False
                if self.state is None and not self._waiting:
                    self.gone = True
                    return
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._parts.fatal(error)

    async def _apply(self, taken: list[Waiting]) -> int:
        """Plan, run and settle one step; returns how many messages it took."""
        before = self.state.head if self.state else None
        step = plan_step(self.session_id, self.state, taken, self._parts.templates)
        began = time.monotonic()
        try:
            update = await self._work(step)
        except Unavailable:
            raise  # the engine is gone, and the worker with it: no session's fault
        except FlashfeedError as error:
            if step.creates:
                await self._close()
            if isinstance(error, ContextFull) and len(taken) > 1:
                return await self._apply(taken[:1])  # what waits together may fit one by one
            step, update = self._fail(step, error), NO_WORK
        head = settle_step(
            step,
            before,
            update.answers,
            tokens=update.n_tokens or step.head.tokens,
            ingest_tokens=update.ingest_tokens,
            decoded_tokens=update.ingest_tokens + update.question_tokens + update.generated_tokens,
            process_us=int((time.monotonic() - began) * 1e6),
            evaluated_ms=int(time.time() * 1000),
            pending=max(0, self.queued - sum(one.records for one in taken)),
            model=self._parts.engine.model_hash,
        )
        await self._publish(step, head, update)
        return len(taken)

    def _fail(self, step: Step, error: FlashfeedError) -> Step:
        failed = failed_step(step, self.state, error)
        if failed.head.failed:
            log.error("session %s failed: %s", self.session_id, error)
            self._parts.metrics.session_failed(error.reason)
        return failed

    async def _work(self, step: Step) -> Update:
        """What the step needs of the engine. An engine error is tried again: the engine
        puts the session back to its last committed position first."""
        engine = self._parts.engine
        if step.deletes:
            return NO_WORK
        opened = 0
        for attempt in range(1, ENGINE_TRIES + 1):
            try:
                if step.creates and not opened:
                    opened = await engine.open(self.session_id, with_legend(step.head.spec))
                if step.items or step.queries:
                    lines = [item.line for item in step.items]
                    return await engine.update(self.session_id, lines, step.queries)
                break
            except EngineError:
                if attempt == ENGINE_TRIES:
                    raise
                log.exception("session %s: engine error, attempt %d", self.session_id, attempt)
                await asyncio.sleep(0.05 * attempt)
        return Update((), 0, 0, 0, opened or step.head.tokens, 0.0, 0.0, 0)

    async def _publish(self, step: Step, head: Head, update: Update) -> None:
        parts = self._parts
        letters = [_letter(refused, self.session_id) for refused in step.refused]
        refused = [letter.write(parts.dead_letters) for letter in letters]
        events: list[SessionEvent] = []
        if step.deletes:
            changelog = tombstones(parts.changelog, self.partition, head)
            refused += [self._answer_tombstone(head, query.id) for query in head.spec.flash]
        elif self.state is None and not step.creates:
            changelog = []  # nothing to keep: the records went to the dead letters
        else:
            changelog = [entry_write(parts.changelog, self.partition, head, step.items)]
            if step.moves:
                events = [*flash_events(head), updated_event(head)]
            elif update.answers:
                fresh = [answer.query_id for answer in update.answers]
                events = [*flash_events(head, fresh)]
            if self.state is not None:
                left = {query.id for query in head.spec.flash}
                refused += [
                    self._answer_tombstone(head, query.id)
                    for query in self.state.head.spec.flash
                    if query.id not in left
                ]
        await parts.steps.publish(refused, changelog, self._writes_of(events))
        await self._committed(step, head)
        parts.metrics.dead_letters(letters)
        self._count(step, update, events)
        for event in events:
            parts.publish(event)
        for one in step.messages:
            parts.settled(self.partition, one.offset, step.outcomes.get(one.offset))

    async def _committed(self, step: Step, head: Head) -> None:
        """The step is durable: make it the state."""
        if step.deletes:
            await self._close()
            self.state = None
        elif self.state is not None or step.creates:
            items = self.state.items if self.state else []
            items.extend(step.items)
            self.state = SessionState(head, items, step.last_record)
            self.last_used_ms = head.evaluated_ms or head.created_ms

    async def _close(self) -> None:
        with contextlib.suppress(SessionUnknown):  # it may never have come to be open
            await self._parts.engine.close(self.session_id)

    def _count(self, step: Step, update: Update, events: list[SessionEvent]) -> None:
        metrics = self._parts.metrics
        metrics.applied(step.records, step.duplicates)
        if update.decodes:
            metrics.update(
                step.head.spec.type,
                update.ingest_tokens,
                update.question_tokens,
                update.generated_tokens,
                update.decode_s,
                update.wall_s,
            )
        now_ms = time.time() * 1000
        for event in events:
            if isinstance(event, FlashReady):
                metrics.answer(event.name, event.changed)
        for received_ms in step.received_ms:
            metrics.latency((now_ms - received_ms) / 1000)

    # -- outputs ----------------------------------------------------------------

    def _event_writes(self, head: Head) -> list[Write]:
        return self._writes_of([*flash_events(head), updated_event(head)])

    def _writes_of(self, events: list[Any]) -> list[Write]:
        parts = self._parts
        writes = []
        for event in events:
            out = cloud_event(event, parts.source)
            flash = isinstance(event, FlashReady)
            topic = parts.flash_ready if flash else parts.data_updated
            writes.append(Write(topic, out.key, out.value, out.headers))
            if flash:
                key = f"{event.session_id}/{event.id}".encode()
                writes.append(Write(parts.answers, key, out.value, out.headers))
        return writes

    def _answer_tombstone(self, head: Head, query_id: int) -> Write:
        return Write(self._parts.answers, f"{head.session_id}/{query_id}".encode(), None)


def _letter(refused: Refused, session_id: str) -> DeadLetter:
    """A refused record as a dead letter; its value is what was mapped from the original."""
    return DeadLetter(
        topic=refused.message.topic,
        partition=refused.message.partition,
        offset=refused.record.offset,
        reason=refused.reason,
        path=refused.path,
        detail=refused.detail,
        key=session_id.encode(),
        value=orjson.dumps(refused.record.fields),
        part=refused.record.index,
        where=f"session {session_id}",
    )
