"""A generation in a branch of a session: the data is never touched (inv. 6).

The branch begins at the session's committed tokens, so it may start while an update is
under way. Where the session's data needs its cells, the branch ends with "length". A
chat's branch is kept for its next turn, which decodes only what is new in it; it is
decoded again when the data has moved. A text that is written meanwhile leaves it there,
unless there is no room for both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flashfeed.models.errors import ContextFull, EngineError
from flashfeed.models.generation import GeneratedPiece

from .plan import Run
from .pool import Sessions
from .prompt import Prompt
from .seats import Branch, Seat
from .sessions import Session
from .steps import Steps
from .turns import Ask, Priority
from .writer import Writer


@dataclass(eq=False)
class Talk:
    """What the reader of a generation and the engine share: whether it goes on, and as asked."""

    cancelled: bool = False
    branch: Branch | None = None

    @property
    def over(self) -> bool:
        """Whether nobody reads it any more, or its branch had to make way."""
        return self.cancelled or (self.branch is not None and self.branch.dropped)

    @property
    def stale(self) -> bool:
        """Whether what it waits for is no longer there to be decoded as it was asked."""
        return self.over or (self.branch is not None and self.branch.moved)


class NotResident(EngineError):
    """The session has no seat: it must be brought back first."""


def generate_steps(
    sessions: Sessions,
    session_id: str,
    prompt: Prompt,
    emit: Callable[[GeneratedPiece], None],
    talk: Talk,
) -> Steps[None]:
    """Writes an answer to the prompt, a piece a token; the last piece has the reason.

    Raises ContextFull where the prompt itself has no room, Overloaded where the session
    has too many generations, NotResident.
    """
    session = sessions[session_id]
    sessions.touch(session)
    seat = session.senior
    if seat is None or session.is_lost:
        raise NotResident(f"{session.named} is not resident")
    writer = Writer(session.model, prompt, emit)
    branch, cached = _open_branch(session, seat, prompt)
    talk.branch = branch
    context = seat.group.context
    writer.begin(branch.base + len(prompt.tokens), branch.base + cached)
    decoded = list(prompt.tokens)
    runs = _rest(branch, decoded, branch.base + cached)

    def ended() -> bool:
        if talk.over:
            writer.finish("cancelled" if talk.cancelled or session.closed else "length")
        return talk.over

    try:
        if not context.can_cut and cached < prompt.settled:
            # What the next turn begins with is decoded first, to be gone back to.
            head = prompt.tokens[cached : prompt.settled]
            run = Run(head, branch.base + cached, (branch.sequence,))
            yield Ask(context, (run,), Priority.FOREGROUND)
            if ended():
                return
            context.commit(branch.sequence, 1)
            runs = _rest(branch, decoded, branch.base + prompt.settled)
        while True:
            row = (yield Ask(context, runs, Priority.FOREGROUND)).rows
            if ended():
                return
            if branch.moved:
                branch.moved = False
                runs = _rest(branch, decoded, context.ends[branch.sequence])
                continue
            token = writer.write(row[0], context.ends[branch.sequence])
            if token is None:
                return
            if not seat.has_room(1):
                writer.finish("length")
                return
            decoded.append(token)
            runs = _rest(branch, decoded, context.ends[branch.sequence])
    except BaseException:
        # After a failed pass nobody knows what its sequence holds.
        seat.drop_branch(branch)
        raise
    finally:
        if prompt.keep and not branch.dropped:
            held = context.ends[branch.sequence] - branch.base
            seat.keep_chat(branch, decoded[:held])
        if branch in seat.branches:
            seat.drop_branch(branch)


def _rest(branch: Branch, tokens: Sequence[int], end: int) -> tuple[Run, ...]:
    """What the branch, which ends at position `end`, does not hold yet of its tokens; the
    logits after the last one are wanted."""
    left = tuple(tokens[end - branch.base :])
    branch.asked = len(tokens)
    return (Run(left, end, (branch.sequence,), (len(left) - 1,)),)


def n_common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two lists begin with alike."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))


def _open_branch(session: Session, seat: Seat, prompt: Prompt) -> tuple[Branch, int]:
    """A branch, and how many of the prompt's tokens it holds already."""
    cached = 0
    if prompt.keep and seat.chat is not None and seat.chat.base == seat.held:
        # The last token is decoded in any case: its logits are wanted.
        common = n_common(prompt.tokens[:-1], seat.chat.tokens)
        place = seat.group.context.place_at(seat.chat.sequence, seat.chat.base + common)
        cached = max(0, place - seat.chat.base)
    if cached:
        branch = seat.reopen_chat()
        seat.group.context.truncate(branch.sequence, branch.base + cached)
    elif prompt.keep:
        seat.drop_chat()  # this one takes its place
    needed = len(prompt.tokens) - cached
    if not seat.has_room(needed):
        room = seat.room
        if cached:
            seat.drop_branch(branch)
        raise ContextFull(
            f"{session.named} has room for {room} more tokens; the prompt needs {needed}"
        )
    return (branch if cached else seat.open_branch()), cached
