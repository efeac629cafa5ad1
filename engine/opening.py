"""The jobs that open a session and that freeze its prefix; lines as items of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from flashfeed.models.errors import ContextFull, RequestError
from flashfeed.models.generation import Continuation, PlainPrompt
from flashfeed.models.session import SessionSpec
from flashfeed.models.window import window_length

from .context import DecodeFailed
from .homes import Home
from .model import Model
from .pool import Sessions
from .residency import resident_steps
from .sessions import Session
from .steps import Steps
from .turns import Priority

_TOKEN_BYTES_MAX: Final = 256
"""No token of a vocabulary is longer."""


def open_steps(
    sessions: Sessions,
    home: Home,
    session_id: str,
    spec: SessionSpec,
    frozen: Sequence[str],
    lines: Sequence[str],
    count: int,
    plain: PlainPrompt | None = None,
) -> Steps[int]:
    """Opens a session; the tokens of its context. A new one's prefix is decoded at once,
    one with `lines` is brought back later. `plain`: it is a place for such a chat or text,
    and no session of anybody's (plain_chats.py)."""
    _expect_whole(session_id, spec)
    _expect_lines(session_id, spec, len(lines), count)
    session = sessions.create(home, session_id, spec, plain is not None)
    try:
        _expect_window(session)
        if isinstance(plain, Continuation):
            session.prefix = session.model.first_tokens
        else:
            session.prefix = prefix_tokens(session.model, spec.prompt, item_tokens(session, frozen))
        if not session.prefix and plain is None:
            raise RequestError(
                f"model {session.model.name!r} begins a context with the user's text: expected a "
                "prompt in the session's spec, got none"
            )
        session.items.extend(item_tokens(session, lines))
        session.first = count - len(lines)
        session.forget()
        if session.length > session.context_tokens:
            raise full(session, session.length, "the system prompt and the window")
        if not lines:
            yield from resident_steps(sessions, session, Priority.INGEST)
    except BaseException:
        sessions.remove(session)
        raise
    return session.length


def mark_prefix_steps(sessions: Sessions, session_id: str) -> Steps[int]:
    """Makes all that the session holds its frozen prefix; its length in tokens.

    The items count from 0 again. A neighbour of the same tenant whose prefix is the same
    shares its cells from now on.
    """
    session = sessions[session_id]
    yield from resident_steps(sessions, session, Priority.INGEST)
    seat = session.senior
    assert seat is not None
    tokens = session.prefix + session.tokens(seat.start, seat.end)
    group, key = seat.group, session.key_of(tokens)
    while (prefix := group.prefixes.get(key)) is not None and not prefix.ready:
        yield None  # a neighbour decodes it, which may fail
    lost = group.context.lost
    if lost is not None:  # meanwhile
        raise DecodeFailed(lost.decode_code)
    if session.junior is not None:
        session.junior.retire()
        session.junior = None
    seat.drop_chat()
    session.prefix = tokens
    session.items.clear()
    session.first = seat.start = seat.end = 0
    session.changed = True
    if prefix is None:
        [sequence] = group.take(1)
        group.context.rename(seat.sequence, sequence)
        prefix = group.extend_prefix(seat.prefix, key, sequence)
        sessions.prefixes.keep(key, group.context.save_sequence(sequence))
    elif prefix is seat.prefix:
        return len(tokens)
    else:
        for branch in list(seat.branches):
            seat.drop_branch(branch)
        group.context.drop((seat.sequence,))
        if seat.prefix is not None:
            group.release(seat.prefix)
    prefix.users += 1
    seat.prefix = prefix
    group.context.fork(prefix.sequence, (seat.sequence,), len(tokens))
    seat.hold()
    return len(tokens)


def _expect_whole(session_id: str, spec: SessionSpec) -> None:
    try:
        "".join((session_id, spec.prompt, spec.tenant, spec.text, spec.model)).encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"session {session_id!r}: expected whole characters in its id and its spec, "
            f"got half a surrogate pair: {error}"
        ) from None


def _expect_lines(session_id: str, spec: SessionSpec, n_lines: int, count: int) -> None:
    """Whether these can be the last lines of so many items, and are all of the window's."""
    least = window_length(spec.window, count)
    if not least <= n_lines <= count:
        raise RequestError(
            f"session {session_id!r}: expected the {least} lines of its window at least, and "
            f"at most the {count} that were ever applied, got {n_lines}"
        )


def _expect_window(session: Session) -> None:
    able, mode = session.model.capabilities, session.spec.window.mode
    if mode not in able.windows:
        raise RequestError(
            f"model {session.model.name!r}: expected window.mode {' or '.join(able.windows)}, "
            f"got {mode!r}; {'; '.join(able.reasons)}"
        )


def prefix_tokens(
    model: Model, prompt: str, frozen: Sequence[tuple[int, ...]] = ()
) -> tuple[int, ...]:
    """What a session with that system text begins with, and its frozen items."""
    chat = model.chat
    if prompt:
        template = (
            model.first_tokens
            + model.template_tokens(chat.head)
            + model.tokens(prompt)
            + model.template_tokens(chat.between)
        )
    else:
        template = model.first_tokens + model.template_tokens(chat.bare)
    return template + tuple(token for item in frozen for token in item)


def item_tokens(session: Session, lines: Sequence[str]) -> list[tuple[int, ...]]:
    """The tokens of the items that lines become; from any thread.

    Each line on its own, so that any batching of the same lines gives the same tokens.
    Raises ContextFull for a line that cannot fit, before llama.cpp sees it.
    """
    most = session.context_tokens * _TOKEN_BYTES_MAX
    for line in lines:
        if len(line) > most:
            raise full(session, len(line) // _TOKEN_BYTES_MAX, "a line's tokens")
    return [session.model.tokens(line.removesuffix("\n") + "\n") for line in lines]


def full(session: Session, needed: int, what: str) -> ContextFull:
    """What the session has no room for, as an error."""
    return ContextFull(
        f"{session.named} holds {session.length} of "
        f"{session.context_tokens} tokens; {what} need {needed} more"
    )
