"""What nobody asked for and is done all the same: background jobs of sessions.

The next window of an exact session is brought up to date after each update, a reopened
session comes back before it is used, a changed one is saved from time to time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from .pool import Sessions
from .residency import junior_steps, resident_steps
from .scheduler import Job
from .sessions import Session
from .steps import Steps
from .turns import Priority

_log: Final = logging.getLogger(__name__)


def junior_job(sessions: Sessions, session_id: str) -> Job | None:
    """The junior's copy of what the senior got; None where it has it already."""
    session = sessions.get(session_id)
    if session is None or not sessions.wants_junior(session):
        return None
    return _job(session, lambda: junior_steps(sessions, session), "its next window is not ready")


def rebuild_job(sessions: Sessions, session_id: str) -> Job | None:
    """Brings a reopened session back, where a seat is free for it."""
    session = sessions.get(session_id)
    if session is None or session.senior is not None or not sessions.has_seat():
        return None
    job = _job(
        session,
        lambda: resident_steps(sessions, session, Priority.BACKGROUND),
        "it comes back when it is used",
    )
    job.follow_up = lambda: junior_job(sessions, session_id)
    return job


def saving_jobs(sessions: Sessions, now: float) -> list[Job]:
    """Saves a session whose snapshot is too old. `now`: time.monotonic()."""
    session = sessions.due_for_saving(now)
    if session is None:
        return []

    def save() -> Steps[None]:
        sessions.snapshots.save(session)
        return
        yield

    return [_job(session, save, "it is not saved")]


def _job(session: Session, start: Callable[[], Steps[None]], otherwise: str) -> Job:
    def done(_: Any, error: BaseException | None) -> None:
        if error is not None:
            where = {"session": session.id}
            _log.warning("session %s: %s: %s", session.id, otherwise, error, extra=where)

    return Job(
        start=start,
        done=done,
        session=session.id,
        tenant=session.spec.tenant,
        kind=Priority.BACKGROUND,
    )
