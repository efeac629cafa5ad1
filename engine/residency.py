"""The steps that make a session resident: its frozen prefix, its window, its junior.

A prefix is decoded once for a tenant and its tokens. Seats of one group share its cells
(seq_cp); into other groups its KV is copied as bytes, which takes milliseconds.
"""

from __future__ import annotations

import logging
from typing import Final

from flashfeed.models.errors import ContextFull, EngineError
from flashfeed.models.window import junior_start

from .context import Context
from .plan import Run
from .pool import Sessions
from .seats import Group, Prefix, Seat
from .sessions import Session, expect_held
from .steps import Steps
from .turns import Ask, Priority

_log: Final = logging.getLogger(__name__)


def resident_steps(
    sessions: Sessions, session: Session, priority: Priority, restore: bool = True
) -> Steps[None]:
    """Gives the session its senior seat where it has none: from a snapshot that matches
    (`restore`), and by decoding what is left of its window."""
    sessions.touch(session)
    if session.is_lost:
        session.free()
    if session.senior is not None:
        return
    if session.length > session.context_tokens:
        raise ContextFull(
            f"{session.named}: its prefix and window need {session.length} tokens, its "
            f"context has {session.context_tokens}"
        )
    sessions.rebuilding.add(session.id)
    try:
        yield from _seated(sessions, session, priority, restore)
    finally:
        sessions.rebuilding.discard(session.id)


def _seated(sessions: Sessions, session: Session, priority: Priority, restore: bool) -> Steps[None]:
    seat = yield from sessions.seat_steps(session)
    # With its last items taken out a window may begin before what is still known of it.
    start = max(session.first, session.start)
    try:
        restored = restore and (yield from sessions.snapshots.restore_steps(session, seat, start))
        if not restored:
            seat.start = seat.end = start
            yield from prefix_steps(sessions, session, seat, priority)
        yield from catch_up_steps(session, seat, priority)
        expect_held(session, seat)
    except BaseException:
        seat.free()
        raise
    decoded = not restored and bool(session.items)
    sessions.rebuilt += decoded
    session.changed = session.changed or decoded
    session.senior = seat


def junior_steps(sessions: Sessions, session: Session) -> Steps[None]:
    """Brings the generation that takes over at the window's next move up to date."""
    start = junior_start(session.spec.window, session.count)
    if start is None or session.senior is None or session.closed or session.is_lost:
        return
    seat = session.junior
    if seat is None:
        seat = sessions.try_seat(session)
        if seat is None:
            return
        seat.start = seat.end = start
        yield from _restored(sessions, session, seat, start)
    elif seat.start != start:
        seat.reset(start)
    session.junior = None
    try:
        yield from prefix_steps(sessions, session, seat, Priority.BACKGROUND)
        yield from catch_up_steps(session, seat, Priority.BACKGROUND)
        expect_held(session, seat)
    except BaseException:
        seat.free()
        raise
    session.junior = seat


def _restored(sessions: Sessions, session: Session, seat: Seat, start: int) -> Steps[None]:
    try:
        yield from sessions.snapshots.restore_steps(session, seat, start)
    except BaseException:
        seat.free()
        raise


def catch_up_steps(session: Session, seat: Seat, priority: Priority) -> Steps[None]:
    """Decodes the items that the seat does not hold yet; the last one by itself where the seat
    could not go back before it else."""
    context, last = seat.group.context, session.count
    for end in (last,) if context.can_cut else (max(seat.end, last - 1), last):
        tokens = session.tokens(seat.end, end)
        if tokens:
            run = Run(tokens, seat.length, (seat.sequence,))
            yield Ask(context, (run,), priority, again=True)
            seat.hold()
        seat.end = end


def prefix_steps(
    sessions: Sessions, session: Session, seat: Seat, priority: Priority
) -> Steps[None]:
    """Makes an empty seat begin with the session's frozen prefix; nothing where it does."""
    if seat.held or not session.prefix:
        return
    group, key = seat.group, session.key
    if seat.prefix is not None:
        group.release(seat.prefix)
        seat.prefix = None
    while (prefix := group.prefixes.get(key)) is not None and not prefix.ready:
        yield None  # a neighbour decodes it
    if prefix is None:
        prefix = yield from _decode_prefix(sessions, session, group, priority)
    prefix.users += 1
    seat.prefix = prefix
    group.context.drop((seat.sequence,))
    group.context.fork(prefix.sequence, (seat.sequence,), len(session.prefix))
    seat.hold()


def _decode_prefix(
    sessions: Sessions, session: Session, group: Group, priority: Priority
) -> Steps[Prefix]:
    key, context = session.key, group.context
    [sequence] = group.take(1)
    prefix = group.prefixes[key] = Prefix(key, sequence, users=1)
    try:
        if not _load_prefix(sessions, session, context, sequence):
            yield Ask(context, (Run(session.prefix, 0, (sequence,)),), priority, again=True)
            sessions.prefixes.keep(key, context.save_sequence(sequence))
        if context.ends[sequence] != len(session.prefix):
            raise EngineError(f"{session.named}: its prefix was not decoded whole")
    except BaseException:
        group.drop_prefix(prefix)
        raise
    prefix.users -= 1
    prefix.ready = True
    return prefix


def _load_prefix(sessions: Sessions, session: Session, context: Context, sequence: int) -> bool:
    """Whether the sequence could be made the session's prefix, as it was once decoded."""
    state = sessions.prefixes.get(session.key)
    if state is None:
        return False
    try:
        context.load_sequence(sequence, state, session.prefix)
    except EngineError as error:
        sessions.prefixes.forget(session.key)
        where = {"session": session.id}
        _log.warning("%s: its prefix is decoded again: %s", session.named, error, extra=where)
        return False
    return True
