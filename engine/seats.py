"""Seats in llama_contexts, and what they share.

kind     what groups are alike in: their seats serve the same sessions
group    one llama_context with `sessions_per_context` seats; deals out its sequence ids
prefix   a sequence with a frozen prefix, which the seats of one tenant in a group share
seat     a resident sequence: a prefix, and a session's items from `start` to `end`
branch   a generation's sequence, which begins as what a seat holds

A seat never holds more than its session's `context_tokens` cells, its prefix, forks and
branches counted, so that the seats of a group cannot take room from one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flashfeed.models.errors import Overloaded

from .context import Context
from .homes import Home
from .settings import KvType
from .trace import Trace


class PrefixKey(NamedTuple):
    """What a frozen prefix is known by: the model's hash, what its keys and values are
    computed and kept as, the tenant and the tokens. It is never shared across tenants, nor
    between two models of one file whose caches differ."""

    model: str
    kv_type: KvType
    flash_attention: bool | None
    tenant: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Kind:
    """What a group is of: a model, and the cells that each of its seats may hold."""

    home: Home
    context_tokens: int

    @property
    def cells(self) -> int:
        """Cells of such a context."""
        return self.context_tokens * self.home.settings.sessions_per_context

    @property
    def n_bytes(self) -> int:
        """Bytes that such a context is counted with."""
        return self.home.context_bytes(self.cells)

    @property
    def needs(self) -> str:
        """How much it takes, and what makes it smaller, for whoever has no room for it."""
        return (
            f"a context of model {self.home.model.name!r} for {self.cells} tokens needs "
            f"{self.n_bytes / (1 << 20):.1f} MiB (less with fewer context tokens, a smaller "
            "engine.sessions_per_context, or kv_type 'q8_0')"
        )


class Group:
    """A context, its seats and its free sequence ids; `n_bytes` that it was counted with."""

    def __init__(self, kind: Kind, trace: Trace | None) -> None:
        settings = kind.home.settings
        self.kind, self.n_bytes = kind, kind.n_bytes
        self.home = kind.home
        self.context_tokens = kind.context_tokens
        self.n_seats = self.n_free = settings.sessions_per_context
        self.context = Context(kind.home.model, settings, kind.cells, trace)
        self.n_forks, self._n_branches = settings.forks, settings.generations_max
        self._ids = list(range(settings.sequences))
        self.prefixes: dict[PrefixKey, Prefix] = {}

    def take(self, n: int) -> tuple[int, ...]:
        """`n` unused sequence ids; there are enough for what every seat may hold."""
        taken = tuple(self._ids[:n])
        assert len(taken) == n, (n, self._ids)
        del self._ids[:n]
        return taken

    def give_back(self, sequences: Sequence[int]) -> None:
        """Drops the sequences with their cells; their ids are unused again."""
        self.context.drop(sequences)
        self._ids.extend(sequences)
        # llama.cpp decodes recurrent sequences together whose ids follow one another.
        self._ids.sort()

    def open_seat(self) -> Seat:
        """A seat without content."""
        assert self.n_free > 0
        self.n_free -= 1
        return Seat(self, self.take(1)[0], self._n_branches)

    def may_serve(self, kind: Kind) -> bool:
        """Whether its free seats are for sessions of that kind: never again once what its
        context holds was lost."""
        return self.kind == kind and self.context.lost is None

    def release(self, prefix: Prefix, keep: bool = False) -> None:
        """One user less of the prefix. `keep`: it stays without one, in the cells of the
        seat that was given back with it, until another seat takes these."""
        prefix.users -= 1
        if not prefix.users and not keep:
            self.drop_prefix(prefix)
        children = [one for one in self.prefixes.values() if one.parent is prefix]
        if prefix.users == 1 and children:
            # Nothing else begins there: its cells are its only child's.
            [child] = children
            self._merge(child, prefix)

    def _merge(self, child: Prefix, parent: Prefix) -> None:
        del self.prefixes[parent.key]
        self.context.inherit(child.sequence, parent.sequence)
        self._ids.append(parent.sequence)
        child.parent = parent.parent

    def extend_prefix(self, parent: Prefix | None, key: PrefixKey, sequence: int) -> Prefix:
        """A prefix in `sequence` that goes on from the parent, whose last user it is or not."""
        prefix = self.prefixes[key] = Prefix(key, sequence, ready=True, parent=parent)
        if parent is not None and parent.users == 1:
            self._merge(prefix, parent)
        return prefix

    def drop_unused_prefixes(self, but: PrefixKey | None = None) -> None:
        """The cells of prefixes that no seat uses go to the next seat."""
        for prefix in [one for one in self.prefixes.values() if not one.users]:
            if prefix.key != but:
                self.drop_prefix(prefix)

    def drop_prefix(self, prefix: Prefix) -> None:
        """Takes an unused prefix out."""
        del self.prefixes[prefix.key]
        self.give_back((prefix.sequence,))
        if prefix.parent is not None:
            self.release(prefix.parent)


@dataclass(eq=False)
class Prefix:
    """A frozen prefix in a group; `users` seats (or longer prefixes) share its cells.

    Not `ready` while a job decodes it; `parent` is the prefix that it goes on from.
    """

    key: PrefixKey
    sequence: int
    users: int = 0
    ready: bool = False
    parent: Prefix | None = None


@dataclass(eq=False)
class Branch:
    """A generation's own sequence over a seat's first `base` tokens.

    `asked` are the cells that it holds once all that it was asked for is decoded;
    `dropped` once its cells were given back; `moved` when what it stands on slid, until
    its generation has seen that. A kept chat (`tokens`, after `base`) waits
    in it for its next turn.
    """

    sequence: int
    base: int
    asked: int = 0
    dropped: bool = False
    moved: bool = False
    tokens: list[int] = field(default_factory=list)


@dataclass(eq=False)
class Seat:
    """A resident sequence. Between jobs it holds its prefix and the items `start`..`end` - 1.

    `held` counts the tokens of these: what a running job added to the sequence is not yet
    among them. `reserved` are the cells that this job may still take.
    """

    group: Group
    sequence: int
    branches_max: int
    prefix: Prefix | None = None
    held: int = 0
    start: int = 0
    end: int = 0
    reserved: int = 0
    retired: bool = False
    branches: list[Branch] = field(default_factory=list)
    chat: Branch | None = None

    @property
    def length(self) -> int:
        """Tokens in the sequence now, those of a running job too."""
        return self.group.context.ends.get(self.sequence, 0)

    @property
    def room(self) -> int:
        """Cells that a branch could take now, if the kept chat gave way to it."""
        ends = self.group.context.ends
        talk = sum(
            max(branch.asked, ends[branch.sequence] - branch.base) for branch in self.branches
        )
        return self.room_for_update - self.reserved - talk

    @property
    def room_for_update(self) -> int:
        """Cells that an update could take, if every branch gave way to it."""
        return self.group.context_tokens - self.held

    def hold(self) -> None:
        """What the sequence holds now is the seat's: what a failed job leaves it with."""
        self.held = self.length
        self.group.context.commit(self.sequence)

    def make_room(self, n_cells: int) -> None:
        """Drops the kept chat, then the youngest branches, until `n_cells` are free: data
        goes before talk."""
        self.has_room(n_cells)
        while self.branches and self.room < n_cells:
            self.drop_branch(self.branches[-1])

    def has_room(self, n_cells: int) -> bool:
        """Whether a branch may take so many cells; a kept chat makes way for it."""
        if self.chat is not None:
            kept = self.group.context.ends[self.chat.sequence] - self.chat.base
            if self.room - kept < n_cells:
                self.drop_chat()
        return self.room >= n_cells

    def open_branch(self) -> Branch:
        """A branch at what the seat holds now. Raises Overloaded where none is free."""
        if len(self.branches) + (self.chat is not None) >= self.branches_max:
            self.drop_chat()
        if len(self.branches) >= self.branches_max:
            raise Overloaded(
                f"expected at most {self.branches_max} generations of a session at a time; "
                "try again when one ended"
            )
        [sequence] = self.group.take(1)
        branch = Branch(sequence, self.held)
        self.group.context.fork(self.sequence, (sequence,), branch.base)
        self.branches.append(branch)
        return branch

    def drop_branch(self, branch: Branch) -> None:
        """Gives a branch's cells back; nothing where it was dropped before."""
        if branch.dropped:
            return
        branch.dropped = True
        self.branches.remove(branch)
        self.group.give_back((branch.sequence,))
        if self.retired and not self.branches:
            self.free()

    def keep_chat(self, branch: Branch, tokens: Sequence[int]) -> None:
        """The branch's tokens stay for the chat's next turn, in place of those kept before."""
        self.drop_chat()
        if branch.dropped or self.retired or branch.base != self.held:
            return
        branch.tokens = list(tokens)
        self.branches.remove(branch)
        self.chat = branch

    def reopen_chat(self) -> Branch:
        """The kept chat as a branch again."""
        chat, self.chat = self.chat, None
        assert chat is not None
        self.branches.append(chat)
        return chat

    def drop_chat(self) -> None:
        """Forgets the kept chat."""
        chat, self.chat = self.chat, None
        if chat is not None:
            chat.dropped = True
            self.group.give_back((chat.sequence,))

    def reset(self, start: int) -> None:
        """Empties the seat down to its prefix; the next item that it takes is `start`."""
        self.drop_chat()
        for branch in list(self.branches):
            self.drop_branch(branch)
        context = self.group.context
        context.drop((self.sequence,))
        if self.prefix is not None:
            context.fork(self.prefix.sequence, (self.sequence,), len(self.prefix.key.tokens))
        self.hold()
        self.start = self.end = start

    def retire(self) -> None:
        """Frees the seat when its last generation ends."""
        self.drop_chat()
        if self.branches:
            self.retired = True
        else:
            self.free()

    def free(self) -> None:
        """Gives everything back to the group."""
        self.retired = False
        self.drop_chat()
        for branch in list(self.branches):
            self.drop_branch(branch)
        self.group.give_back((self.sequence,))
        if self.prefix is not None:
            self.group.release(self.prefix, keep=True)
            self.prefix = None
        self.group.n_free += 1
