"""The engine's thread: whose turn it is. It runs one pass at a time.

lane       the jobs of one session that change it, one after another, in order of arrival
turn       what a job does up to its next `yield None`: at most one pass
updates    the first jobs of the lanes, in order of arrival; one that is not done after
           `_TURNS_IN_A_ROW` turns goes behind the others. Most are done before that:
           taking turns among equals would only make all of them late
talk       generations, by turns; one turn after every `_UPDATES_PER_TALK` turns of
           updates, or whenever no update waits

So a generation never holds up an update for more than one pass, and updates that never
cease do not stop a generation.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from flashfeed.models.errors import EngineError, FlashfeedError, Overloaded, Unavailable

from .context import Decoded
from .update import Steps

_log: Final = logging.getLogger(__name__)
_UPDATES_PER_TALK: Final = 4
_TURNS_IN_A_ROW: Final = 32
_NOTHING: Final = Decoded(np.empty((0, 0), np.float32), 0.0)


@dataclass(eq=False)
class Job:
    """`start` makes the steps, in the engine's thread; `done` gets the result or the error.

    `lane` is the session whose jobs go one after another, None for a generation.
    """

    start: Callable[[], Steps[Any]]
    done: Callable[[Any, BaseException | None], None]
    lane: str | None
    steps: Steps[Any] | None = None
    turns: int = 0


class Scheduler:
    """Runs jobs in a thread of its own, from `start` to `stop`."""

    def __init__(self, jobs_max: int, at_end: Callable[[], None]) -> None:
        self._jobs_max: Final = jobs_max
        self._at_end: Final = at_end
        self._inbox: Final[queue.SimpleQueue[Job | None]] = queue.SimpleQueue()
        self._lanes: Final[dict[str, deque[Job]]] = {}
        self._updates: Final[deque[Job]] = deque()
        self._talk: Final[deque[Job]] = deque()
        self._since_talk = 0
        self._n_jobs = 0
        self._lock: Final = threading.Lock()
        self._stopped = True
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
            self._n_jobs += 1
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
                job = self._next()
                if job is not None:
                    self._turn(job)
        except BaseException:
            _log.exception("the engine's thread failed; it takes no more jobs")
            with self._lock:
                self._stopped = True
        finally:
            self._give_up()
            self._at_end()

    def _take_in(self) -> bool:
        """Sorts new jobs in; waits where there is nothing to do. False at the end."""
        idle = not self._updates and not self._talk
        while True:
            try:
                job = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if job is None:
                return False
            idle = False
            if job.lane is None:
                self._talk.append(job)
                continue
            lane = self._lanes.setdefault(job.lane, deque())
            lane.append(job)
            if len(lane) == 1:
                self._updates.append(job)

    def _next(self) -> Job | None:
        talk_is_due = not self._updates or self._since_talk >= _UPDATES_PER_TALK
        if self._talk and talk_is_due:
            self._since_talk = 0
            return self._talk.popleft()
        self._since_talk += 1
        return self._updates.popleft() if self._updates else None

    def _turn(self, job: Job) -> None:
        try:
            if job.steps is None:
                job.steps = job.start()
                step = next(job.steps)
            else:
                step = job.steps.send(_NOTHING)
            while step is not None:
                context, one = step
                try:
                    decoded = context.run(one)
                except EngineError as error:
                    step = job.steps.throw(error)
                else:
                    step = job.steps.send(decoded)
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
            self._wait_again(job)

    def _wait_again(self, job: Job) -> None:
        job.turns += 1
        if job.lane is None:
            self._talk.append(job)
        elif job.turns % _TURNS_IN_A_ROW:
            self._updates.appendleft(job)
        else:
            self._updates.append(job)

    def _finish(self, job: Job, result: Any, error: BaseException | None) -> None:
        with self._lock:
            self._n_jobs -= 1
        if job.lane is not None:
            lane = self._lanes[job.lane]
            lane.popleft()
            if lane:
                self._updates.append(lane[0])
            else:
                del self._lanes[job.lane]
        job.done(result, error)

    def _give_up(self) -> None:
        left = [*self._talk, *(job for lane in self._lanes.values() for job in lane)]
        while True:
            try:
                job = self._inbox.get(block=False)
            except queue.Empty:
                break
            if job is not None:
                left.append(job)
        for job in left:
            if job.steps is not None:
                job.steps.close()
            job.done(None, Unavailable("the engine has stopped"))
