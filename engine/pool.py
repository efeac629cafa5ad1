"""The open sessions, and which of them are resident: admission and eviction.

Bounds: `sessions_max` open sessions, `seats_max` seats, `kv_bytes_max` bytes of KV cache.
Where a seat is wanted and none may be made, idle sessions (no job waits or runs), the least
lately used ones and no more than that takes, are saved as snapshots and give up their seats;
they come back when they are asked. Nobody is evicted where that makes no seat: then Overloaded
once others were in use for too long, ModelUnavailable where it is not they who are in the way.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from flashfeed.models.errors import (
    EngineFull,
    ModelUnavailable,
    Overloaded,
    RequestError,
    SessionExists,
    SessionUnknown,
)
from flashfeed.models.session import SessionSpec
from flashfeed.models.window import junior_start

from .groups import Groups
from .homes import Home, Homes
from .prefix_states import PrefixStates
from .seat_queue import SeatQueue, Turn
from .seats import Group, Kind, Seat
from .sessions import Session
from .settings import EngineSettings
from .snapshots import Snapshots
from .stats import EngineStats
from .steps import Steps
from .trace import Trace

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
        trace = Trace(settings.trace) if settings.trace else None
        self._groups: Final = Groups(homes, settings.kv_bytes_max, trace)
        self._open: dict[str, Session] = {}
        self._n_jobs: dict[str, int] = {}
        self._queue: Final = SeatQueue()
        self._looked = 0.0
        self._clock = 0
        self.evictions = 0
        self.rebuilt = 0
        self.rebuilding: set[str] = set()
        self._groups.expect_possible(Kind(default, settings.context_tokens))

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
        self._groups.expect_possible(session.kind)
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
            for group in self._groups:
                if group.home is session.home:
                    self._groups.free(group)
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
        self._queue.changed()
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
        for group in self._groups:
            self._groups.free(group)

    # -- seats ----------------------------------------------------------------------

    def seat_steps(self, session: Session) -> Steps[Seat]:
        """A seat for the session, in turn with others who wait for one (seat_queue.py).

        Raises Overloaded where none becomes free for `_SEAT_WAIT_S`, ModelUnavailable where
        no memory can be had for it.
        """
        waiting = self._queue.join(session.kind, time.monotonic())
        try:
            while True:
                now = time.monotonic()
                turn = self._queue.turn(waiting, now)
                seat = self._seat(session, turn) if turn is not None else None
                if seat is not None:
                    return seat
                if now > waiting.since + _SEAT_WAIT_S:
                    raise Overloaded(
                        f"all {self.n_seats} resident sequences are in use; try again soon"
                    )
                yield None
        finally:
            self._queue.leave(waiting)

    def has_seat(self) -> bool:
        """Whether a seat may be had that costs no session its own."""
        return self.n_seats < self.settings.seats and not self._queue

    def try_seat(self, session: Session) -> Seat | None:
        """A seat that costs no other session its own, and that nobody waits for, or None:
        what is nice to have."""
        if self._queue or self.n_seats >= self.settings.seats:
            return None
        group = self._groups.with_seat(session.kind)
        try:
            if group is None and self._evictions_for(session, ()) is not None:
                group = self._groups.make(session.kind)
        except ModelUnavailable:
            return None
        return _seat_in(group, session) if group is not None else None

    @property
    def n_seats(self) -> int:
        """Seats that are held."""
        return self._groups.n_seats

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

    def _seat(self, session: Session, turn: Turn) -> Seat | None:
        group = self._groups.with_seat(session.kind)
        if group is not None and self.n_seats + turn.leaves < self.settings.seats:
            return _seat_in(group, session)
        if not turn.any_seat:
            return None
        try:
            group = self._make_way(session)
        except ModelUnavailable:
            # Where it was for memory, what was missing counts from now on: again, with that.
            group = self._make_way(session)
        return _seat_in(group, session) if group is not None else None

    def _make_way(self, session: Session) -> Group | None:
        """A group with a seat for the session, idle ones evicted for it; None where others
        must become idle first. Raises ModelUnavailable."""
        idle = (one for one in self if one is not session and self.idle(one))
        evictions = self._evictions_for(session, sorted(idle, key=lambda one: one.used))
        if evictions is None:
            self._groups.expect_room(session.kind)
            return None
        for one in evictions:
            self.evict(one)
        return self._groups.with_seat(session.kind) or self._groups.make(session.kind)

    def _evictions_for(self, session: Session, idle: Sequence[Session]) -> list[Session] | None:
        """Which of the idle ones must go so that there is a seat for the session, the first
        ones where any would do; None where all of them are not enough."""
        kind, n_seats = session.kind, self.n_seats
        missing = self._groups.missing(kind)
        given: Counter[Group] = Counter()

        def is_enough() -> bool:
            if n_seats - given.total() >= self.settings.seats:
                return False
            emptied = 0
            for group in self._groups:
                n_free = group.n_free + given[group]
                if n_free and group.may_serve(kind):
                    return True
                emptied += group.n_bytes * (n_free == group.n_seats)
            return emptied >= missing

        given.update(seat.group for one in idle for seat in one.seats)
        if not is_enough():
            return None
        given.clear()
        going: list[Session] = []
        while not is_enough():
            going.append(idle[len(going)])
            given.update(seat.group for seat in going[-1].seats)
        for one in going[-2::-1]:  # without the last one it was not enough
            given.subtract(seat.group for seat in one.seats)
            if is_enough():
                going.remove(one)
            else:
                given.update(seat.group for seat in one.seats)
        return going


def _seat_in(group: Group, session: Session) -> Seat:
    group.drop_unused_prefixes(but=session.key)
    return group.open_seat()
