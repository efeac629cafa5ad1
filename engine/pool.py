"""The open sessions, and which of them are resident: admission and eviction.

Bounds: `sessions_max` open sessions, `seats_max` seats, `kv_bytes_max` bytes of KV cache.
Where a seat is wanted and none may be made, an idle session (no job waits or runs), the
least lately used one, is saved as a snapshot and gives up its seats; it comes back when
it is asked. Where none is idle: Overloaded.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Final

from flashfeed.models.errors import (
    EngineError,
    EngineFull,
    ModelUnavailable,
    Overloaded,
    RequestError,
    SessionExists,
    SessionUnknown,
)
from flashfeed.models.session import SessionSpec
from flashfeed.models.window import junior_start

from .homes import Home, Homes
from .seats import Group, PrefixKey, Seat
from .sessions import Session
from .settings import EngineSettings
from .snapshots import Snapshots
from .stats import EngineStats
from .steps import Steps
from .trace import Trace

_log: Final = logging.getLogger(__name__)
_PREFIX_BYTES_MAX: Final = 256 << 20
_SEAT_WAIT_S: Final = 10.0
_LOOK_S: Final = 1.0


class Sessions:
    """The open sessions, the pool of groups, and the KV of prefixes.

    The engine's thread only.
    """

    def __init__(self, homes: Homes, default: Home, settings: EngineSettings) -> None:
        self.home: Final = default
        self.model: Final = default.model
        self._homes: Final = homes
        self.prefixes: Final = PrefixStates(_PREFIX_BYTES_MAX)
        self.settings: Final = settings
        self.snapshots: Final = Snapshots(settings)
        self._trace: Final = Trace(settings.trace) if settings.trace else None
        self._open: dict[str, Session] = {}
        self._groups: list[Group] = []
        self._n_jobs: dict[str, int] = {}
        self._queue: deque[str] = deque()
        self._looked = 0.0
        self._clock = 0
        self.evictions = 0
        self.rebuilt = 0
        self.rebuilding: set[str] = set()

    def __getitem__(self, session_id: str) -> Session:
        try:
            return self._open[session_id]
        except KeyError:
            raise SessionUnknown(f"no session {session_id!r} is open") from None

    def __iter__(self) -> Iterator[Session]:
        return iter(self._open.values())

    def __len__(self) -> int:
        return len(self._open)

    def get(self, session_id: str) -> Session | None:
        """The session, None where it is not open."""
        return self._open.get(session_id)

    def create(
        self, home: Home, session_id: str, spec: SessionSpec, plain: bool = False
    ) -> Session:
        """A session without items or seats; a `plain` one counts with no other."""
        if session_id in self._open:
            raise SessionExists(f"session {session_id!r} is open already")
        bound = self.settings.sessions_max  # counted one by one only where there may be as many
        if not plain and len(self) >= bound and sum(not one.plain for one in self) >= bound:
            raise EngineFull(f"expected at most {bound} open sessions")
        size = spec.context or home.settings.context_tokens
        if size > home.model.n_ctx_train:
            raise RequestError(
                f"expected a context of at most {home.model.n_ctx_train} tokens "
                f"(what the model was trained on), got {size}"
            )
        session = Session(session_id, spec, home, size, plain)
        self._homes.keep(home)
        self._open[session_id] = session
        self.touch(session)
        return session

    def remove(self, session: Session, forget: bool = False) -> None:
        """Gives everything of the session back; `forget` its snapshot too."""
        if forget:
            self.snapshots.forget(session)
        del self._open[session.id]
        session.closed = True
        session.free()
        if session.home is not self.home and not any(one.home is session.home for one in self):
            for group in [group for group in self._groups if group.home is session.home]:
                self._free_group(group)
        self._homes.release(session.home)

    def tenant(self, session_id: str) -> str:
        """Whose session it is; "" where it is not open. From any thread."""
        session = self._open.get(session_id)
        return session.spec.tenant if session is not None else ""

    def came(self, session_id: str) -> None:
        """A job of the session waits from now on."""
        self._n_jobs[session_id] = self._n_jobs.get(session_id, 0) + 1

    def went(self, session_id: str) -> None:
        """A job of the session ended."""
        self._n_jobs[session_id] -= 1
        if not self._n_jobs[session_id]:
            del self._n_jobs[session_id]

    def wants_junior(self, session: Session) -> bool:
        """Whether the session's next window is behind."""
        start = junior_start(session.spec.window, session.count)
        if start is None or session.senior is None:
            return False
        junior = session.junior
        return junior is None or junior.start != start or junior.end != session.count

    def touch(self, session: Session) -> None:
        """The session is used now."""
        self._clock += 1
        session.used = self._clock

    def stats(self) -> EngineStats:
        """What it holds now. From any thread: a list of a dictionary is made at once."""
        states = {"resident": 0, "evicted": 0, "rebuilding": 0}
        rebuilding = set(self.rebuilding)
        for one in list(self._open.values()):
            if not one.plain:
                evicted = "rebuilding" if one.id in rebuilding else "evicted"
                states["resident" if one.senior is not None else evicted] += 1
        groups = list(self._groups)
        saved = self.snapshots
        return EngineStats(
            sessions=states,
            restores={"snapshot": saved.restored, "decode": self.rebuilt},
            snapshots={"saved": saved.saved, "refused": saved.refused, "skipped": saved.skipped},
            evictions=self.evictions,
            kv_cells=sum(group.context.limits.cells for group in groups),
            kv_cells_used=sum(group.context.cells_used for group in groups),
            kv_bytes=sum(group.n_bytes for group in groups),
            kv_bytes_max=self.settings.kv_bytes_max,
            seats=sum(group.n_seats - group.n_free for group in groups),
            seats_max=self.settings.seats,
        )

    def free(self) -> None:
        """Saves what changed and frees every context."""
        for session in list(self):
            self.snapshots.save(session)
            self.remove(session)
        self.snapshots.stop()
        for group in list(self._groups):
            self._free_group(group)

    # -- seats ----------------------------------------------------------------------

    def seat_steps(self, session: Session) -> Steps[Seat]:
        """A seat for the session, in the order in which they were asked for. Raises
        Overloaded where none can be made free for `_SEAT_WAIT_S`."""
        deadline = time.monotonic() + _SEAT_WAIT_S
        self._queue.append(session.id)
        try:
            while True:
                if self._queue[0] == session.id:
                    seat = self._free_seat(session)
                    if seat is not None:
                        return seat
                    if self._evict_one(session):
                        continue
                if time.monotonic() > deadline:
                    raise Overloaded(
                        f"all {self.n_seats} resident sequences are in use; try again soon"
                    )
                yield None
        finally:
            self._queue.remove(session.id)

    def has_seat(self) -> bool:
        """Whether a seat may be had that costs no session its own."""
        return self.n_seats + len(self._queue) < self.settings.seats and not self._queue

    def try_seat(self, session: Session) -> Seat | None:
        """A seat that costs no other session its own, or None: what is nice to have."""
        return self._free_seat(session)

    @property
    def n_seats(self) -> int:
        """Seats that are held."""
        return sum(group.n_seats - group.n_free for group in self._groups)

    def evict(self, session: Session) -> None:
        """Saves the session and takes its seats."""
        self.snapshots.save(session)
        session.free()
        self.evictions += 1

    def idle(self, session: Session, jobs: int = 0) -> bool:
        """Whether it is resident, and no more than so many jobs of it wait or run."""
        return session.senior is not None and self._n_jobs.get(session.id, 0) <= jobs

    def due_for_saving(self, now: float) -> Session | None:
        """An idle session whose snapshot is too old, looked for once a second, as are models
        that nobody uses. `now`: time.monotonic()."""
        if now - self._looked < _LOOK_S:
            return None
        self._looked = now
        self._homes.unload_idle()
        due = (one for one in self if self.idle(one) and self.snapshots.due(one, now))
        return next(due, None)

    def _evict_one(self, wanted_by: Session) -> bool:
        idle = [one for one in self if one is not wanted_by and self.idle(one)]
        if not idle:
            return False
        self.evict(min(idle, key=lambda one: one.used))
        return True

    def _free_seat(self, session: Session) -> Seat | None:
        if self.n_seats >= self.settings.seats:
            return None
        try:
            group = self._group(session.home, session.context_tokens)
        except (ModelUnavailable, EngineError) as error:
            where = {"session": session.id}
            _log.warning("no context for session %s: %s", session.id, error, extra=where)
            return None
        if group is None:
            return None
        group.drop_unused_prefixes(but=session.key)
        return group.open_seat()

    def _group(self, home: Home, context_tokens: int) -> Group | None:
        for group in self._groups:
            if group.home is home and group.context_tokens == context_tokens and group.n_free:
                return group
        # Idle contexts of other kinds make way: memory is bounded by the seats allowed.
        for idle in [group for group in self._groups if group.n_free == group.n_seats]:
            self._free_group(idle)
        more = home.context_bytes(context_tokens * home.settings.sessions_per_context)
        used = sum(group.n_bytes for group in self._groups)
        if self._groups and used + more > self.settings.kv_bytes_max:
            return None
        self._homes.charge(home, more)
        try:
            group = Group(home, context_tokens, self._trace)
        except BaseException:
            self._homes.discharge(home, more)
            raise
        self._groups.append(group)
        return group

    def _free_group(self, group: Group) -> None:
        self._groups.remove(group)
        group.context.free()
        self._homes.discharge(group.home, group.n_bytes)


class PrefixStates:
    """The KV of frozen prefixes as bytes, to be copied into other contexts; the least
    lately used are forgotten above `bytes_max`."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max: Final = bytes_max
        self._states: OrderedDict[PrefixKey, memoryview] = OrderedDict()

    def get(self, key: PrefixKey) -> memoryview | None:
        """The bytes of a prefix that was decoded before."""
        state = self._states.get(key)
        if state is not None:
            self._states.move_to_end(key)
        return state

    def forget(self, key: PrefixKey) -> None:
        """Drops a prefix that llama.cpp does not take back."""
        self._states.pop(key, None)

    def keep(self, key: PrefixKey, state: memoryview) -> None:
        """Remembers a prefix."""
        self._states[key] = state
        while sum(map(len, self._states.values())) > self._bytes_max and len(self._states) > 1:
            self._states.popitem(last=False)
