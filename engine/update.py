"""The jobs on a session's own sequence: opening it, and updating it with questions.

A job is a generator: it plans, yields a pass, is sent what the pass decoded, and
settles. A pass is run at once; before the next one a job yields its turn, and whoever
runs it (scheduler.py) lets other jobs go on. An update is atomic: the new tokens are
committed after the last answer, or not at all (inv. 5, 6).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from flashfeed.models.errors import ContextFull
from flashfeed.models.session import Answer, FlashQuery, SessionSpec

from .answer import Pending
from .context import Context, Decoded
from .plan import Pass, Run, cut, plan_questions, plan_rounds
from .sessions import Session, Sessions, extend

Step: TypeAlias = tuple[Context, Pass] | None
"""A pass to run now, or None: the others' turn."""

T = TypeVar("T")
Steps: TypeAlias = Generator[Step, Decoded, T]


@dataclass(frozen=True)
class Update:
    """What an update did. Tokens are counted once, however many forks share them.

    `n_tokens` is the session's length after it; `decode_s` the seconds inside
    llama_decode, `wall_s` those from the call to the last answer, waiting included.
    """

    answers: tuple[Answer, ...]
    ingest_tokens: int
    question_tokens: int
    generated_tokens: int
    n_tokens: int
    decode_s: float
    wall_s: float
    decodes: int


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


@dataclass
class _Round:
    """The forks of one round, and the cells that they alone hold."""

    sequences: tuple[int, ...]
    cells: int = field(default=0)


def open_steps(sessions: Sessions, session_id: str, spec: SessionSpec) -> Steps[int]:
    """Opens a session and decodes its prefix; its length in tokens."""
    session = sessions.create(session_id, spec.context)
    try:
        model = sessions.model
        chat = model.chat
        if spec.prompt:
            prefix = (
                model.first_tokens
                + model.template_tokens(chat.head)
                + model.tokens(spec.prompt)
                + model.template_tokens(chat.between)
            )
        else:
            prefix = model.first_tokens + model.template_tokens(chat.bare)
        if len(prefix) > session.room_for_update:
            raise _full(session, len(prefix), "the system prompt")
        context = session.group.context
        for one in cut((Run(prefix, 0, (session.sequence,)),), context.limits):
            yield context, one
            yield None
        extend(session, prefix)
        session.prefix_end = len(prefix)
    except BaseException:
        sessions.remove(session)
        raise
    return session.prefix_end


def update_steps(
    sessions: Sessions,
    session_id: str,
    lines: Sequence[str],
    queries: Sequence[FlashQuery],
    started: float,
) -> Steps[Update]:
    """Decodes the lines and answers the questions, all in as few passes as fit.

    `started` is the time.perf_counter() of the call. Raises ContextFull, before anything
    is decoded, where the lines and one question with its answer have no room.
    """
    session, model = sessions[session_id], sessions.model
    group = session.group
    # Each line on its own: any batching of the same lines gives the same tokens.
    ingest = tuple(token for line in lines for token in model.tokens(line + "\n"))
    asked = [sessions.questions.asked(query) for query in queries]
    room = session.room_for_update - len(ingest)
    rounds = plan_rounds(asked, group.n_forks, room)
    if room < 0 or rounds is None:
        most = max((question.n_cells for question in asked), default=0)
        raise _full(session, len(ingest) + most, "the update and its longest question")
    needed = len(ingest) + max(
        (sum(asked[index].n_cells for index in one) for one in rounds), default=0
    )
    session.make_room(needed)
    session.reserved = needed
    answers: dict[int, Answer] = {}
    meter = _Meter()
    try:
        left = ingest
        if not rounds:
            run = Run(left, len(session.tokens), (session.sequence,))
            for number, one in enumerate(cut((run,), group.context.limits)):
                if number:
                    yield None
                meter.add((yield group.context, one))
        for number, indices in enumerate(rounds):
            if number:
                yield None
            chosen = [Pending(model, queries[index], asked[index]) for index in indices]
            found = yield from _answer_round(session, left, chosen, meter)
            answers.update(zip(indices, found, strict=True))
            left = ()
        extend(session, ingest)
    except BaseException:
        group.context.truncate(session.sequence, len(session.tokens))
        raise
    finally:
        session.reserved = 0
    return Update(
        answers=tuple(answers[index] for index in range(len(queries))),
        ingest_tokens=len(ingest),
        question_tokens=meter.question_tokens,
        generated_tokens=meter.generated_tokens,
        n_tokens=len(session.tokens),
        decode_s=meter.decode_s,
        wall_s=time.perf_counter() - started,
        decodes=meter.decodes,
    )


def _answer_round(
    session: Session, ingest: tuple[int, ...], pending: list[Pending], meter: _Meter
) -> Steps[list[Answer]]:
    """Ingests and answers in forks of the session, which are gone when this returns."""
    group, context = session.group, session.group.context
    asked = [one.asked for one in pending]
    n_forks = sum(question.n_forks for question in asked)
    while len(group.free_forks) < n_forks:
        yield None  # a neighbour's update holds them; it goes on in the meantime
    forks = _Round(tuple(group.free_forks[:n_forks]))
    del group.free_forks[:n_forks]
    try:
        start = context.ends.get(session.sequence, 0)
        context.fork(session.sequence, forks.sequences, start)
        runs, wants = plan_questions(asked, start + len(ingest), forks.sequences)
        meter.question_tokens += sum(len(run.tokens) for run in runs)
        if ingest:
            runs.insert(0, Run(ingest, start, (session.sequence, *forks.sequences)))
        wanted = iter(wants)
        for number, one in enumerate(cut(runs, context.limits)):
            if number:
                yield None
            decoded = yield context, one
            meter.add(decoded)
            forks.cells += sum(
                len(run.tokens) for run in one.runs if run.sequences[0] != session.sequence
            )
            for row in decoded.rows:
                want = next(wanted)
                pending[want.question].take(want, row)
        yield from _decode_on(context, forks, pending, meter)
        meter.generated_tokens += sum(len(one.written) for one in pending)
        return [one.answer() for one in pending]
    finally:
        context.drop(forks.sequences, forks.cells)
        group.free_forks.extend(forks.sequences)


def _decode_on(
    context: Context, forks: _Round, pending: list[Pending], meter: _Meter
) -> Steps[None]:
    """The free answers' further tokens, all forks in one step a token."""
    taken = 0
    live: list[tuple[Pending, int]] = []
    for one in pending:
        if not one.ended:
            live.append((one, forks.sequences[taken]))
        taken += one.asked.n_forks
    while live:
        steps = [Run((one.written[-1],), context.ends[fork], (fork,), (0,)) for one, fork in live]
        waiting = iter(live)
        for single in cut(steps, context.limits):
            yield None
            decoded = yield context, single
            meter.add(decoded)
            forks.cells += single.n_tokens
            for row in decoded.rows:
                next(waiting)[0].go_on(row)
        live = [(one, fork) for one, fork in live if not one.ended]


def _full(session: Session, needed: int, what: str) -> ContextFull:
    return ContextFull(
        f"session {session.id!r} holds {len(session.tokens)} of "
        f"{session.group.context_tokens} tokens; {what} need {needed} more"
    )
