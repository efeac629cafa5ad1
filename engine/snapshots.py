"""When a session's KV is saved, and how it comes back.

Saved: when the session is evicted, every `snapshot_interval_s` where it changed, and at
a clean stop. A snapshot is a cache: one that is missing, refused (snapshot_file.py) or
older than the window only means that the window is decoded again. It may be behind the
session: what came since is decoded after it.

llama.cpp is called in the engine's thread; files are read and written in another one.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import msgspec

from flashfeed.models.errors import EngineError
from flashfeed.models.spec_hash import spec_hash
from flashfeed.models.window import junior_start

from .context import LLAMA_BUILD
from .context_params import KV_TYPES
from .seats import Seat
from .sessions import Session
from .settings import EngineSettings
from .snapshot_file import SnapshotIdentity, SnapshotRefused
from .snapshot_secret import snapshot_secret
from .snapshot_store import SnapshotStore, State
from .steps import Steps

_log: Final = logging.getLogger(__name__)
_WRITES_MAX: Final = 2
"""Snapshots that wait to be written, each in memory."""
_WAIT_S: Final = 0.5
"""How long the engine waits for a slow disk; what cannot be saved is decoded again."""
_STOP_S: Final = 5.0


class Snapshots:
    """The snapshots of an engine; without a folder nothing is saved and nothing found."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings: Final = settings
        self._store: SnapshotStore | None = None
        if settings.snapshots is not None:
            secret = snapshot_secret(settings.snapshots)
            self._store = SnapshotStore(settings.snapshots, secret, settings.snapshot_bytes_max)
        self._threads: Final = ThreadPoolExecutor(1, "flashfeed-snapshots")
        self._writing: Final[dict[str, Future[None]]] = {}
        self.saved = self.restored = self.refused = self.skipped = 0

    def save(self, session: Session) -> None:
        """Copies what the session holds, to be written to its file in the background."""
        if self._store is None or session.senior is None or not session.changed:
            return
        if not self._may_write(session.id):
            self.skipped += 1
            return
        try:
            states = [self._state(session, "senior", session.senior)]
            junior = session.junior
            if junior is not None and junior.end == session.count and junior.held:
                states.append(self._state(session, "junior", junior))
        except (EngineError, MemoryError) as error:
            where = {"session": session.id}
            _log.warning("session %s is not saved: %s", session.id, error, extra=where)
            return
        identity, count, start = self._identity(session), session.count, session.senior.start
        session.changed = False
        session.saved_at = time.monotonic()
        self._writing[session.id] = self._threads.submit(
            self._write, self._store, identity, states, count, start
        )

    def restore_steps(self, session: Session, seat: Seat, start: int) -> Steps[bool]:
        """Fills an empty seat with the session's prefix and items from `start` on, as far as
        its snapshot has them. False where it has not: the seat is empty then."""
        if self._store is None:
            return False
        written = self._writing.pop(session.id, None)
        while written is not None and not written.done():
            yield None
        reading = self._threads.submit(self._read, self._store, session, start)
        while not reading.done():
            yield None
        try:
            found = reading.result()
            if found is None:
                return False
            data, tokens, end = found
            # It comes with a prefix of its own, in the cells of an unused one.
            seat.group.drop_unused_prefixes()
            seat.group.context.load_sequence(seat.sequence, data, tokens)
        except EngineError as error:
            self.refused += 1
            self.forget(session)
            where = {"session": session.id}
            _log.warning("session %s is decoded again: %s", session.id, error, extra=where)
            return False
        seat.start, seat.end = start, end
        seat.hold()
        self.restored += 1
        return True

    def forget(self, session: Session) -> None:
        """Removes the session's snapshot: it has ended."""
        if self._store is not None:
            store, spec = self._store, session.spec
            # After a write that is under way; the end waits for it, as for a write.
            self._writing[session.id] = self._threads.submit(store.delete, spec.tenant, session.id)

    def due(self, session: Session, now: float) -> bool:
        """Whether the session changed and was not saved for long enough."""
        late = now - session.saved_at >= self._settings.snapshot_interval_s
        return self._store is not None and session.changed and late and not session.is_lost

    def stop(self) -> None:
        """Waits for what is being written, for some seconds at most."""
        deadline = time.monotonic() + _STOP_S
        for writing in self._writing.values():
            try:
                writing.exception(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                _log.warning("a snapshot was still being written at the end")
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _may_write(self, session_id: str) -> bool:
        """Whether another copy may be held in memory; waits a little for those before."""
        deadline = time.monotonic() + _WAIT_S
        for name in [session_id, *self._writing]:
            writing = self._writing.get(name)
            if writing is None or (name != session_id and len(self._writing) < _WRITES_MAX):
                continue
            try:
                writing.exception(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                return False
            del self._writing[name]
        return True

    def _state(self, session: Session, name: str, seat: Seat) -> State:
        tokens = session.prefix + session.tokens(seat.start, seat.end)
        return State(name, tokens, seat.group.context.save_sequence(seat.sequence))

    def _write(
        self,
        store: SnapshotStore,
        identity: SnapshotIdentity,
        states: list[State],
        count: int,
        start: int,
    ) -> None:
        try:
            store.save(identity, states, count=count, start=start, now_ms=int(time.time() * 1000))
            self.saved += 1
        except EngineError as error:
            where = {"session": identity.session_id}
            _log.warning("session %s: %s", identity.session_id, error, extra=where)

    def _read(
        self, store: SnapshotStore, session: Session, start: int
    ) -> tuple[memoryview, tuple[int, ...], int] | None:
        """In the other thread; nothing of the session changes while its job waits for this."""
        with store.open(self._identity(session)) as stored:
            if stored is None:
                return None
            header = stored.header
            window = session.spec.window
            if header.count > session.count:
                raise SnapshotRefused("tokens", f"it has {header.count} items, not {session.count}")
            if header.count < start:
                return None  # the window has left it behind
            if header.start == start:
                name = "senior"
            elif junior_start(window, header.count) == start and header.sequence("junior"):
                name = "junior"
            else:
                return None
            tokens = session.prefix + session.tokens(start, header.count)
            return stored.read({name: tokens})[name], tokens, header.count

    def _identity(self, session: Session) -> SnapshotIdentity:
        # Questions come and go without a change of what was decoded.
        spec = msgspec.structs.replace(session.spec, flash=())
        kv_type = KV_TYPES[session.home.settings.kv_type]
        return SnapshotIdentity(
            tenant=spec.tenant,
            session_id=session.id,
            model_hash=session.model.hash,
            spec_hash=spec_hash(spec),
            engine=LLAMA_BUILD,
            type_k=kv_type,
            type_v=kv_type,
            flash_attention=bool(session.home.settings.flash_attention_on),
        )
