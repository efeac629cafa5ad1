"""The job that updates a session: new items and the questions over them, in one pass.

An update is atomic: the new items are committed after the last answer, or not at all
(inv. 5, 6). Where the window moves with it, it runs on the seat that holds the new
window: the junior, which waits for that, or an empty one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from flashfeed.models.errors import ContextFull, EngineError, RequestError
from flashfeed.models.session import Answer, FlashQuery
from flashfeed.models.window import window_start

from .answer import Pending
from .context import Decoded
from .opening import full
from .plan import Run, plan_questions, plan_rounds
from .pool import Sessions
from .residency import catch_up_steps, prefix_steps, resident_steps
from .seats import Seat
from .sessions import Session
from .steps import Steps
from .turns import Ask, Priority


@dataclass(frozen=True)
class Update:
    """What an update did. Tokens are counted once, however many forks share them.

    `n_tokens` is the session's length after it; `decode_s` its share, by tokens, of the
    seconds inside llama_decode, `wall_s` those from the call to the last answer, waiting
    included; `decodes` the asks that it took. `hidden` has for each answer the hidden state
    at its position, float16 as bytes: b"" for a free answer, or where the engine does not
    read them. `query_tokens` are those that each question took by itself, its answer's among
    them, in the order asked.
    """

    answers: tuple[Answer, ...]
    ingest_tokens: int
    question_tokens: int
    generated_tokens: int
    n_tokens: int
    decode_s: float
    wall_s: float
    decodes: int
    hidden: tuple[bytes, ...] = ()
    query_tokens: tuple[int, ...] = ()


@dataclass
class _Meter:
    """What an update has cost so far."""

    decode_s: float = 0.0
    decodes: int = 0
    question_tokens: int = 0
    generated_tokens: int = 0

    def add(self, decoded: Decoded) -> None:
        self.decode_s += decoded.seconds
        self.decodes += 1


def update_steps(
    sessions: Sessions,
    session_id: str,
    new: Sequence[tuple[int, ...]],
    queries: Sequence[FlashQuery],
    started: float,
    rewind: int = 0,
) -> Steps[Update]:
    """Decodes the items and answers the questions, all in as few passes as fit.

    `started` is the time.perf_counter() of the call. The last `rewind` items go first, and
    come back where the rest fails. Raises ContextFull, before anything is decoded, where
    the lines and one question with its answer have no room; RequestError for a rewind that
    is longer than the new items, or than what the session holds.
    """
    if not rewind:
        return (yield from _update_steps(sessions, session_id, new, queries, started))
    session = sessions[session_id]
    if not rewind <= min(len(new), len(session.items)):
        raise RequestError(
            f"session {session_id!r}: expected a rewind of at most {len(new)} items (the new "
            f"ones) and {len(session.items)} (those held), got {rewind}"
        )
    yield from resident_steps(sessions, session, Priority.BACKGROUND)
    removed = _rewind(session, rewind)
    try:
        if session.senior is None:
            yield from resident_steps(sessions, session, Priority.BACKGROUND, restore=False)
        return (yield from _update_steps(sessions, session_id, new, queries, started))
    except BaseException:
        if not session.closed:
            # The seats hold less than the items say: they are decoded again when used.
            session.items.extend(removed)
            session.free()
        raise


def _rewind(session: Session, n_items: int) -> list[tuple[int, ...]]:
    """Takes the last items out of the session and its seats; their tokens. A seat that cannot
    go back there is given up."""
    base = session.count - n_items
    for seat in session.seats:
        if seat.end <= base:
            continue
        if seat.start > base:  # a junior that began with one of them
            session.junior = None
            seat.free()
            continue
        held = len(session.prefix) + session.n_tokens(seat.start, base)
        if not seat.group.context.can_go_back(seat.sequence, held):
            # It is decoded again: what answers now, or what takes over later.
            if seat is session.senior:
                session.free()
                break
            session.junior = None
            seat.free()
            continue
        seat.drop_chat()
        for branch in [one for one in seat.branches if one.base > held]:
            seat.drop_branch(branch)
        seat.group.context.truncate(seat.sequence, held)
        seat.end = base
        seat.hold()
    return [session.items.pop() for _ in range(n_items)][::-1]


def _update_steps(
    sessions: Sessions,
    session_id: str,
    new: Sequence[tuple[int, ...]],
    queries: Sequence[FlashQuery],
    started: float,
) -> Steps[Update]:
    session = sessions[session_id]
    model, questions = session.model, session.home.questions
    priority = Priority.FLASH if queries else Priority.INGEST
    asked = [questions.asked(query) for query in queries]
    start = window_start(session.spec.window, session.count + len(new))
    n_new = sum(len(item) for item in new[max(0, start - session.count) :])
    held = session.n_tokens(max(start, session.first), session.count) if session.items else 0
    bound = session.spec.window_tokens
    if bound and held + n_new > bound:
        raise ContextFull(
            f"session {session.id!r}: its window takes {bound} tokens of data; "
            f"{held} and {n_new} more are too many"
        )
    room = session.context_tokens - len(session.prefix) - held - n_new
    rounds = plan_rounds(asked, session.home.settings.forks, room)
    if room < 0 or rounds is None:
        most = max((question.n_cells for question in asked), default=0)
        raise full(session, n_new + most, "the update and its longest question")
    yield from resident_steps(sessions, session, Priority.BACKGROUND)
    seat = yield from _seat_from(sessions, session, start, priority)
    ingest = tuple(token for item in new[seat.end - session.count :] for token in item)
    needed = len(ingest) + max(
        (sum(asked[index].n_cells for index in one) for one in rounds), default=0
    )
    seat.make_room(needed)
    seat.reserved = needed
    answers: dict[int, Answer] = {}
    hidden: dict[int, bytes] = {}
    spent: dict[int, int] = {}
    meter = _Meter()
    try:
        left = ingest
        context = seat.group.context
        whole = len(left) <= context.limits.batch_tokens // 2
        if left and not (rounds and whole and context.can_cut):
            # Data alone goes before, in chunks; forks need only be there for what they share.
            runs = (Run(left, seat.length, (seat.sequence,)),)
            urgency = Priority.FLASH if rounds and whole else Priority.INGEST
            meter.add((yield _ask(seat, runs, urgency, len(left))))
            left = ()
        for indices in rounds:
            chosen = [Pending(model, queries[index], asked[index]) for index in indices]
            found = yield from _answer_round(seat, left, chosen, meter)
            answers.update(zip(indices, found, strict=True))
            hidden.update((index, one.hidden) for index, one in zip(indices, chosen, strict=True))
            spent.update((index, one.decoded) for index, one in zip(indices, chosen, strict=True))
            left = ()
        _commit(session, seat, new)
    except BaseException:
        _undo(session, seat)
        raise
    finally:
        seat.reserved = 0
    return Update(
        answers=tuple(answers[index] for index in range(len(queries))),
        ingest_tokens=len(ingest),
        question_tokens=meter.question_tokens,
        generated_tokens=meter.generated_tokens,
        n_tokens=session.length,
        decode_s=meter.decode_s,
        wall_s=time.perf_counter() - started,
        decodes=meter.decodes,
        hidden=tuple(hidden[index] for index in range(len(queries))),
        query_tokens=tuple(spent[index] for index in range(len(queries))),
    )


def _seat_from(sessions: Sessions, session: Session, start: int, priority: Priority) -> Steps[Seat]:
    """The seat that holds the window from `start` on, all its known items decoded."""
    senior = session.senior
    assert senior is not None
    if session.spec.window.mode == "shift":
        if senior.start < start:
            _slide(session, senior, start)
        return senior
    if senior.start == start:
        return senior
    seat, session.junior = session.junior or sessions.try_seat(session), None
    if seat is None:
        # No room beside it: in its place. Should this fail, the session is brought back.
        seat, session.senior = senior, None
        sessions.rebuilding.add(session.id)
        sessions.rebuilt += 1
    try:
        if seat.start != start or not seat.held:
            seat.reset(start)
            yield from prefix_steps(sessions, session, seat, priority)
        if start > session.count:
            seat.end = start
        else:
            yield from catch_up_steps(session, seat, priority)
    except BaseException:
        seat.free()
        raise
    finally:
        sessions.rebuilding.discard(session.id)
    if session.senior is None:
        session.senior = seat
    else:
        session.junior = seat
    return seat


def _slide(session: Session, seat: Seat, start: int) -> None:
    """Removes the items before `start` from the middle of the seat's sequence."""
    end = min(start, seat.end)
    prefix = len(session.prefix)
    cut = prefix + session.n_tokens(seat.start, end)
    seat.drop_chat()
    for branch in list(seat.branches):
        if branch.base < cut:
            seat.drop_branch(branch)
    if cut > prefix:
        sharers = {branch.sequence: branch.base for branch in seat.branches}
        seat.group.context.slide(seat.sequence, prefix, cut, sharers)
        for branch in seat.branches:
            branch.base -= cut - prefix
            branch.moved = True
        seat.held -= cut - prefix
    seat.start, seat.end = start, max(seat.end, start)


def _commit(session: Session, seat: Seat, new: Sequence[tuple[int, ...]]) -> None:
    more = sum(len(item) for item in new[seat.end - session.count :])
    if seat.length != seat.held + more:
        raise EngineError(
            f"session {session.id!r} holds {seat.length} tokens, expected {seat.held + more}"
        )
    if new:
        session.items.extend(new)
        session.changed = True
        seat.drop_chat()
    seat.end = session.count
    seat.hold()
    if seat is not session.senior:
        old = session.senior
        assert old is not None
        # It becomes the next junior, unless somebody still reads what is said over it.
        session.senior, session.junior = seat, None if old.branches else old
        if old.branches:
            session.retire(old)
    session.forget()


def _undo(session: Session, seat: Seat) -> None:
    """The seat holds again what it held before; one that was made for items that never
    came holds nothing but the prefix."""
    seat.group.context.truncate(seat.sequence, seat.held)
    if seat.end > session.count:
        seat.start = seat.end = session.count
    if seat is session.senior and seat.start != session.start:
        # What slid out cannot come back: the session is decoded again when it is used.
        session.senior = None
        seat.free()


def _ask(seat: Seat, runs: tuple[Run, ...], priority: Priority, data_tokens: int = 0) -> Ask:
    return Ask(seat.group.context, runs, priority, data_tokens)


def _answer_round(
    seat: Seat, ingest: tuple[int, ...], pending: list[Pending], meter: _Meter
) -> Steps[list[Answer]]:
    """Ingests and answers in forks of the seat, which are gone when this returns."""
    group, context = seat.group, seat.group.context
    asked = [one.asked for one in pending]
    forks = group.take(sum(question.n_forks for question in asked))
    try:
        start = seat.length
        context.fork(seat.sequence, forks, start)
        runs, wants = plan_questions(asked, start + len(ingest), forks)
        meter.question_tokens += sum(len(run.tokens) for run in runs)
        if ingest:
            runs.insert(0, Run(ingest, start, (seat.sequence, *forks)))
        decoded = yield _ask(seat, tuple(runs), Priority.FLASH, len(ingest))
        meter.add(decoded)
        for want, row, state in zip(wants, decoded.rows, decoded.hidden, strict=True):
            pending[want.question].take(want, row, state)
        yield from _decode_on(seat, forks, pending, meter)
        meter.generated_tokens += sum(len(one.written) for one in pending)
        return [one.answer() for one in pending]
    finally:
        group.give_back(forks)


def _decode_on(
    seat: Seat, forks: tuple[int, ...], pending: list[Pending], meter: _Meter
) -> Steps[None]:
    """The free answers' further tokens, all forks in one step a token."""
    ends = seat.group.context.ends
    taken = 0
    live: list[tuple[Pending, int]] = []
    for one in pending:
        if not one.ended:
            live.append((one, forks[taken]))
        taken += one.asked.n_forks
    while live:
        runs = tuple(Run((one.written[-1],), ends[fork], (fork,), (0,)) for one, fork in live)
        decoded = yield _ask(seat, runs, Priority.FLASH)
        meter.add(decoded)
        for (one, _), row in zip(live, decoded.rows, strict=True):
            one.decoded += 1
            one.go_on(row)
        live = [(one, fork) for one, fork in live if not one.ended]
