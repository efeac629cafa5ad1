"""The engine's thread: plan, run, settle, one pass of one context at a time.

job       a generator that yields asks (steps.py). A lane job changes a session: they go
          one after another, in order of arrival. A talk job, a generation, has no lane
follow-up a job that a finished lane job leaves behind, next in its lane (the junior's
          copy of an update); it is background work until something waits behind it

A pass holds what `turns.py` puts into it. One that failed and left the cache as it was
is run again, each job's part alone, so that only the job at fault sees the error.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

import numpy as np

from flashfeed.models.errors import EngineError, FlashfeedError, Overloaded, Unavailable

from .context import Context, Decoded, DecodeFailed
from .plan import Pass, PlanFault, n_outputs
from .score import Row
from .stats import Meters
from .steps import Steps
from .turns import Ask, Part, Priority, Turns, Waiting

_log: Final = logging.getLogger(__name__)
_NOTHING: Final = Decoded(np.empty((0, 0), np.float32), 0.0, np.empty((0, 0), np.float32))
_POLL_S: Final = 0.002
_LOOK_BEHIND: Final = 8


@dataclass(eq=False, kw_only=True)
class Job(Waiting):
    """`start` makes the steps, in the engine's thread; `done` gets the result or the error.

    `lane` says whether it changes its session. `void` tells that what it asks for is no
    longer there to be decoded: it is then resumed without. `kind` is the class it hurries
    what is before it to. `follow_up` may give the job that comes next in the lane.
    `came_s` (time.perf_counter()) is when it came, 0 once it had a turn.
    """

    start: Callable[[], Steps[Any]]
    done: Callable[[Any, BaseException | None], None]
    lane: bool = True
    kind: Priority = Priority.INGEST
    void: Callable[[], bool] = lambda: False
    came_s: float = 0.0
    follow_up: Callable[[], Job | None] = lambda: None
    steps: Steps[Any] | None = None
    rows: list[Row] = field(default_factory=list)
    hidden: list[Row] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def counts_as(self) -> Priority:
        """The class that it is counted as: of a talk job, what somebody reads."""
        return self.kind if self.lane else Priority.FOREGROUND


@dataclass(frozen=True)
class Watch:
    """What the scheduler tells of jobs: each job's session when it comes and goes, and
    what is due when (`housekeeping` returns jobs of its own to run)."""

    came: Callable[[str], None]
    went: Callable[[str], None]
    housekeeping: Callable[[float], Iterable[Job]]
    at_end: Callable[[], None]


class Scheduler:
    """Runs jobs in a thread of its own, from `start` to `stop`."""

    def __init__(self, jobs_max: int, turns: Turns, watch: Watch) -> None:
        self.meters: Final = Meters()
        self._jobs_max: Final = jobs_max
        self._turns: Final = turns
        self._watch: Final = watch
        self._inbox: Final[queue.SimpleQueue[Job | None]] = queue.SimpleQueue()
        self._lanes: Final[dict[str, deque[Job]]] = {}
        self._ready: Final[dict[Job, None]] = {}
        self._blocked: Final[dict[Job, None]] = {}
        self._starting: Final[deque[Job]] = deque()
        self._arrivals = 0
        self._n_jobs = 0
        self._lock: Final = threading.Lock()
        self._stopped = True
        self.failure: BaseException | None = None
        self._thread: Final = threading.Thread(
            target=self._run, name="flashfeed-engine", daemon=True
        )

    def start(self) -> None:
        """Starts the thread."""
        self._stopped = False
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Hands a job over, from any thread. Raises Overloaded or Unavailable."""
        with self._lock:
            if self._stopped:
                raise Unavailable("the engine is not running")
            if self._n_jobs >= self._jobs_max:
                raise Overloaded(f"expected at most {self._jobs_max} jobs waiting in the engine")
            self._came(job)
            self._inbox.put(job)

    def stop(self) -> None:
        """Ends the thread after the running pass; jobs that are left fail as Unavailable."""
        with self._lock:
            running, self._stopped = not self._stopped, True
        if running:
            self._inbox.put(None)
            self._thread.join()

    def _run(self) -> None:
        try:
            while self._take_in():
                self._step()
        except BaseException as error:
            _log.exception("the engine's thread failed; it takes no more jobs")
            self.failure = error
            with self._lock:
                self._stopped = True
        finally:
            self._give_up()
            self._watch.at_end()

    # -- jobs come ------------------------------------------------------------------

    def _take_in(self) -> bool:
        """Sorts new jobs in; waits where there is nothing to do. False at the end."""
        for job in self._watch.housekeeping(time.monotonic()):
            with self._lock:
                self._came(job)
            self._sort_in(job)
        wait = None if self._ready or self._starting else _POLL_S if self._blocked else 1.0
        while True:
            try:
                job_or_end = self._inbox.get(block=wait is not None, timeout=wait)
            except queue.Empty:
                return True
            if job_or_end is None:
                return False
            wait = None
            self._sort_in(job_or_end)

    def _came(self, job: Job) -> None:
        self._n_jobs += 1
        self.meters.jobs[job.counts_as] += 1
        job.came_s = time.perf_counter()

    def _sort_in(self, job: Job) -> None:
        self._arrivals += 1
        job.arrival = self._arrivals
        self._watch.came(job.session)
        if not job.lane:
            self._starting.append(job)
            return
        lane = self._lanes.setdefault(job.session, deque())
        lane.append(job)
        if len(lane) == 1:
            self._starting.append(job)
        else:
            lane[0].hurry = min(lane[0].hurry, job.kind)

    def _begin(self, job: Job) -> None:
        def first() -> Ask | None:
            job.steps = job.start()
            return next(job.steps)

        self._go_on(job, first)

    # -- plan, run, settle ----------------------------------------------------------

    def _step(self) -> None:
        while self._starting:
            self._begin(self._starting.popleft())
        for job in [job for job in self._ready if job.void()]:
            self._resume(job, _NOTHING)
        if self._ready:
            parts = self._turns.plan(list(self._ready))
            for part in parts:
                self._first_turn(part.job)
            self._run_parts(parts)
        for job in list(self._blocked):
            self._resume(job, _NOTHING)

    def _first_turn(self, job: Waiting) -> None:
        assert isinstance(job, Job)
        if job.came_s:
            self.meters.waited(job.counts_as, job.came_s)
            job.came_s = 0.0

    def _run_parts(self, parts: list[Part]) -> None:
        context = parts[0].job.asked.context
        assert isinstance(context, Context)
        one = Pass(tuple(run for part in parts for run in part.runs))
        try:
            decoded = context.run(one)
        except EngineError as error:
            self._failed(parts, error)
            return
        self.meters.step(parts, decoded.seconds)
        at = 0
        for part in parts:
            job = part.job
            assert isinstance(job, Job)
            n = n_outputs(part.runs)
            rows, hidden = decoded.rows[at : at + n], decoded.hidden[at : at + n]
            at += n
            job.seconds += decoded.seconds * part.n_tokens / one.n_tokens
            if part.left:
                job.rows.extend(rows.copy())
                job.hidden.extend(hidden)
                data = max(0, job.asked.data_tokens - part.n_tokens)
                job.ask = replace(job.asked, runs=part.left, data_tokens=data)
                continue
            if job.rows:
                rows = np.stack([*job.rows, *rows])
                hidden = np.stack([*job.hidden, *hidden])
            seconds, job.seconds, job.rows, job.hidden = job.seconds, 0.0, [], []
            self._resume(job, Decoded(rows, seconds, hidden))

    def _failed(self, parts: list[Part], error: EngineError) -> None:
        """The error is for the job whose part fails alone; for all where the cache is lost."""
        harmless = not isinstance(error, DecodeFailed) or error.harmless
        if len(parts) > 1 and harmless:
            for part in parts:
                assert isinstance(part.job, Job)
                # What the one before did may have taken its place.
                if part.job.void():
                    self._resume(part.job, _NOTHING)
                else:
                    self._run_parts([part])
            return
        for part in parts:
            assert isinstance(part.job, Job)
            self._throw(part.job, error)

    # -- jobs go on -----------------------------------------------------------------

    def _resume(self, job: Job, decoded: Decoded) -> None:
        steps = job.steps
        assert steps is not None
        self._go_on(job, lambda: steps.send(decoded))

    def _throw(self, job: Job, error: EngineError) -> None:
        steps = job.steps
        assert steps is not None
        job.rows, job.hidden, job.seconds = [], [], 0.0
        self._go_on(job, lambda: steps.throw(error))

    def _go_on(self, job: Job, how: Callable[[], Ask | None]) -> None:
        self._ready.pop(job, None)
        self._blocked.pop(job, None)
        try:
            job.ask = how()
        except StopIteration as end:
            self._finish(job, end.value, None)
        except FlashfeedError as error:
            self._finish(job, None, error)
        except Exception as error:
            _log.exception("a job of the engine failed")
            failure = EngineError(f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            self._finish(job, None, failure)
        else:
            if job.ask is not None and not job.ask.n_tokens:
                self._throw(job, PlanFault("expected tokens to decode, got none"))
                return
            (self._blocked if job.ask is None else self._ready)[job] = None

    def _finish(self, job: Job, result: Any, error: BaseException | None) -> None:
        with self._lock:
            self._n_jobs -= 1
            self.meters.jobs[job.counts_as] -= 1
        follower = job.follow_up() if error is None else None
        if follower is not None:
            with self._lock:
                self._came(follower)
            self._watch.came(follower.session)
        self._watch.went(job.session)
        job.done(result, error)
        if not job.lane:
            return
        lane = self._lanes[job.session]
        lane.popleft()
        if follower is not None:
            self._arrivals += 1
            follower.arrival = self._arrivals
            lane.appendleft(follower)
        if not lane:
            del self._lanes[job.session]
            return
        behind = islice(lane, 1, _LOOK_BEHIND)
        lane[0].hurry = min((one.kind for one in behind), default=Priority.BACKGROUND)
        self._starting.append(lane[0])

    def _give_up(self) -> None:
        talk = [job for job in (*self._ready, *self._blocked, *self._starting) if not job.lane]
        left = [*talk, *(job for lane in self._lanes.values() for job in lane)]
        while True:
            try:
                job = self._inbox.get(block=False)
            except queue.Empty:
                break
            if job is not None:
                left.append(job)
        for job in left:
            try:
                if job.steps is not None:
                    job.steps.close()
            except Exception:
                _log.exception("a job of the engine failed while it was stopped")
            job.done(None, Unavailable("the engine has stopped"))
