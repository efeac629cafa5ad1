"""Sessions and the context groups that they live in.

group     one llama_context that serves `sessions_per_context` sessions; its sequence ids
          are dealt out by it: one a session, the rest to questions and generations
session   one sequence, and the tokens that it holds
branch    a generation's sequence, which begins as the session's committed tokens

A session never holds more than its `context_tokens` cells, its forks and branches
counted, so that the sessions of a group cannot take room from one another.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from flashfeed.models.errors import (
    EngineError,
    Overloaded,
    RequestError,
    SessionExists,
    SessionUnknown,
)

from .context import Context
from .model import Model
from .questions import Questions
from .settings import EngineSettings
from .trace import Trace


class Group:
    """A context and its free sequence ids."""

    def __init__(
        self, model: Model, settings: EngineSettings, context_tokens: int, trace: Trace | None
    ) -> None:
        n = settings.sessions_per_context
        self.context_tokens = context_tokens
        self.context = Context(model, settings, context_tokens * n, trace)
        self.n_forks = settings.forks_max
        self.free_sessions = list(range(n))
        self.free_forks = list(range(n, n + self.n_forks))
        self.free_branches = list(range(n + self.n_forks, settings.sequences))
        self.n_sessions = 0


@dataclass(eq=False)
class Branch:
    """A generation's own sequence. `dropped` once its cells were given back."""

    sequence: int
    cells: int = 0
    dropped: bool = False
    cancelled: bool = False


@dataclass(eq=False)
class Session:
    """A session as the engine holds it.

    `tokens` are the committed ones; between jobs the sequence holds exactly these.
    `reserved` counts the cells that the running update may still take.
    """

    id: str
    group: Group
    sequence: int
    tokens: array[int] = field(default_factory=lambda: array("i"))
    prefix_end: int = 0
    reserved: int = 0
    branches: list[Branch] = field(default_factory=list)

    @property
    def room(self) -> int:
        """Cells that a branch could take now."""
        return self.room_for_update - self.reserved - sum(b.cells for b in self.branches)

    @property
    def room_for_update(self) -> int:
        """Cells that an update could take, if every branch gave way to it."""
        return self.group.context_tokens - len(self.tokens)

    def make_room(self, n_cells: int) -> None:
        """Drops the youngest branches until `n_cells` are free: data goes before talk."""
        while self.branches and self.room < n_cells:
            self.drop_branch(self.branches[-1])

    def open_branch(self) -> Branch:
        """A branch at the committed tokens. Raises Overloaded where none is free."""
        if not self.group.free_branches:
            raise Overloaded("too many generations in this context; try again when one ended")
        branch = Branch(self.group.free_branches.pop())
        self.group.context.fork(self.sequence, (branch.sequence,), len(self.tokens))
        self.branches.append(branch)
        return branch

    def drop_branch(self, branch: Branch) -> None:
        """Gives a branch's cells back; nothing where it was dropped before."""
        if branch.dropped:
            return
        branch.dropped = True
        self.branches.remove(branch)
        self.group.context.drop((branch.sequence,), branch.cells)
        self.group.free_branches.append(branch.sequence)


class Sessions:
    """The open sessions, the pool of groups, and the questions asked of them.

    The engine's thread only.
    """

    def __init__(self, model: Model, settings: EngineSettings) -> None:
        self.model: Final = model
        self.questions: Final = Questions(model)
        self._settings: Final = settings
        self._trace: Final = Trace(settings.trace) if settings.trace else None
        self._open: dict[str, Session] = {}
        self._groups: list[Group] = []

    def __getitem__(self, session_id: str) -> Session:
        try:
            return self._open[session_id]
        except KeyError:
            raise SessionUnknown(f"no session {session_id!r} is open") from None

    def create(self, session_id: str, context_tokens: int) -> Session:
        """An empty session with a sequence of its own; `context_tokens` 0 for the default."""
        if session_id in self._open:
            raise SessionExists(f"session {session_id!r} is open already")
        if len(self._open) >= self._settings.sessions_max:
            raise Overloaded(f"expected at most {self._settings.sessions_max} open sessions")
        size = context_tokens or self._settings.context_tokens
        if size > self.model.n_ctx_train:
            raise RequestError(
                f"expected a context of at most {self.model.n_ctx_train} tokens "
                f"(what the model was trained on), got {size}"
            )
        group = self._group(size)
        session = Session(session_id, group, group.free_sessions.pop())
        group.n_sessions += 1
        self._open[session_id] = session
        return session

    def remove(self, session: Session) -> None:
        """Gives everything of the session back."""
        del self._open[session.id]
        group = session.group
        for branch in list(session.branches):
            branch.cancelled = True
            session.drop_branch(branch)
        held = group.context.ends.get(session.sequence, 0)
        group.context.drop((session.sequence,), held)
        group.free_sessions.append(session.sequence)
        group.n_sessions -= 1
        if group.n_sessions == 0:
            group.context.clear()

    def free(self) -> None:
        """Frees every context."""
        self._open.clear()
        for group in self._groups:
            group.context.free()
        self._groups.clear()

    def _group(self, context_tokens: int) -> Group:
        for group in self._groups:
            if group.context_tokens == context_tokens and group.free_sessions:
                return group
        # Idle contexts of other sizes make way: memory is bounded by the sessions allowed.
        for idle in [group for group in self._groups if group.n_sessions == 0]:
            self._groups.remove(idle)
            idle.context.free()
        group = Group(self.model, self._settings, context_tokens, self._trace)
        self._groups.append(group)
        return group


def expect_sequence_kept(session: Session) -> None:
    """Raises EngineError where the cache does not hold the committed tokens."""
    held = session.group.context.ends.get(session.sequence, 0)
    if held != len(session.tokens):
        raise EngineError(f"session {session.id!r} holds {held}, expected {len(session.tokens)}")


def extend(session: Session, tokens: Sequence[int]) -> None:
    """Commits tokens that were decoded."""
    session.tokens.extend(tokens)
    expect_sequence_kept(session)
